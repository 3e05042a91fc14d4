"""Rounds: sample -> judge -> pairs -> report -> DPO in the host -> sample again from its result.

Every round has its own folder, ``round_1``, ``round_2`` ..., and its own share of the questions if ``shards`` is on, so
that no question is trained on twice. A round is finished when its ``dpo/`` contains ``finished.json``; finished rounds
are left alone, and a round that was stopped continues where it stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hound_plugin.errors import DataError, JudgeError, SettingsError
from hound_plugin.records.bad_rows import RowReport
from hound_plugin.records.files import write_json, write_rows, write_whole
from hound_plugin.records.jsonl import read_rows
from hound_plugin.records.parse import row_id
from hound_plugin.records.run_folders import open_folder, read_run
from hound_plugin.records.seeds import make_seed
from hound_plugin.reward.run import run_stages
from hound_plugin.reward.run_setup import MakeFrames, MakeGenerator, open_run, read_run_questions, report_bad_rows
from hound_plugin.reward.settings import RewardSettings
from hound_plugin.validation import read_yaml

OURS = ("model_name_or_path", "dataset", "dataset_dir", "media_dir", "output_dir", "eval_dataset", "do_eval")
"""Keys of the host's recipe that a round sets itself."""
FINISHED = "finished.json"
Evaluate = Callable[[str, Path, int, str, Callable[[str], None]], None]
"""Evaluates by a recipe, in a folder, the model of that round, a checkpoint; says the result."""


def run_rounds(
    settings: RewardSettings,
    say: Callable[[str], None],
    make_generator: MakeGenerator | None = None,
    make_frames: MakeFrames | None = None,
    evaluate: Evaluate | None = None,
) -> list[Path]:
    """Run all rounds that are not finished; returns the checkpoint of each.

    Raises:
        SettingsError: no recipe, a sampler that is not our model (DPO needs a checkpoint), or a first round that was
            trained from another model.
        DataError: a round without pairs, or with questions of an earlier one.
        JudgeError: a round stopped early, or the host's training failed.
    """
    recipe = read_recipe(settings)
    folder = open_folder(settings.folder)
    checkpoint, checkpoints = settings.sample.model, []
    _evaluate(settings, folder, 0, checkpoint, say, evaluate)
    for number in range(1, settings.iterate.rounds + 1):
        round_folder = open_folder(folder / f"round_{number}")
        trained = round_folder / "dpo"
        if not (trained / FINISHED).is_file():
            say(f"round {number} of {settings.iterate.rounds}: from {checkpoint}")
            _one_round(settings, round_folder, number, checkpoint, recipe, say, make_generator, make_frames)
        elif number == 1:
            _check_start(trained, checkpoint)
        checkpoint = str(trained)
        checkpoints.append(trained)
        _evaluate(settings, folder, number, checkpoint, say, evaluate)
    say(f"rounds finished; the last checkpoint is {checkpoint}")
    return checkpoints


def _check_start(trained: Path, checkpoint: str) -> None:
    """Refuse to continue rounds that began with another model."""
    before = read_run(trained, FINISHED).get("from", checkpoint)
    if before != checkpoint and os.path.realpath(before) != os.path.realpath(checkpoint):
        raise SettingsError(
            f"sample.model: expected {before!r}, from which the finished round 1 in {trained.parent} was trained; got "
            f"{checkpoint!r}. Set it back (or put a link at the old path of a model that was moved), or choose another "
            "`folder`.",
            "sample.model",
        )


def _evaluate(
    settings: RewardSettings,
    folder: Path,
    number: int,
    checkpoint: str,
    say: Callable[[str], None],
    evaluate: Evaluate | None,
) -> None:
    """The held-out evaluation of a round's model; 0 is the model that the first round starts from."""
    if settings.iterate.evaluation is None:
        return
    if evaluate is None:
        raise SettingsError("iterate.evaluation: this program cannot evaluate; leave it out.", "iterate.evaluation")
    say(f"evaluation of {checkpoint}, {'before the first round' if number == 0 else f'after round {number}'}")
    evaluate(settings.iterate.evaluation, folder / "evaluation", number, checkpoint, say)


def read_recipe(settings: RewardSettings) -> dict[str, Any]:
    """The host's recipe for DPO.

    Raises:
        SettingsError: it is not given, cannot be read, or is for another stage.
    """
    if settings.sample.backend != "model":
        raise SettingsError(
            "iterate: sample.backend must be `model`, because each round trains a checkpoint and samples from it."
        )
    try:
        recipe = read_yaml(Path(settings.iterate.recipe).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"iterate.recipe: expected a LLaMA-Factory YAML for DPO: {error}") from error
    if not isinstance(recipe, dict) or recipe.get("stage") != "dpo":
        raise SettingsError(f"iterate.recipe: expected `stage: dpo` in {settings.iterate.recipe}.")
    return recipe


