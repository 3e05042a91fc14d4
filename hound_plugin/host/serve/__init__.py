"""Serving: chat at the terminal, the OpenAI-compatible API, and the pages of the web UI."""
