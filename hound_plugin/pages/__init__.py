"""Parts of the pages that people look at: frames, answers, pairs, filters, charts. No model, no torch.

A page is one HTML file, or is served on this machine. Texts are escaped by the templates, scripts and styles are the
package's own and named by their hashes in the page's Content Security Policy: nothing in a text can run or load.
"""
