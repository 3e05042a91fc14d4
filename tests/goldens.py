"""Recordings of the original model; see ``tests/golden/README.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parent / "golden"
HUB = ROOT / "hub"
SFT = ROOT / "ckpt" / "llava-hound-sft-tiny"
NO_TOWER = ROOT / "ckpt" / "llava-hound-sft-tiny-notower"
DPO = ROOT / "ckpt" / "llava-hound-dpo-tiny"
IMAGE_ID, VIDEO_ID = -200, -201  # the original's placeholder ids


def load_json(name: str) -> Any:
    return json.loads((ROOT / "golden" / name).read_text(encoding="utf-8"))


def load_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(ROOT / "golden" / name) as arrays:
        return dict(arrays)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "data" / name).read_text(encoding="utf-8").splitlines()]


def assert_close(actual: Any, expected: Any, limit: float, what: str = "") -> None:
    """Compare within an absolute limit; a failure tells the largest and the mean difference."""
    left = actual.detach().float().numpy() if torch.is_tensor(actual) else np.asarray(actual)
    right = expected.detach().float().numpy() if torch.is_tensor(expected) else np.asarray(expected)
    assert left.shape == right.shape, f"{what}: shape {left.shape}, expected {right.shape}"
    difference = np.abs(left.astype(np.float64) - right.astype(np.float64))
    assert difference.max() <= limit, f"{what}: max {difference.max():.2e}, mean {difference.mean():.2e} > {limit}"
