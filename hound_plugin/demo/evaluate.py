"""Held-out accuracy of one model of the demo: greedy answers, and which answer of each pair is more probable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hound_plugin.demo.build import DemoPaths
from hound_plugin.demo.scoring import Tally, score, sentence_share
from hound_plugin.records.jsonl import read_objects

BATCH = 64
MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class Evaluation:
    """Held-out results of one model.

    Attributes:
        tallies: exact match by kind of question (:mod:`hound_plugin.demo.scoring`).
        sentences: share of answers given as a whole sentence, which is what the pairs prefer.
        preference: held-out pairs whose chosen answer is more probable than the rejected one.
        margin: mean of log p(chosen) - log p(rejected), in nats.
    """

    tallies: dict[str, Tally]
    sentences: float
    preference: Tally
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        kinds = {
            name: {"correct": t.correct, "total": t.total, "accuracy": t.accuracy} for name, t in self.tallies.items()
        }
        return {
            "exact_match": kinds,
            "sentence_share": None if math.isnan(self.sentences) else self.sentences,
            "preference_accuracy": self.preference.accuracy,
            "preference_pairs": self.preference.total,
            "preference_margin": self.margin,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of :meth:`to_dict`."""
        tallies = {name: Tally(item["correct"], item["total"]) for name, item in values["exact_match"].items()}
        pairs = values["preference_pairs"]
        preference = Tally(round(values["preference_accuracy"] * pairs), pairs)
        sentences = math.nan if values["sentence_share"] is None else values["sentence_share"]
        return cls(tallies, sentences, preference, values["preference_margin"])


def evaluate(model_folder: Path, paths: DemoPaths, name: str) -> Evaluation:
    """Answer all held-out questions greedily and compare the log-probabilities of the held-out pairs.

    Args:
        model_folder: the checkpoint to measure.
        paths: the demo that it belongs to.
        name: shown at the progress bar.
    """
    return _evaluate(_load(model_folder, paths), paths, name)


def _evaluate(hound: Any, paths: DemoPaths, name: str) -> Evaluation:
    questions = list(read_objects(paths.held_out_questions, complete=True))
    pairs = list(read_objects(paths.data / "demo_dpo_held_out.jsonl", complete=True))
    predictions: dict[str, str] = {}
    margins: list[float] = []
    with tqdm(total=len(questions) + len(pairs), desc=f"Held-out, {name}", unit="item") as progress:
        for batch in _batches(questions):
            prompts, media = [row["prompt"] for row in batch], [_media_path(row, paths) for row in batch]
            answers = hound.chat_many(prompts, media, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
            predictions.update(zip((row["id"] for row in batch), answers, strict=True))
            progress.update(len(batch))
        for batch in _batches(pairs):
            chosen, rejected = (
                hound.log_probs([(row["prompt"], row[side], _media_path(row, paths)) for row in batch])
                for side in ("chosen", "rejected")
            )
            margins += (chosen - rejected).tolist()
            progress.update(len(batch))
    preference = Tally(sum(margin > 0 for margin in margins), len(pairs))
    mean_margin = sum(margins) / max(1, len(margins))
    tallies = score(questions, predictions)
    return Evaluation(tallies, sentence_share(questions, predictions), preference, mean_margin)


def ask_example(model_folders: dict[str, Path], paths: DemoPaths) -> dict[str, Any]:
    """The first held-out question on motion, with the answer of each model.

    Args:
        model_folders: name of a model -> its checkpoint.
        paths: the demo that they belong to.

    Returns:
        ``clip``, ``question``, ``accepted``, and under each name of ``model_folders`` that model's answer.
    """
    row = next(row for row in read_objects(paths.held_out_questions, complete=True) if row["kind"] == "motion")
    clip = _media_path(row, paths)
    answers = {
        name: _load(folder, paths).chat(row["prompt"], video=clip, temperature=0, max_new_tokens=MAX_NEW_TOKENS)
        for name, folder in model_folders.items()
    }
    return {"clip": clip, "question": row["prompt"].partition("\n")[2], "accepted": row["accepted"], **answers}


def _load(model_folder: Path, paths: DemoPaths) -> Any:
    from transformers.utils import logging

    from hound_plugin.model.inference import load

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hound = load(str(model_folder), device="cpu", dtype="float32")
    hound.processor.frame_cache = str(paths.folder / "frame_cache")
    return hound


def _media_path(row: dict[str, Any], paths: DemoPaths) -> str:
    return str(paths.clips / (row.get("video") or row["image"]))


def _batches(rows: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
