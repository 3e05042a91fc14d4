"""LLaVA-Hound (arXiv 2404.01258) for LLaMA-Factory."""

__version__ = "0.1.0"
