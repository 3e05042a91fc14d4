"""From clips to frames: which frames (``frame_sampling``) and how they are read (``decode``); numpy only, no torch."""
