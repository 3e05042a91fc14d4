"""Test sets as the authors released them, with recorded clips in place of the real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hound_plugin.corpus.schema import CORPORA
from tests.goldens import ROOT, SFT

CLIPS = ("clip_short", "clip_portrait", "few3")
QUESTIONS = ("What moves?", "Who is there?", "Which colour does the big thing in the middle of the picture have?")


def write_rows(path: Path, values: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_corpora(root: Path, corpora: Sequence[str], per_clip: int = 2) -> Path:
    """Questions and folders of frames of some corpora in the layout of `hound corpus download` and `extract`."""
    for corpus in corpora:
        name = corpus.removeprefix("test_").removesuffix("_official")
        values = []
        for clip in CLIPS:
            place = root / "frames" / "test" / name / clip
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(ROOT / "frames" / clip, place)
            for number, question in enumerate(QUESTIONS[:per_clip]):
                turns = [
                    {"from": "human", "value": f"<video>\n{question}"},
                    {"from": "gpt", "value": f"a dog in {name}"},
                ]
                row = {"id": f"{clip}_{number}", "video": f"test/{name}/{clip}", "conversations": turns}
                if not corpus.endswith("_official"):
                    row["caption"] = f"A dog runs in {name}, {clip}."
                values.append(row)
        write_rows(root / CORPORA[corpus].paths()[0], values)
    return root


def write_recipe(path: Path, **values: Any) -> Path:
    """A recipe for the recorded model on the CPU, with some keys changed; blocks are joined."""
    predict = {"max_new_tokens": 6, "batch_size": 4, "device": "cpu", "dtype": "float32", **values.pop("predict", {})}
    recipe = {"folder": str(path.parent / "runs"), "model": str(SFT), "name": "tiny", "predict": predict, **values}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path
