"""The main job on the embedded default: build, SFT, DPO through the host's own command, ask, and measure.

Every finished stage is kept and not done again; ``force`` starts anew.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hound_plugin.demo.build import HELD_OUT_CLIPS, TRAIN_CLIPS, DemoPaths, build_demo
from hound_plugin.demo.scoring import Tally, score, sentence_share, table
from hound_plugin.errors import HoundError, SettingsError
from hound_plugin.records.files import whole_path, write_json
from hound_plugin.records.jsonl import read_objects
from hound_plugin.version import __version__

RECIPES = {"sft": Path("examples/yaml/demo_sft.yaml"), "dpo": Path("examples/yaml/demo_dpo.yaml")}
BATCH = 64
_DONE = "run.json"


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


def run_demo(
    folder: str = "demo",
    seed: int = 0,
    force: bool = False,
    train_clips: int = TRAIN_CLIPS,
    held_out_clips: int = HELD_OUT_CLIPS,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the demo, train it with SFT and DPO through ``llamafactory-cli``, ask it and print what was reached.

    Args:
        folder: where everything is written; :class:`DemoPaths` tells what lies where, runs are in ``folder/runs``.
        seed: of clips, data and initial weights.
        force: do everything anew.
        train_clips, held_out_clips: size of the demo.
        overrides: ``key=value`` for both recipes, as on the host's command line.

    Returns:
        What is also written to ``folder/runs/report.json``.

    Raises:
        SettingsError: the recipes are not here (run it in a checkout).
        HoundError: a training run failed; its log is named.
    """
    from hound_plugin.demo.model import write_model

    for recipe in RECIPES.values():
        if not recipe.is_file():
            raise SettingsError(f"Expected {recipe} in the current folder; run this in a checkout of hound_plugin.")
    started = time.monotonic()
    print(f"1/4  Building the tiny model and its clips in {folder}/", flush=True)
    paths = build_demo(
        folder,
        seed=seed,
        train_clips=train_clips,
        held_out_clips=held_out_clips,
        force=force,
        write_model=write_model,
    )
    runs = paths.folder / "runs"
    stages: dict[str, Any] = {"built": _stage_build(paths, runs, force)}
    for number, stage in enumerate(RECIPES, 2):
        print(f"{number}/4  {stage.upper()}: llamafactory-cli train {RECIPES[stage]}", flush=True)
        stages[stage] = _stage_train(stage, paths, runs, force, overrides)
    print("4/4  What was reached on held-out clips", flush=True)
    report = _report(paths, stages)
    report["seconds"] = round(time.monotonic() - started, 1)
    write_json(runs / "report.json", report)
    _picture(runs, stages, runs / "report.png")
    print(f"\nNumbers: {runs / 'report.json'}   curves: {runs / 'report.png'}   {report['seconds']:.0f} s")
    return report


def evaluate(model_folder: Path, paths: DemoPaths, name: str) -> Evaluation:
    """Answer all held-out questions greedily and compare the held-out pairs' log-probabilities."""
    from transformers.utils import logging

    from hound_plugin.model.inference import load

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hound = load(str(model_folder), device="cpu", dtype="float32")
    hound.processor.frame_cache = str(paths.folder / "frame_cache")
    questions = list(read_objects(paths.held_out_questions, complete=True))
    pairs = list(read_objects(paths.data / "demo_dpo_held_out.jsonl", complete=True))
    predictions: dict[str, str] = {}
    correct, margins = 0, []
    with tqdm(total=len(questions) + len(pairs), desc=f"Held-out, {name}", unit="item") as progress:
        for part in _batches(questions):
            texts = [item["prompt"] for item in part]
            answers = hound.chat_many(
                texts, [_medium(item, paths) for item in part], do_sample=False, max_new_tokens=32
            )
            predictions.update(zip((item["id"] for item in part), answers, strict=True))
            progress.update(len(part))
        for part in _batches(pairs):
            chosen, rejected = (
                hound.log_probs([(item["prompt"], item[side], _medium(item, paths)) for item in part])
                for side in ("chosen", "rejected")
            )
            margins += (chosen - rejected).tolist()
            correct += int((chosen > rejected).sum())
            progress.update(len(part))
    tallies = score(questions, predictions)
    margin = sum(margins) / max(1, len(margins))
    return Evaluation(tallies, sentence_share(questions, predictions), Tally(correct, len(pairs)), margin)


