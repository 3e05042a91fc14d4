"""Answers that come from a file (``sample.backend: given``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.llm.reasoning import has_reasoning, without_end
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.questions import Question
from hound_plugin.records.row_sources import is_file
from hound_plugin.reward.candidates import SampledAnswer, is_number


def given_identity(path: str, model: str) -> dict[str, Any]:
    """The sampler of a file of answers."""
    return {"backend": "given", "model": model or Path(path).name}


def given_answers(path: str, questions: Sequence[Question]) -> Iterator[tuple[Question, int, SampledAnswer]]:
    """Answers from a JSONL file of ``id``, ``candidate`` and ``answer``; also ``finish`` and ``tokens``, if known.

    Raises:
        DataError: no such file, a row of another form, an id that no question has, or an answer with reasoning in it.
    """
    if not is_file(path):
        raise DataError(f"sample.answers: expected a JSONL file, but {path} does not exist.")
    known = {question.id: question for question in questions}
    for number, row in enumerate(read_objects(path, complete=True), 1):
        name, candidate, answer = str(row.get("id")), row.get("candidate"), row.get("answer")
        if name not in known or not is_number(candidate) or not isinstance(answer, str):
            raise DataError(
                f"{path}, row {number}: expected the id of a question, candidate (a number) and answer (a text); "
                f"got id {name!r}, candidate {candidate!r}."
            )
        if has_reasoning(answer):
            raise DataError(
                f"{path}, row {number}: expected an answer without the model's reasoning, got {answer!r:.80}. Write "
                "what follows `</think>` alone: a judge and a training would take the rest for the answer."
            )
        finish, tokens = row.get("finish") or "stop", row.get("tokens")
        if not isinstance(finish, str) or not (tokens is None or is_number(tokens)):
            raise DataError(
                f"{path}, row {number}: expected `finish` as a text (`length` of an answer that was cut) and `tokens` "
                f"as a number, or neither; got {finish!r} and {tokens!r}."
            )
        yield known[name], candidate, SampledAnswer(without_end(answer), finish, tokens)
