"""Held-out results of one model of the demo: ``hound eval`` on the suite ``demo``, and the pairs' log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hound_plugin.demo.build import DemoPaths
from hound_plugin.demo.questions import KINDS, TIME_KINDS
from hound_plugin.errors import DataError
from hound_plugin.evaluation.comparison import compare
from hound_plugin.evaluation.report import percent, points
from hound_plugin.evaluation.run import is_complete, open_evaluation, run_stages
from hound_plugin.evaluation.run_folder import EvaluationRun, load_run
from hound_plugin.evaluation.settings import EvaluationSettings, PredictSettings
from hound_plugin.evaluation.shards import Shard
from hound_plugin.evaluation.statistics import Estimate, accuracy
from hound_plugin.evaluation.summary import ALL, judgements_of
from hound_plugin.own_model import OwnPredictor
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.tables import markdown_table

BATCH = 64
MAX_NEW_TOKENS = 32
"""For answers of a few words; the larger limit of ``examples/yaml/hound_eval.yaml`` gives a trained model's, too."""
TIME = "motion and order"
STAGES = ("predict", "judge")


@dataclass(frozen=True)
class Evaluation:
    """Held-out results of one model.

    Attributes:
        accuracies: exact match by kind of question, then ``TIME`` and ``ALL``, each with its interval by clip.
        sentences: share of answers given as a whole sentence, which is what the pairs prefer; None without a question
            that has both forms.
        preference: share of held-out pairs whose chosen answer is more probable than the rejected one.
        margin: mean of log p(chosen) - log p(rejected), in nats.
    """

    accuracies: dict[str, Estimate]
    sentences: float | None
    preference: Estimate
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "exact_match": {name: _to_values(estimate) for name, estimate in self.accuracies.items()},
            "sentence_share": self.sentences,
            "preference_accuracy": self.preference.mean,
            "preference_pairs": self.preference.n,
            "preference": asdict(self.preference),
            "preference_margin": self.margin,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError: an earlier version wrote the values.
        """
        accuracies = {
            name: Estimate(item["accuracy"], item["low"], item["high"], item["total"], item["clips"])
            for name, item in values["exact_match"].items()
        }
        preference = Estimate(**values["preference"])
        return cls(accuracies, values["sentence_share"], preference, values["preference_margin"])


def _to_values(estimate: Estimate) -> dict[str, Any]:
    right = round(estimate.mean * estimate.n)
    values = {"correct": right, "total": estimate.n, "accuracy": estimate.mean}
    return {**values, "low": estimate.low, "high": estimate.high, "clips": estimate.clusters}


def run_folder(paths: DemoPaths, stage: str) -> Path:
    """The run of ``hound eval`` on the model of a stage, for ``hound eval compare``."""
    return _settings(paths.runs / stage, paths, stage).run_folder


def _settings(model: Path, paths: DemoPaths, stage: str) -> EvaluationSettings:
    predict = PredictSettings(device="cpu", dtype="float32", batch_size=BATCH, max_new_tokens=MAX_NEW_TOKENS)
    return EvaluationSettings(
        model=str(model), name=stage, folder=str(paths.runs / "evaluation"), data=str(paths.folder), predict=predict
    )


def evaluate(model_folder: Path, paths: DemoPaths, stage: str) -> Evaluation:
    """Ask all held-out questions, and compare the log-probabilities of the held-out pairs.

    Args:
        model_folder: the checkpoint to measure.
        paths: the demo that it belongs to.
        stage: names the run of the evaluation; what it has predicted already is not asked again.

    Raises:
        LedgerError: the run has predictions of another model.
        DataError: a question has no answer.
    """
    settings = _settings(model_folder, paths, stage)
    predictor = _predictor(settings, paths)
    evaluation = open_evaluation(settings, _say, lambda *_: predictor, stages=STAGES)
    counts = run_stages(evaluation, STAGES)
    if not is_complete(counts) or counts["predict"]["unanswered"]:
        raise DataError(f"{evaluation.folder}: expected an answer to every held-out question; see predictions.jsonl.")
    run = load_run(evaluation.folder)
    preference, margin = _preferences(predictor, paths)
    return Evaluation(accuracies(run), sentence_share(run), preference, margin)


def accuracies(run: EvaluationRun) -> dict[str, Estimate]:
    """Exact match by kind in the order of ``KINDS``, then of ``TIME_KINDS`` together and of all questions."""
    kinds: dict[str, Sequence[str]] = {**{kind: (kind,) for kind in KINDS}, TIME: TIME_KINDS, ALL: KINDS}
    judged = judgements_of(run)
    estimates = {}
    for name, group in kinds.items():
        asked = [question for question in run.questions if question.set in group]
        estimate = accuracy([bool(judged[q.id].correct) for q in asked], [q.cluster for q in asked])
        if estimate is not None:
            estimates[name] = estimate
    return estimates


def sentence_share(run: EvaluationRun) -> float | None:
    """Share of the questions with two forms of answer that got a sentence: a text that ends in a full stop.

    This is the style that the preference pairs ask for. None if there is no such question.
    """
    asked = [question for question in run.questions if question.accepted]
    if not asked:
        return None
    return sum((run.predictions[question.id].text or "").rstrip().endswith(".") for question in asked) / len(asked)


def _preferences(predictor: OwnPredictor, paths: DemoPaths) -> tuple[Estimate, float]:
    """Held-out pairs in the right order, and the mean margin in nats."""
    pairs = list(read_objects(paths.data / "demo_dpo_held_out.jsonl", complete=True))
    margins: list[float] = []
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        chosen, rejected = (
            predictor.hound.log_probs([(row["prompt"], row[side], _media_path(row, paths)) for row in batch])
            for side in ("chosen", "rejected")
        )
        margins += (chosen - rejected).tolist()
    preference = accuracy([margin > 0 for margin in margins], [_media_path(row, paths) for row in pairs])
    if preference is None:
        raise DataError(f"{paths.data}: expected held-out pairs, found none. Build the demo again with --force.")
    return preference, sum(margins) / len(margins)


def results_table(evaluations: dict[str, Evaluation]) -> str:
    """Exact match in % with intervals: a row for each kind, a column for each model, as Markdown."""
    kinds = list(dict.fromkeys(kind for evaluation in evaluations.values() for kind in evaluation.accuracies))
    rows = []
    for kind in kinds:
        estimates = [evaluation.accuracies.get(kind) for evaluation in evaluations.values()]
        number = max(estimate.n for estimate in estimates if estimate is not None)
        rows.append([kind, number, *map(percent, estimates)])
    return markdown_table(("kind", "n", *evaluations), rows)


def difference(paths: DemoPaths, before: str, after: str) -> str:
    """What the later stage gained on the same questions, in points with an interval."""
    total = compare(load_run(run_folder(paths, before)), load_run(run_folder(paths, after))).total
    return f"{points(total.difference)} points on {total.questions} questions, {total.clips} clips"


def ask_example(models: dict[str, Path], paths: DemoPaths) -> dict[str, Any]:
    """The first held-out question on motion, with the answer of each model.

    Args:
        models: name of a model -> its checkpoint.
        paths: the demo that they belong to.

    Returns:
        ``clip``, ``question``, ``accepted``, and under each name of ``models`` that model's answer.
    """
    row = next(row for row in read_objects(paths.held_out_questions, complete=True) if row["kind"] == "motion")
    clip = _media_path(row, paths)
    answers = {}
    for name, folder in models.items():
        hound = _predictor(_settings(folder, paths, name), paths).hound
        answers[name] = hound.chat(row["prompt"], video=clip, temperature=0, max_new_tokens=MAX_NEW_TOKENS)
    return {"clip": clip, "question": row["prompt"].partition("\n")[2], "accepted": row["accepted"], **answers}


def _predictor(settings: EvaluationSettings, paths: DemoPaths) -> OwnPredictor:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    predictor = OwnPredictor(settings, Shard())
    predictor.hound.processor.frame_cache = str(paths.folder / "frame_cache")
    return predictor


def _media_path(row: dict[str, Any], paths: DemoPaths) -> str:
    return str(paths.clips / (row.get("video") or row["image"]))


def _say(text: str) -> None:
    print(f"     {text}", flush=True)