# --- stages


def _stage_build(paths: DemoPaths, runs: Path, force: bool) -> dict[str, Any]:
    folder = runs / "untrained"
    key = _key(paths)
    done = _finished(folder, key)
    if done and not force:
        return done
    folder.mkdir(parents=True, exist_ok=True)
    result = {"key": key, "evaluation": evaluate(paths.model, paths, "untrained").to_dict()}
    write_json(folder / _DONE, result)
    return result


def _stage_train(stage: str, paths: DemoPaths, runs: Path, force: bool, overrides: Sequence[str]) -> dict[str, Any]:
    folder = runs / stage
    recipes = list(RECIPES.values())[: list(RECIPES).index(stage) + 1]
    key = _key(paths, *[recipe.read_text(encoding="utf-8") for recipe in recipes], *overrides)
    done = _finished(folder, key)
    if done and not force:
        print(f"     already there: {folder}", flush=True)
        return done
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    _train(stage, paths, overrides)
    seconds = time.monotonic() - started
    result = {
        "key": key,
        "version": __version__,
        "recipe": str(RECIPES[stage]),
        "seconds": round(seconds, 1),
        "evaluation": evaluate(folder, paths, stage.upper()).to_dict(),
    }
    write_json(folder / _DONE, result)
    return result


def _train(stage: str, paths: DemoPaths, overrides: Sequence[str]) -> None:
    """Run the host's own command; its log goes to the screen's progress bar and to a file."""
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "train", str(RECIPES[stage])]
    command += [*_folder_overrides(stage, paths), *overrides]
    log = paths.folder / "runs" / f"{stage}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(paths.folder / "datasets_cache")}
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with log.open("w", encoding="utf-8") as file, subprocess.Popen(command, env=environment, **output) as process:
        assert process.stdout is not None
        tail: list[str] = []
        for line in process.stdout:
            file.write(line)
            tail = [*tail[-29:], line]
            if line.startswith("{'loss'"):
                print(_short(line), flush=True)
        code = process.wait()
    if code:
        raise HoundError(
            f"`{' '.join(command)}` ended with exit code {code}. The whole log is in {log}; its end:\n{''.join(tail)}"
        )


def _short(line: str) -> str:
    """One of the trainer's log lines, ``{'loss': '0.69', ...}``, in short."""
    values = {name: float(value) for name, value in ast.literal_eval(line.strip()).items()}
    accuracy = values.get("rewards/accuracies")
    shown = "" if accuracy is None else f"  pairs in the right order {100 * accuracy:.0f}%"
    return f"     {100 * values['epoch']:4.0f}%  loss {values['loss']:.3f}{shown}"


def _folder_overrides(stage: str, paths: DemoPaths) -> list[str]:
    """Nothing for the folder that the recipes name; for another one, its paths."""
    if paths.folder == Path("demo"):
        return []
    model = paths.model if stage == "sft" else paths.folder / "runs" / "sft"
    return [
        f"model_name_or_path={model}",
        f"dataset_dir={paths.data}",
        f"media_dir={paths.clips}",
        f"output_dir={paths.folder / 'runs' / stage}",
        f"hound.frame_cache={paths.folder / 'frame_cache'}",
    ]


# --- report


