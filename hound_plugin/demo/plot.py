"""Loss curves of both stages and held-out accuracies, in one picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hound_plugin.demo.build import DemoPaths
from hound_plugin.demo.evaluate import Evaluation
from hound_plugin.records.files import whole_path

TITLES = {"sft": "SFT: lessons on motion and order, then everything", "dpo": "DPO"}


def plot_report(paths: DemoPaths, evaluations: Mapping[str, Evaluation], picture: Path) -> None:
    """Write the picture (PNG).

    Args:
        paths: the demo; both stages must have been trained.
        evaluations: name of a model -> its results, in the order of the bars.
        picture: file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for axis, stage in zip(axes, TITLES, strict=False):
        _plot_training(axis, stage, _log_history(paths.runs / stage))
    _plot_accuracies(axes[2], evaluations)
    with whole_path(picture) as part:
        figure.savefig(part, dpi=110, format="png")
    pyplot.close(figure)


def _plot_training(axis: Any, stage: str, history: list[dict[str, Any]]) -> None:
    losses = [(row["step"], row["loss"]) for row in history if "loss" in row]
    axis.plot(*zip(*losses, strict=True), label=f"{stage.upper()} loss", color="tab:blue")
    axis.set(title=TITLES[stage], xlabel="step", ylabel="loss")
    axis.legend(loc="upper right" if stage == "sft" else "lower left")
    accuracies = [(row["step"], row["rewards/accuracies"]) for row in history if "rewards/accuracies" in row]
    if accuracies:
        second = axis.twinx()
        second.plot(*zip(*accuracies, strict=True), color="tab:orange", label="preference accuracy (training)")
        second.set(ylim=(0, 1.05), ylabel="accuracy")
        second.legend(loc="center right")


def _plot_accuracies(axis: Any, evaluations: Mapping[str, Evaluation]) -> None:
    kinds = list(next(iter(evaluations.values())).accuracies)
    for bar, (name, evaluation) in enumerate(evaluations.items()):
        percent = [100 * evaluation.accuracies[kind].mean for kind in kinds] + [100 * evaluation.preference.mean]
        axis.bar([index + 0.27 * (bar - 1) for index in range(len(percent))], percent, width=0.25, label=name)
    labels = [*[kind.replace(" and ", " +\n") for kind in kinds], "preference"]
    axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axis.set(title="Held-out accuracy", ylabel="%", ylim=(0, 118))
    axis.legend(loc="upper center", ncols=3)


def _log_history(run_folder: Path) -> list[dict[str, Any]]:
    state = json.loads((run_folder / "trainer_state.json").read_text(encoding="utf-8"))
    history: list[dict[str, Any]] = state["log_history"]
    return history
