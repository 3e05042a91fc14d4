"""The lowest layer: rows of every shape become one typed record, or named problems.

Also here, and nowhere else: placeholders, media paths and suffixes, the order of frames, media identity, JSON and JSONL
reading and appending, files that are never half-written, and locks. Neither torch nor the host is imported.
"""
