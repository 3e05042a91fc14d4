"""``hound eval ...``: its arguments, and the functions they call. The model is passed in by ``cli.py``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hound_plugin.evaluation.run import MakePredictor
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
    """What ``cli.py`` passes in: the model that predicts in this process."""

    predictor: MakePredictor


def add_eval_commands(commands: Commands, models: Models) -> None:
    """Declare ``hound eval`` and its stages."""
    parser = commands.add_parser(
        "eval",
        help="benchmark suites: predict, judge, report; compare two runs or two judges",
        description=(
            "Asks a model the questions of a suite, has a judge compare its answers with the right ones, and reports "
            "accuracy with intervals. Whatever stops a run, no question is asked twice; what has no answer or no "
            "verdict is counted and shown as such."
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


def _say(text: str) -> None:
    print(text, file=sys.stderr if text.startswith("warning") else sys.stdout, flush=True)


def _add_list(stages: Commands) -> None:
    parser = stages.add_parser(
        "list",
        help="the suites, and whether their questions are on this machine",
        description="The suites: their test sets, the judge's protocol, and whether their questions are here.",
        epilog="examples:\n  hound eval list\n  hound eval list --data /data/hound",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="folder of `hound corpus download` (default: data)")
    parser.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    from hound_plugin.evaluation.suites import BUILT_IN, how_to_get, missing_files, read_suite

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
    parser.add_argument("recipe", metavar="YAML", help=f"settings; see {RECIPE}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override the file, such as suite=official")
    parser.add_argument("--limit", type=int, help="use only the first LIMIT questions of each test set")
    if name != "report":
        parser.add_argument("--max-cost", type=float, help="stop before the total cost exceeds this (needs prices)")
        parser.add_argument("--dry-run", action="store_true", help="print requests and estimated cost; send nothing")
    parser.set_defaults(run=lambda arguments: _run_stage(arguments, name, models))


def _settings(arguments: argparse.Namespace) -> EvaluationSettings:
    from hound_plugin.evaluation.settings import read_settings

    given = {"limit": arguments.limit, "max_cost": getattr(arguments, "max_cost", None)}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    return read_settings(arguments.recipe, [*arguments.overrides, *overrides])


def _run_stage(arguments: argparse.Namespace, name: str, models: Models) -> int:
    from hound_plugin.evaluation.run import STAGES, dry_run, is_complete, open_evaluation, run_stages
    from hound_plugin.evaluation.shards import shard_of_process

    stages = STAGES if name == "run" else (name,)
    evaluation = open_evaluation(_settings(arguments), _say, models.predictor, shard_of_process(), stages)
    if getattr(arguments, "dry_run", False):
        dry_run(evaluation, stages)
        return 0
    return 0 if is_complete(run_stages(evaluation, stages)) else 1
