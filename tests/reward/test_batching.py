"""A generator that works at several questions at a time: same rows, and one question's error is no other's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import HoundError, MediaDecodeError, MediaError
from hound_plugin.records.questions import Question, read_questions
from hound_plugin.reward.candidates import (
    BatchGenerator,
    Generator,
    SampledAnswer,
    read_candidates,
    sample_candidates,
)
from tests.reward.conftest import Parrot

N = 3
TOGETHER = 3  # of eight questions: two whole batches and a part of one


class Chorus(Parrot):
    """A parrot that is asked several questions at a time; some have an error instead of answers."""

    def __init__(self, errors: dict[str, HoundError] | None = None, questions_at_a_time: int = TOGETHER) -> None:
        super().__init__()
        self.errors, self.questions_at_a_time = errors or {}, questions_at_a_time
        self.batches: list[list[tuple[str, int]]] = []

    def sample_many(self, asked: Sequence[tuple[str, Any, Sequence[int]]]) -> list[list[SampledAnswer] | HoundError]:
        self.batches.append([(question[-2], len(seeds)) for question, _, seeds in asked])  # "What is seen in 5?"
        return [
            self.errors[question[-2]] if question[-2] in self.errors else self.sample(question, media, seeds)
            for question, media, seeds in asked
        ]


@pytest.fixture
def questions(questions_file: Path) -> list[Question]:
    return read_questions(questions_file, str(questions_file.parent / "clips"))


@pytest.fixture
def whole(questions: list[Question], tmp_path: Path) -> bytes:
    """What is written one question at a time."""
    return written(questions, Parrot(), tmp_path / "one_by_one")


def written(questions: list[Question], generator: Generator, folder: Path, **settings: Any) -> bytes:
    folder.mkdir(exist_ok=True)
    sample_candidates(questions, generator, folder, N, 0, **settings)
    return (folder / "candidates.jsonl").read_bytes()


def asked(chorus: Chorus) -> list[str]:
    return ["".join(name for name, _ in batch) for batch in chorus.batches]


def test_the_rows_are_those_of_one_question_at_a_time(questions: list[Question], whole: bytes, tmp_path: Path) -> None:
    assert not isinstance(Parrot(), BatchGenerator)
    for size, batches in ((1, list("01234567")), (TOGETHER, ["012", "345", "67"]), (100, ["01234567"])):
        chorus = Chorus(questions_at_a_time=size)
        assert written(questions, chorus, tmp_path / str(size)) == whole
        assert asked(chorus) == batches


def test_a_bad_clip_ends_the_job_behind_the_answers_of_its_batch(
    questions: list[Question], whole: bytes, tmp_path: Path
) -> None:
    bad = MediaDecodeError("4.mp4: it is no clip", "4.mp4")
    chorus = Chorus({"4": bad})
    with pytest.raises(MediaDecodeError, match="it is no clip"):
        written(questions, chorus, tmp_path / "run")
    assert asked(chorus) == ["012", "345"]
    assert list(read_candidates(tmp_path / "run")) == ["q0", "q1", "q2", "q3", "q5"]
    mended = Chorus()
    written(questions, mended, tmp_path / "run")
    assert asked(mended) == ["467"], "an answer that was written is not asked for again"
    lines = (tmp_path / "run" / "candidates.jsonl").read_bytes().splitlines()
    assert sorted(lines) == sorted(whole.splitlines())


def test_bad_clips_that_are_skipped(questions: list[Question], whole: bytes, tmp_path: Path) -> None:
    chorus = Chorus({name: MediaDecodeError(f"{name}.mp4: it is no clip", f"{name}.mp4") for name in "027"})
    (tmp_path / "run").mkdir()
    sampled = sample_candidates(questions, chorus, tmp_path / "run", N, 0, on_bad_media="skip")
    assert sampled.broken == {f"q{name}": f"{name}.mp4: it is no clip" for name in "027"}
    assert sampled.added == 5 * N
    good = [line for number, line in enumerate(whole.splitlines(True)) if str(number // N) not in "027"]
    assert (tmp_path / "run" / "candidates.jsonl").read_bytes() == b"".join(good)


def test_another_error_ends_the_job_even_where_bad_clips_are_skipped(questions: list[Question], tmp_path: Path) -> None:
    chorus = Chorus({"3": MediaDecodeError("3.mp4: it is no clip", "3.mp4"), "4": HoundError("no longer fits")})
    with pytest.raises(HoundError, match="no longer fits") as caught:
        written(questions, chorus, tmp_path / "run", on_bad_media="skip")
    assert not isinstance(caught.value, MediaError)
    assert list(read_candidates(tmp_path / "run")) == ["q0", "q1", "q2", "q5"]


def test_single_answers_that_are_missing_fill_a_batch(questions: list[Question], whole: bytes, tmp_path: Path) -> None:
    """As after a kill in the middle of a batch's rows: questions that are whole are not in any batch."""
    lines = whole.splitlines(keepends=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "candidates.jsonl").write_bytes(b"".join(lines[: 4 * N + 1]) + lines[4 * N + 1][:25])
    chorus = Chorus()
    assert written(questions, chorus, tmp_path / "run") == whole
    assert chorus.batches == [[("4", N - 1), ("5", N), ("6", N)], [("7", N)]]


def test_a_batch_with_too_few_answers_is_an_error(questions: list[Question], tmp_path: Path) -> None:
    class Short(Chorus):
        def sample_many(self, asked: Any) -> list[list[SampledAnswer] | HoundError]:
            return super().sample_many(asked)[:-1]

    with pytest.raises(ValueError, match="zip"):
        written(questions, Short(), tmp_path / "run")
    assert not (tmp_path / "run" / "candidates.jsonl").exists()
