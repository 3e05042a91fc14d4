"""Implicit rewards by hand, best-of-n, and the command on recorded policy and reference."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.questions import Question
from hound_plugin.reward.rank import (
    agreement_with_scores,
    best_of_n,
    implicit_rewards,
    log_probs_of,
    rank_answers,
)
from tests.goldens import DPO, ROOT, SFT
from tests.reward.conftest import rows, write_rows


def question(name: str) -> Question:
    return Question(name, "", None, None, "What?", "", "", "")


def test_rewards_by_hand() -> None:
    policy, reference = [(-3.0, 3), (-8.0, 4)], [(-5.0, 3), (-6.0, 4)]
    assert implicit_rewards(policy, reference, beta=0.1) == pytest.approx([0.2, -0.2])
    assert implicit_rewards(policy, reference, per_token=True) == pytest.approx([2 / 3, -0.5])
    with pytest.raises(SettingsError, match="beta: expected a number above 0"):
        implicit_rewards(policy, reference, beta=0)
    with pytest.raises(SettingsError, match="same tokenizer"):
        implicit_rewards(policy, [(-5.0, 2), (-6.0, 4)])


def test_ranks_and_best() -> None:
    items = [(question("a"), n, f"a{n}") for n in range(3)] + [(question("b"), 0, "b0")]
    zero = [(0.0, 1)] * 4
    found = rank_answers(items, [0.5, 2.0, 2.0, -1.0], zero, zero)
    assert [(row["id"], row["candidate"], row["rank"]) for row in found] == [
        ("a", 1, 1), ("a", 2, 2), ("a", 0, 3), ("b", 0, 1),
    ]  # fmt: skip
    assert [row["answer"] for row in best_of_n(found)] == ["a1", "b0"]
    scores = {("a", 0): {"score": 1}, ("a", 1): {"score": 5}, ("a", 2): {"score": None}, ("b", 0): {"score": 3}}
    assert agreement_with_scores(found, scores) == {"pairs": 1, "alike": 1, "share": 1.0}


def test_a_value_that_is_none_stops_it() -> None:
    class Broken:
        identity: dict[str, Any] = {}  # noqa: RUF012

        def log_probs(self, items: Sequence[Any]) -> list[tuple[float, int]]:
            return [(math.nan, 3) for _ in items]

    with pytest.raises(DataError, match="question a, answer 0: log-probability nan"):
        log_probs_of(Broken(), [(question("a"), 0, "x")])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hound_plugin

    asked = [{"id": "q", "video": "clip_short.mp4", "prompt": "<video>\nWhat?", "caption": "c", "reference": "A dog."}]
    given = [
        {"id": "q", "candidate": n, "answer": text} for n, text in enumerate(["A dog runs.", "Nothing at all.", "A"])
    ]
    values = {
        "folder": str(tmp_path / "run"),
        "questions": str(write_rows(tmp_path / "q.jsonl", asked)),
        "media_dir": str(ROOT / "media"),
        "sample": {"backend": "given", "answers": str(write_rows(tmp_path / "g.jsonl", given)), "device": "cpu"},
    }
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps(values))
    assert cli.main(["reward", "run", str(recipe)]) == 0
    capsys.readouterr()
    command = ["reward", "rank", str(recipe), "--policy", str(DPO), "--reference", str(SFT), "--beta", "0.1", "--best"]
    assert cli.main(command) == 0
    best = json.loads(capsys.readouterr().out.splitlines()[0])
    found = rows(tmp_path / "run" / "ranked.jsonl")
    clip = str(ROOT / "media" / "clip_short.mp4")
    items = [("What?", row["answer"], clip) for row in given]
    policy, reference = (hound_plugin.load(str(model), device="cpu").log_probs(items) for model in (DPO, SFT))
    expected = (0.1 * (policy - reference)).tolist()
    for row in found:
        assert row["reward"] == pytest.approx(expected[row["candidate"]], abs=1e-5)
    assert best["candidate"] == max(range(3), key=lambda n: expected[n])


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_blank_answer_of_a_sampler_has_no_rank(
    blank: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model may end at once: that stopped the ranking of all others, after all of them had been computed."""
    asked = [{"id": "q", "video": "clip_short.mp4", "prompt": "<video>\nWhat?", "caption": "c", "reference": "A dog."}]
    values = {
        "folder": str(tmp_path / "run"),
        "questions": str(write_rows(tmp_path / "q.jsonl", asked)),
        "media_dir": str(ROOT / "media"),
        "sample": {"model": str(SFT), "n": 2, "max_new_tokens": 4, "device": "cpu"},
    }
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps(values))
    assert cli.main(["reward", "sample", str(recipe)]) == 0
    sampled = rows(tmp_path / "run" / "candidates.jsonl")
    sampled[1]["answer"] = blank
    write_rows(tmp_path / "run" / "candidates.jsonl", sampled)
    assert cli.main(["reward", "rank", str(recipe), "--policy", str(DPO), "--reference", str(SFT)]) == 0
    assert "rank: 1 answers are blank and have no rank" in capsys.readouterr().out
    assert [row["candidate"] for row in rows(tmp_path / "run" / "ranked.jsonl")] == [0]
