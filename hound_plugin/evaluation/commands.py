"""``hound eval ...``: its arguments, and the functions they call. The model is passed in by ``cli.py``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hound_plugin.command_line import MAX_COST, add_recipe_arguments, recipe_overrides, say
from hound_plugin.engines.arguments import add_engine_arguments

if TYPE_CHECKING:
    from hound_plugin.evaluation.run import MakeFrames, MakePredictor
    from hound_plugin.evaluation.settings import EvaluationSettings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

RECIPE = "examples/yaml/hound_eval.yaml"
STAGE_HELP = {
    "run": "all stages: predict, judge, report",
    "predict": "one answer to each question -> predictions.jsonl",
    "judge": "a verdict on each answer -> judgements.jsonl",
    "report": "accuracy and score with intervals, by test set -> report/",
}


@dataclass(frozen=True)
class Models:
    """What ``cli.py`` passes in: the model that predicts in this process, and what reads the frames that it saw."""

    predictor: MakePredictor
    frames: MakeFrames


def add_eval_commands(commands: Commands, models: Models) -> None:
    """Declare ``hound eval`` and its stages."""
    parser = commands.add_parser(
        "eval",
        help="benchmark suites: predict, judge, report; compare two runs or two judges",
        description=(
            "Asks a model the questions of a suite, has a judge compare its answers with the right ones, and reports "
            "accuracy with intervals. Whatever stops a run, nothing that was answered is asked again; what has no "
            "answer or no verdict is counted and shown as such."
        ),
        epilog=(
            "examples:\n"
            "  hound eval list\n"
            f"  hound eval run {RECIPE}                     the demo, without a judge\n"
            f"  hound eval run {RECIPE} suite=official model=ShareGPTVideo/LLaVA-Hound-DPO name=dpo\n"
            "  hound eval compare saves/hound_eval/sft/demo saves/hound_eval/dpo/demo\n"
            "  hound eval COMMAND --help"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_list(stages)
    for name, text in STAGE_HELP.items():
        _add_stage(stages, name, text, models)
    _add_compare(stages)
    _add_agree(stages)


def _add_list(stages: Commands) -> None:
    parser = stages.add_parser(
        "list",
        help="the suites, and whether their questions are on this machine",
        description="The suites: their test sets, the judge's protocol, and whether their questions are here.",
        epilog="examples:\n  hound eval list\n  hound eval list --data /data/hound",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="folder of `hound corpus download` (default: data)")
    parser.add_argument("--tasks", action="store_true", help="print only the folder of these suites for lmms-eval")
    parser.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    from hound_plugin.evaluation.suites import BUILT_IN, how_to_get, missing_files, read_suite

    if arguments.tasks:
        print(Path(__file__).parents[1] / "harness" / "tasks")
        return 0
    for name in BUILT_IN:
        suite = read_suite(name)
        data = arguments.data if suite.sets else None
        absent = missing_files(suite, data)
        here = f"{len(suite.names) - len(absent)} of {len(suite.names)} files here"
        rows = f"about {suite.rows:,} questions" if suite.rows else "number of questions not stated"
        print(f"{name}: {suite.title}")
        print(f"  sets: {', '.join(suite.names)}; {rows}; {'here' if not absent else here}")
        print(f"  judge: protocol {suite.protocol}; without a judge: {suite.measure}")
        print(f"  {suite.metric}\n  in the paper: {suite.paper}")
        if absent:
            print(f"  {how_to_get(name, suite, data)}")
    print("A JSONL file of questions is a suite too: suite=my_questions.jsonl media_dir=FOLDER")
    return 0


def _add_stage(stages: Commands, name: str, text: str, models: Models) -> None:
    parser = stages.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Finished work is not repeated.",
        epilog=(
            f"examples:\n  hound eval {name} {RECIPE}\n"
            f"  hound eval {name} {RECIPE} suite=official model=ShareGPTVideo/LLaVA-Hound-DPO name=dpo limit=100"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe_arguments(parser, RECIPE, "suite=official", "of each test set")
    if name in ("run", "predict"):
        add_engine_arguments(parser, options=False)
    if name != "report":
        parser.add_argument("--max-cost", type=float, help=MAX_COST)
        parser.add_argument("--dry-run", action="store_true", help="print requests and estimated cost; send nothing")
    parser.set_defaults(run=lambda arguments: _run_stage(arguments, name, models))


def _settings(arguments: argparse.Namespace) -> EvaluationSettings:
    from hound_plugin.evaluation.settings import read_settings

    return read_settings(arguments.recipe, recipe_overrides(arguments))


def _run_stage(arguments: argparse.Namespace, name: str, models: Models) -> int:
    from hound_plugin.evaluation.run import STAGES, dry_run, is_complete, open_evaluation, run_stages
    from hound_plugin.evaluation.shards import shard_of_process

    stages = STAGES if name == "run" else (name,)
    dry = getattr(arguments, "dry_run", False)
    evaluation = open_evaluation(
        _settings(arguments), say, models.predictor, shard_of_process(), stages, models.frames, dry=dry
    )
    if dry:
        dry_run(evaluation, stages)
        return 0
    return 0 if is_complete(run_stages(evaluation, stages)) else 1


def _add_two_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="RUN", help="folder of a run, FOLDER/NAME/SUITE, or its name")
    parser.add_argument("second", metavar="RUN", help="the other run")
    parser.add_argument("--folder", default="saves/hound_eval", help="where names are looked up (default: %(default)s)")
    parser.add_argument("--out", help="folder for the result (default: inside the second run's)")


def _add_compare(stages: Commands) -> None:
    parser = stages.add_parser(
        "compare",
        help="two models on the same questions: paired differences with intervals, wins and losses",
        description=(
            "Compares two runs question by question: difference of accuracy and score with an interval that treats "
            "clips as units, McNemar's test, and the questions that only one of them got right."
        ),
        epilog=(
            "examples:\n  hound eval compare sft dpo\n"
            "  hound eval compare saves/hound_eval/sft/official saves/hound_eval/dpo/official --out saves/sft_dpo"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_two_runs(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from hound_plugin.evaluation.comparison import compare, write_comparison
    from hound_plugin.evaluation.run_folder import find_runs

    first, second = find_runs(arguments.first, arguments.second, arguments.folder)
    comparison = compare(first, second, arguments.seed)
    folder = _out(arguments, second.folder / "compare" / first.name)
    print(comparison.to_markdown())
    say(f"written to {write_comparison(comparison, folder).parent}")
    return 0


def _add_agree(stages: Commands) -> None:
    parser = stages.add_parser(
        "agree",
        help="two judges on the same predictions: how often they agree, kappa, confusion",
        description=(
            "Compares the judgements of two runs that have the same predictions: agreement, kappa, Spearman's rank "
            "correlation, and the questions on which the judges differ most. A second judge judges the same "
            "predictions in a run of its own: predict.backend=given predict.answers=RUN/predictions.jsonl."
        ),
        epilog="examples:\n  hound eval agree dpo dpo_by_frames",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_two_runs(parser)
    parser.set_defaults(run=_agree)


def _agree(arguments: argparse.Namespace) -> int:
    from hound_plugin.evaluation.agreement import agree, write_agreement
    from hound_plugin.evaluation.run_folder import find_runs

    first, second = find_runs(arguments.first, arguments.second, arguments.folder)
    agreement = agree(first, second)
    folder = _out(arguments, second.folder / "agree" / first.name)
    print(agreement.to_markdown())
    say(f"written to {write_agreement(agreement, folder).parent}")
    return 0


def _out(arguments: argparse.Namespace, default: Path) -> Path:
    return default if arguments.out is None else Path(arguments.out)
