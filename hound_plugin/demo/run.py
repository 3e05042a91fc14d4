"""The main job on the embedded default: build, SFT and DPO through the host's own command, measure, report.

Every finished stage is kept and not repeated; ``force`` starts from scratch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hound_plugin.demo.build import HELD_OUT_CLIPS, TRAIN_CLIPS, DemoPaths, build_demo
from hound_plugin.demo.evaluate import Evaluation, ask_example, difference, evaluate, results_table, run_folder
from hound_plugin.demo.plot import plot_report
from hound_plugin.demo.train import RECIPES, check_recipes, train
from hound_plugin.errors import DataError
from hound_plugin.evaluation.report import percent
from hound_plugin.evaluation.run_folder import load_run
from hound_plugin.records.files import hold, write_json
from hound_plugin.records.run_folders import TRAINING_LOCK
from hound_plugin.version import __version__

UNTRAINED = "untrained"
NAMES = {UNTRAINED: "untrained", "sft": "after SFT", "dpo": "after DPO"}
"""Stage -> the name of its model in the report."""
_RESULT = "run.json"


def run_demo(
    folder: str = "demo",
    seed: int = 0,
    force: bool = False,
    train_clips: int = TRAIN_CLIPS,
    held_out_clips: int = HELD_OUT_CLIPS,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the demo, train it with SFT and DPO through ``llamafactory-cli``, and print what it reached.

    Args:
        folder: where everything is written, see :class:`DemoPaths`.
        seed: of clips, data and initial weights.
        force: repeat what is already finished.
        train_clips, held_out_clips: size of the demo.
        overrides: ``key=value`` for both recipes, as on the host's command line.

    Returns:
        What is also written to ``folder/runs/report.json``.

    Raises:
        InUseError: another process builds or trains a demo there.
        SettingsError: the recipes are not in the current folder; run this in a checkout.
        HoundError: a training run failed; the message names its log.
    """
    check_recipes()
    with DemoPaths(Path(folder)).alone():
        return _run(folder, seed, force, train_clips, held_out_clips, overrides)


def _run(
    folder: str, seed: int, force: bool, train_clips: int, held_out_clips: int, overrides: Sequence[str]
) -> dict[str, Any]:
    from hound_plugin.demo.model import write_model

    started = time.monotonic()
    print(f"1/4  Building the tiny model and its clips in {folder}/", flush=True)
    paths = build_demo(
        folder,
        seed=seed,
        train_clips=train_clips,
        held_out_clips=held_out_clips,
        force=force,
        write_model=write_model,
        is_alone=True,
    )
    results: dict[str, Any] = {UNTRAINED: _evaluate_untrained(paths, force)}
    for number, stage in enumerate(RECIPES, 2):
        print(f"{number}/4  {stage.upper()}: llamafactory-cli train {RECIPES[stage]}", flush=True)
        results[stage] = _train_and_evaluate(stage, paths, force, overrides)
    print("4/4  Results on held-out clips", flush=True)
    evaluations = {NAMES[stage]: Evaluation.from_dict(result["evaluation"]) for stage, result in results.items()}
    _print_results(evaluations, paths)
    example = ask_example({stage: paths.runs / stage for stage in RECIPES}, paths)
    _print_example(example)
    report = {
        "version": __version__,
        "seconds_training": {stage: results[stage]["seconds"] for stage in RECIPES},
        "evaluations": {name: evaluation.to_dict() for name, evaluation in evaluations.items()},
        "example": example,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(paths.runs / "report.json", report)
    plot_report(paths, evaluations, paths.runs / "report.png")
    print(f"\nNumbers: {paths.runs}/report.json   curves: {paths.runs}/report.png   {report['seconds']:.0f} s")
    return report


def _evaluate_untrained(paths: DemoPaths, force: bool) -> dict[str, Any]:
    folder, key = paths.runs / UNTRAINED, _key(paths)
    earlier = None if force else _finished(folder, key)
    if earlier is None:
        shutil.rmtree(run_folder(paths, UNTRAINED), ignore_errors=True)  # of another model
    return _evaluated(earlier or {"key": key}, paths.model, folder, paths)


def _train_and_evaluate(stage: str, paths: DemoPaths, force: bool, overrides: Sequence[str]) -> dict[str, Any]:
    folder = paths.runs / stage
    recipes = list(RECIPES.values())[: list(RECIPES).index(stage) + 1]
    key = _key(paths, *[recipe.read_text(encoding="utf-8") for recipe in recipes], *overrides)
    result = None if force else _finished(folder, key)
    if result is not None:
        print(f"     finished earlier: {folder}", flush=True)
        return _evaluated(result, folder, folder, paths)
    _remove(folder)
    shutil.rmtree(run_folder(paths, stage), ignore_errors=True)
    started = time.monotonic()
    train(stage, paths, overrides)
    seconds = round(time.monotonic() - started, 1)
    result = {"key": key, "version": __version__, "recipe": str(RECIPES[stage]), "seconds": seconds}
    return _evaluated(result, folder, folder, paths)


def _remove(folder: Path) -> None:
    """Remove an earlier training's folder.

    Raises:
        InUseError: it is at work still; its own process outlives a ``hound demo`` that was killed.
    """
    if folder.is_dir():
        busy = f"A training is still writing to {folder}. Wait for it, or end it, and try again."
        with hold(folder / TRAINING_LOCK, busy):
            shutil.rmtree(folder, ignore_errors=True)


def _evaluated(result: dict[str, Any], model: Path, folder: Path, paths: DemoPaths) -> dict[str, Any]:
    """A stage's result with its evaluation; what an earlier run or version left out is made up for."""
    try:
        Evaluation.from_dict(result["evaluation"])
        load_run(run_folder(paths, folder.name))
    except (KeyError, DataError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _RESULT, result)  # a stopped evaluation does not cost the training
        result = {**result, "evaluation": evaluate(model, paths, folder.name).to_dict()}
        write_json(folder / _RESULT, result)
    return result


def _print_results(evaluations: dict[str, Evaluation], paths: DemoPaths) -> None:
    print("\nExact match of greedy answers, % (95% interval, clips as units):\n")
    print(results_table(evaluations))
    print(f"\nAfter DPO against after SFT: {difference(paths, 'sft', 'dpo')}.")
    print(f"Question by question: hound eval compare {run_folder(paths, 'sft')} {run_folder(paths, 'dpo')}")
    print("\nPreferences (held-out pairs whose chosen answer is more probable):")
    for name, evaluation in evaluations.items():
        sentences = "-" if evaluation.sentences is None else f"{100 * evaluation.sentences:.0f}%"
        print(
            f"  {name:<10} {percent(evaluation.preference)} % of {evaluation.preference.n}, "
            f"mean margin {evaluation.margin:+.2f} nats, whole sentences {sentences}"
        )


def _print_example(example: dict[str, Any]) -> None:
    print(f"\nQuestion about {example['clip']}: {example['question']}")
    print(f"  SFT: {example['sft']}\n  DPO: {example['dpo']}\n  right: {example['accepted'][-1]}")


def _key(paths: DemoPaths, *texts: str) -> str:
    """Hash of everything that a stage's result depends on."""
    digest = hashlib.sha256(json.dumps(json.loads(paths.stamp.read_text())["parameters"], sort_keys=True).encode())
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The result of an earlier run with the same key, if there is one."""
    try:
        result: dict[str, Any] = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if result.get("key") == key else None