def _one_round(
    settings: RewardSettings,
    folder: Path,
    number: int,
    checkpoint: str,
    recipe: dict[str, Any],
    say: Callable[[str], None],
    make_generator: MakeGenerator | None,
    make_frames: MakeFrames | None,
) -> None:
    questions = _share(settings, folder, number, say)
    round_settings = settings.changed(
        folder=str(folder),
        questions=str(questions),
        seed=make_seed("round", settings.seed, number),
        sample=settings.sample.changed(model=checkpoint),
    )
    run = open_run(round_settings, say, make_generator, make_frames)
    counts = run_stages(run)
    for stage in ("sample", "judge"):
        usage = counts.get(f"{stage}_usage")
        if usage and (usage["stopped"] or usage["this_run"]["failed"]):
            raise JudgeError(f"round {number}: {stage} is not complete ({usage['stopped'] or 'requests failed'}). "
                             "Run the same command again to continue.")  # fmt: skip
    if not counts["pairs"]["pairs"]:
        raise DataError(f"round {number}: there are no pairs; see {folder / 'report' / 'report.md'} for the reasons.")
    train(recipe, folder, round_settings, checkpoint, say)


def _share(settings: RewardSettings, folder: Path, number: int, say: Callable[[str], None]) -> Path:
    """The questions of this round: all that can be used, or every ``rounds``-th of them, by a hash of the id.

    The whole file is checked, so that a later round does not stop at a row that the first could have refused. Rows are
    written unchanged.

    Raises:
        DataError, MediaNotFoundError: rows that cannot be used, or that an earlier round has.
    """
    target = folder / "questions.jsonl"
    if target.is_file():
        return target
    report = RowReport(settings.questions)
    read_run_questions(settings.changed(limit=None), report)
    report_bad_rows(report, settings, Path(settings.folder), say)
    bad = {entry["row"] for entry in report.entries}
    rows = {row.number: row.value for row in read_rows(settings.questions) if row.number not in bad}
    if settings.iterate.shards:
        order = sorted(rows, key=lambda row: make_seed("share", settings.seed, row_id(rows[row])))
        rows = {row: rows[row] for row in sorted(order[number - 1 :: settings.iterate.rounds])}
        _check_new([value for value in rows.values() if value is not None], folder, number)
    write_rows(target, [value for value in rows.values() if value is not None])
    return target


def _check_new(rows: list[dict[str, Any]], folder: Path, number: int) -> None:
    """Refuse a share with questions of earlier rounds: the number of rounds, the seed or the questions changed."""

    def name(row: dict[str, Any]) -> str:
        return row_id(row) or json.dumps(row, sort_keys=True)

    asked = {name(row) for row in rows}
    for earlier in range(1, number):
        file = folder.with_name(f"round_{earlier}") / "questions.jsonl"
        known = {name(row.value) for row in read_rows(str(file)) if row.value} if file.is_file() else set()
        if twice := sorted(asked & known):
            raise DataError(
                f"Round {number} would train on {len(twice)} questions that round {earlier} had (such as "
                f"{twice[0][:80]!r}): `iterate.rounds`, `seed` or the questions have changed since. Set them back; "
                "or choose another `folder`, with `sample.model` the last round's `dpo`; or set `iterate.shards: "
                "false`, which gives every round all questions."
            )


def train(
    recipe: dict[str, Any], folder: Path, settings: RewardSettings, checkpoint: str, say: Callable[[str], None]
) -> None:
    """DPO in the host's own command; its output goes to ``dpo.log``.

    Raises:
        JudgeError: the command failed; the message has the end of its log.
    """
    values = {key: value for key, value in recipe.items() if key not in OURS and not key.startswith("eval_")}
    values |= {
        "model_name_or_path": checkpoint,
        "dataset": settings.pairs.name,
        "dataset_dir": str(folder / "pairs"),
        "media_dir": settings.media_dir or ".",
        "output_dir": str(folder / "dpo"),
        "overwrite_output_dir": True,
        "overwrite_cache": True,
    }
    values.pop("per_device_eval_batch_size", None)
    write_whole(folder / "dpo.yaml", yaml.safe_dump(values, sort_keys=False))
    say(f"DPO: llamafactory-cli train {folder / 'dpo.yaml'} (log in {folder / 'dpo.log'})")
    program = Path(sys.executable).with_name("llamafactory-cli")
    with open(folder / "dpo.log", "ab") as log:
        done = subprocess.run(
            [str(program), "train", str(folder / "dpo.yaml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            check=False,
        )
    if done.returncode:
        end = (folder / "dpo.log").read_text(encoding="utf-8", errors="replace")[-1500:]
        raise JudgeError(f"DPO failed with code {done.returncode}; {folder / 'dpo.log'} ends: {end}")
    write_json(folder / "dpo" / FINISHED, {"from": checkpoint, "pairs": settings.pairs.name})
