"""Clips to frames: which frames (``sampling``) and how they are read (``decode``); numpy only, no torch."""
