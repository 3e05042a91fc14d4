"""A small set of questions with clips that exist."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.reward.candidates import SampledAnswer
from hound_plugin.reward.settings import RewardSettings, build_settings
from tests.llm.conftest import server as server  # the fault server

REFERENCES = ["It moves left.", "The colour is red.", "The shape is a ring.", "The number is two."]


class Parrot:
    """A generator whose answers depend on the seed alone; the real model is tested elsewhere."""

    def __init__(self, words: Sequence[str] = ("left", "right", "up", "down")) -> None:
        self.identity: dict[str, Any] = {"model": "parrot", "words": list(words)}
        self.words = words
        self.calls: list[tuple[str, int]] = []

    def sample(self, question: str, media: Any, seeds: Sequence[int]) -> list[SampledAnswer]:
        self.calls.append((question, len(seeds)))
        words = [self.words[seed % len(self.words)] for seed in seeds]
        return [SampledAnswer("It moves left." if word == "left" else f"Perhaps {word}?", tokens=4) for word in words]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, values: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.fixture
def questions_file(tmp_path: Path) -> Path:
    media = tmp_path / "clips"
    media.mkdir()
    values = []
    for number in range(8):
        (media / f"{number}.mp4").write_bytes(b"clip")
        values.append(
            {
                "id": f"q{number}",
                "video": f"{number}.mp4",
                "prompt": f"<video>\nWhat is seen in {number}?",
                "caption": f"A ring moves left. [item-{number}]",
                "reference": REFERENCES[number % 4],
                "source": "even" if number % 2 == 0 else "odd",
            }
        )
    return write_rows(tmp_path / "questions.jsonl", values)


@pytest.fixture
def values(questions_file: Path) -> dict[str, Any]:
    folder = questions_file.parent
    return {
        "folder": str(folder / "run"),
        "questions": str(questions_file),
        "media_dir": str(folder / "clips"),
        "sample": {"model": "parrot", "n": 6},
    }


@pytest.fixture
def settings(values: dict[str, Any]) -> RewardSettings:
    return build_settings(values)
