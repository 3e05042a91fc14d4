"""The held-out evaluation of a checkpoint after a round of training, for ``hound reward iterate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hound_plugin.errors import JudgeError
from hound_plugin.evaluation.comparison import compare
from hound_plugin.evaluation.report import percent, points
from hound_plugin.evaluation.run import MakeFrames, MakePredictor, is_complete, open_evaluation, run_stages
from hound_plugin.evaluation.run_folder import load_run
from hound_plugin.evaluation.settings import read_settings


def evaluate_round(
    recipe: str,
    folder: Path,
    number: int,
    checkpoint: str,
    say: Callable[[str], None],
    make_predictor: MakePredictor,
    make_frames: MakeFrames,
) -> None:
    """Evaluate a checkpoint by a recipe of ``hound eval``, and say whether it is better than the one before.

    Args:
        recipe: the YAML; its ``model``, ``name`` and ``folder`` are replaced.
        folder: the run is in ``<folder>/round_<number>``; a finished one is not repeated.
        number: of the round; 0 is the model that the first round starts from.
        checkpoint: what was trained.
        say: receives lines for the user.
        make_predictor, make_frames: our model.

    Raises:
        SettingsError, DataError: as :func:`hound_plugin.evaluation.run.open_evaluation`.
        JudgeError: the evaluation is not complete.
    """
    model = json.dumps(checkpoint)
    overrides = [f"model={model}", f"predict.model={model}", f"name=round_{number}"]
    settings = read_settings(recipe, [*overrides, f"folder={json.dumps(str(folder))}"])
    evaluation = open_evaluation(settings, say, make_predictor, make_frames=make_frames)
    if not is_complete(run_stages(evaluation)):
        raise JudgeError(f"round {number}: its evaluation is not complete. Run the same command again to continue.")
    before = settings.changed(name=f"round_{number - 1}").run_folder
    if number and (before / "judgements.jsonl").is_file():
        comparison = compare(load_run(before), load_run(evaluation.folder), settings.seed)
        total = comparison.total
        one, two = (percent(accuracy) or "-" for accuracy in total.accuracies)
        say(
            f"round {number}: held-out accuracy {one} before and {two} after, {points(total.difference) or '-'} "
            f"points, on {total.questions} questions; see {evaluation.folder / 'report'}"
        )
