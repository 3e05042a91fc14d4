"""Rows per second of `hound eval predict` against one `generate` per row, on the demo model.

hound demo --run && python benchmarks/evaluation.py
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hound_plugin.evaluation.items import Question
from hound_plugin.evaluation.prediction import make_batches
from hound_plugin.model.batch_answers import answer_batch
from hound_plugin.model.inference import load
from hound_plugin.records.questions import media_files, read_questions

Measure = Callable[[], tuple[float, dict[str, str]]]


def main() -> None:
    """Print both rates, their ratio, and whether the answers are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of the demo (default: demo)")
    parser.add_argument("--rows", type=int, default=240, help="questions (default: 240)")
    parser.add_argument("--batch-size", type=int, default=64, help="questions at a time (default: 64)")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each; the better one counts")
    options = parser.parse_args()
    rows = read_questions(options.demo / "data" / "held_out_questions.jsonl", str(options.demo / "clips"), options.rows)
    questions = [
        Question(row.id, "demo", str(row.media), tuple(media_files(row.paths)), row.prompt, row.text) for row in rows
    ]
    model = str(options.demo / "runs" / "dpo")
    clips = len({question.media for question in questions})
    print(f"{platform.platform()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(questions)} questions about {clips} clips and images, greedy answers of at most 32 tokens")
    single, one_by_one = best(lambda: one_per_row(model, questions), options.rounds)
    batched, together = best(lambda: in_batches(model, questions, options.batch_size), options.rounds)
    for name, seconds in (("one generate per row", single), (f"batches of {options.batch_size}", batched)):
        print(f"{name:<22} {len(questions) / seconds:8.1f} rows/s")
    equal = sum(one_by_one[name] == together[name] for name in one_by_one)
    print(f"{single / batched:.1f} times as fast; {equal} of {len(questions)} answers are the same")


def best(measure: Measure, rounds: int) -> tuple[float, dict[str, str]]:
    """The quickest of several measurements: ``(seconds, answers)``."""
    return min((measure() for _ in range(rounds)), key=lambda result: result[0])


def one_per_row(model: str, questions: list[Question]) -> tuple[float, dict[str, str]]:
    """Each row by itself, as the original's loop: read the clip, encode it, generate."""
    hound = load(model, memory=False)
    started = time.perf_counter()
    answers = {}
    for question in questions:
        image = question.shown if question.prompt.startswith("<image>") else None
        clip = question.shown if image is None else None
        answers[question.id] = hound.chat(question.question, clip, image, do_sample=False, max_new_tokens=32)
    return time.perf_counter() - started, answers


def in_batches(model: str, questions: list[Question], size: int) -> tuple[float, dict[str, str]]:
    """As `hound eval predict` does."""
    hound = load(model)
    started = time.perf_counter()
    answers = {}
    for batch in make_batches(questions, size):
        items = [(question.question, question.shown) for question in batch.questions]
        texts = answer_batch(hound, items, [0] * len(items), max_new_tokens=32)
        answers.update({question.id: str(text) for question, text in zip(batch.questions, texts, strict=True)})
    return time.perf_counter() - started, answers


if __name__ == "__main__":
    main()