def _report(paths: DemoPaths, stages: dict[str, Any]) -> dict[str, Any]:
    names = {"built": "untrained", "sft": "after SFT", "dpo": "after DPO"}
    evaluations = {names[stage]: Evaluation.from_dict(result["evaluation"]) for stage, result in stages.items()}
    print("\nExact match, greedy answers (95% interval):")
    print(table({name: evaluation.tallies for name, evaluation in evaluations.items()}))
    print("\nPreferences (held-out pairs whose chosen answer is more probable):")
    for name, evaluation in evaluations.items():
        low, high = evaluation.preference.interval
        print(
            f"  {name:<10} {100 * evaluation.preference.accuracy:5.1f}% ({100 * low:.0f}-{100 * high:.0f}) of "
            f"{evaluation.preference.total}, mean margin {evaluation.margin:+.2f} nats, "
            f"whole sentences {100 * evaluation.sentences:.0f}%"
        )
    example = _example(paths)
    print(f"\nQuestion about {example['clip']}: {example['question']}")
    print(f"  SFT: {example['sft']}\n  DPO: {example['dpo']}\n  right: {example['accepted'][-1]}")
    return {
        "version": __version__,
        "seconds_training": {stage: stages[stage]["seconds"] for stage in RECIPES},
        "evaluations": {name: evaluation.to_dict() for name, evaluation in evaluations.items()},
        "example": example,
    }


def _example(paths: DemoPaths) -> dict[str, Any]:
    from hound_plugin.model.inference import load

    item = next(row for row in read_objects(paths.held_out_questions, complete=True) if row["kind"] == "motion")
    clip = _medium(item, paths)
    answers = {
        stage: load(str(paths.folder / "runs" / stage), "cpu").chat(
            item["prompt"], video=clip, temperature=0, max_new_tokens=32
        )
        for stage in RECIPES
    }
    return {"clip": clip, "question": item["prompt"].partition("\n")[2], "accepted": item["accepted"], **answers}


def _picture(runs: Path, stages: dict[str, Any], path: Path) -> None:
    """Loss curves and accuracies in one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for axis, stage, key in ((axes[0], "sft", "loss"), (axes[1], "dpo", "loss")):
        history = _history(runs / stage)
        points = [(row["step"], row[key]) for row in history if key in row]
        axis.plot(
            [step for step, _ in points],
            [value for _, value in points],
            label=f"{stage.upper()} loss",
            color="tab:blue",
        )
        title = "SFT: lessons on motion, then everything" if stage == "sft" else "DPO"
        axis.set(title=title, xlabel="step", ylabel="loss")
        accuracies = [(row["step"], row["rewards/accuracies"]) for row in history if "rewards/accuracies" in row]
        if accuracies:
            second = axis.twinx()
            second.plot(*zip(*accuracies, strict=True), color="tab:orange", label="preference accuracy (training)")
            second.set(ylim=(0, 1.05), ylabel="accuracy")
            second.legend(loc="center right")
        axis.legend(loc="upper right" if stage == "sft" else "lower left")
    names = {"built": "untrained", "sft": "SFT", "dpo": "DPO"}
    evaluations = {names[stage]: Evaluation.from_dict(result["evaluation"]) for stage, result in stages.items()}
    kinds = list(next(iter(evaluations.values())).tallies)
    for place, (name, evaluation) in enumerate(evaluations.items()):
        values = [100 * evaluation.tallies[kind].accuracy for kind in kinds] + [100 * evaluation.preference.accuracy]
        axes[2].bar([index + 0.27 * (place - 1) for index in range(len(values))], values, width=0.25, label=name)
    labels = [*[kind.replace(" and ", " +\n") for kind in kinds], "preference"]
    axes[2].set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes[2].set(title="Held-out accuracy", ylabel="%", ylim=(0, 118))
    axes[2].legend(loc="upper center", ncols=3)
    with whole_path(path) as part:
        figure.savefig(part, dpi=110, format="png")
    pyplot.close(figure)


def _history(folder: Path) -> list[dict[str, Any]]:
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    history: list[dict[str, Any]] = state["log_history"]
    return history


# --- small things


def _medium(item: dict[str, Any], paths: DemoPaths) -> str:
    return str(paths.clips / (item.get("video") or item["image"]))


def _batches(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _key(paths: DemoPaths, *texts: str) -> str:
    """Hash of everything that a stage's result depends on."""
    digest = hashlib.sha256(json.dumps(json.loads(paths.stamp.read_text())["parameters"], sort_keys=True).encode())
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    try:
        done: dict[str, Any] = json.loads((folder / _DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return done if done.get("key") == key else None
