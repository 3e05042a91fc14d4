"""The tests run offline; the recorded towers lie in a hub cache of their own."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HUB_CACHE"] = str(Path(__file__).parent / "golden" / "hub")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
