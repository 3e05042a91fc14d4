"""Wordings of the request for a caption, as versioned files."""
