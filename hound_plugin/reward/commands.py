"""``hound reward ...``: its arguments, and the functions they call. Models are passed in by ``cli.py``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hound_plugin.command_line import MAX_COST, add_recipe_arguments, recipe_overrides, say
from hound_plugin.engines.arguments import add_engine_arguments

if TYPE_CHECKING:
    from hound_plugin.pages.frames import FrameReader
    from hound_plugin.reward.candidates import Generator
    from hound_plugin.reward.rank import LogProbs
    from hound_plugin.reward.rounds import Evaluate
    from hound_plugin.reward.settings import RewardSettings, SampleSettings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

RECIPE = "examples/yaml/hound_reward.yaml"
STAGE_HELP = {
    "run": "all stages: sample, judge, pairs, report",
    "sample": "n answers per question -> candidates.jsonl",
    "judge": "a score for each answer -> scores.jsonl",
    "pairs": "preference pairs for the host -> pairs/",
    "report": "counts, distributions, agreement, cost -> report/",
}


@dataclass(frozen=True)
class Models:
    """What ``cli.py`` passes in.

    Attributes:
        generator: of answers.
        log_probs: of given answers, by a checkpoint.
        frames: reads the frames that the model saw.
        evaluate: the evaluation after a round.
        write_reference: stores a training's reference log-probabilities; takes recipe and overrides, returns the file.
    """

    generator: Callable[[SampleSettings], Generator]
    log_probs: Callable[[str, str | None, str], LogProbs]
    frames: Callable[[SampleSettings, int], FrameReader]
    evaluate: Evaluate
    write_reference: Callable[[str, Sequence[str]], str]


def add_reward_commands(commands: Commands, models: Models) -> None:
    """Declare ``hound reward`` and its stages."""
    parser = commands.add_parser(
        "reward",
        help="preference data: sample answers, judge them, make pairs, report, rank; reference log-probabilities",
        description=(
            "Builds video preference data: n answers per question, a language model's score for each, pairs for DPO. "
            "Whatever stops a run, nothing is requested or paid for twice; a score that is missing is listed as "
            "missing and never made up."
        ),
        epilog=(
            "examples:\n"
            f"  hound reward run {RECIPE} --dry-run          prompts, tokens and cost; sends nothing\n"
            f"  hound reward run {RECIPE}\n"
            f"  hound reward judge {RECIPE} judge.k=3 --max-cost 5\n"
            "  hound reward COMMAND --help"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(title="stages", metavar="STAGE", required=True)
    for name, text in STAGE_HELP.items():
        _add_stage(stages, name, text, models)
    _add_rank(stages, models)
    _add_ref_logps(stages, models)
    _add_browse(stages, models)
    _add_iterate(stages, models)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser, RECIPE, "judge.k=3")


def _add_stage(stages: Commands, name: str, text: str, models: Models) -> None:
    parser = stages.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Finished work is not repeated.",
        epilog=f"examples:\n  hound reward {name} {RECIPE}\n  hound reward {name} {RECIPE} folder=saves/try --limit 20",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_recipe(parser)
    if name in ("run", "sample"):
        add_engine_arguments(parser, options=False)
    if name in ("run", "judge", "sample"):
        parser.add_argument("--max-cost", type=float, help=MAX_COST)
    if name in ("run", "judge"):
        parser.add_argument("--dry-run", action="store_true", help="print prompts and the estimated cost; send nothing")
    if name == "report":
        parser.add_argument("--second", help="scores.jsonl of another judge, to compute agreement")
    parser.set_defaults(run=lambda arguments: _run_stage(arguments, name, models))


def _settings(arguments: argparse.Namespace) -> RewardSettings:
    from hound_plugin.reward.settings import read_settings

    return read_settings(arguments.recipe, recipe_overrides(arguments))


def _run_stage(arguments: argparse.Namespace, name: str, models: Models) -> int:
    from hound_plugin.reward.run import STAGES, dry_run, run_stages
    from hound_plugin.reward.run_setup import open_run

    settings = _settings(arguments)
    if getattr(arguments, "second", None):
        settings = settings.changed(report={"second": arguments.second})
    dry = getattr(arguments, "dry_run", False)
    run = open_run(settings, say, models.generator, models.frames, dry=dry)
    if dry:
        dry_run(run)
        return 0
    counts = run_stages(run, STAGES if name == "run" else (name,))
    if "judge" in counts and not counts["judge"]["scored"]:
        say(f"warning: no answer has a score; {run.folder / 'scores.jsonl'} says why")
        return 1
    return 1 if any(_incomplete(counts.get(f"{stage}_usage")) for stage in ("sample", "judge")) else 0


def _incomplete(usage: dict[str, Any] | None) -> bool:
    """Whether a stage left work for another run: stopped by its budget, or requests without a reply."""
    return bool(usage and (usage["stopped"] or usage["this_run"]["failed"]))


def _add_rank(stages: Commands, models: Models) -> None:
    parser = stages.add_parser(
        "rank",
        help="implicit reward of sampled answers under a policy and its reference; best-of-n",
        description=(
            "Ranks the answers of a run folder by beta * (log p_policy - log p_reference) and writes ranked.jsonl. "
            "If there are scores, it prints how often both order two answers the same way."
        ),
        epilog=(
            "examples:\n"
            f"  hound reward rank {RECIPE} --policy demo/runs/dpo --reference demo/runs/sft\n"
            f"  hound reward rank {RECIPE} --policy demo/runs/dpo --reference demo/runs/sft --per-token --best"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_recipe(parser)
    parser.add_argument("--policy", required=True, help="checkpoint after preference training")
    parser.add_argument("--reference", required=True, help="checkpoint before it")
    parser.add_argument("--beta", type=float, default=1.0, help="factor of the reward (default: 1)")
    parser.add_argument("--per-token", action="store_true", help="divide by the number of tokens")
    parser.add_argument("--best", action="store_true", help="print the best answer of each question as JSON lines")
    parser.add_argument("--batch-size", type=int, default=8, help="answers at a time (default: 8)")
    parser.set_defaults(run=lambda arguments: _rank(arguments, models))


def _rank(arguments: argparse.Namespace, models: Models) -> int:
    import json

    from hound_plugin.records.bad_rows import RowReport
    from hound_plugin.records.run_folders import open_folder
    from hound_plugin.reward.asked import bind_answers
    from hound_plugin.reward.candidates import read_candidates
    from hound_plugin.reward.rank import agreement_with_scores, best_of_n, rank_file
    from hound_plugin.reward.run_folder import RANKED, SCORES
    from hound_plugin.reward.run_setup import read_run_questions, report_bad_rows
    from hound_plugin.reward.scoring import latest

    settings = _settings(arguments)
    folder = open_folder(settings.folder)
    questions = read_run_questions(settings, report := RowReport(settings.questions))
    report_bad_rows(report, settings, folder, say)
    bind_answers(folder, questions, say)
    candidates = read_candidates(folder)
    given = [(q, number, row["answer"]) for q in questions for number, row in sorted(candidates.get(q.id, {}).items())]
    items = [(question, number, answer) for question, number, answer in given if answer.strip()]
    device, dtype = settings.sample.device, settings.sample.dtype
    rows = rank_file(
        folder,
        items,
        lambda: models.log_probs(arguments.policy, device, dtype),
        lambda: models.log_probs(arguments.reference, device, dtype),
        arguments.beta,
        arguments.per_token,
        arguments.batch_size,
    )
    if arguments.best:
        for row in best_of_n(rows):
            print(json.dumps(row, ensure_ascii=False))
    say(f"rank: {len(rows)} answers in {folder / RANKED}")
    if len(items) < len(given):
        say(f"rank: {len(given) - len(items)} answers are blank and have no rank; pairs do not use them either")
    agreement = agreement_with_scores(rows, latest(folder / SCORES))
    if agreement["pairs"]:
        say(
            f"judge and implicit reward order {agreement['alike']} of {agreement['pairs']} pairs of answers the same "
            "way"
        )
    return 0


def _add_ref_logps(stages: Commands, models: Models) -> None:
    recipe = "examples/yaml/hound_dpo.yaml"
    parser = stages.add_parser(
        "ref-logps",
        help="log-probabilities of a training's pairs under its reference, stored for hound.reference_log_probs",
        description=(
            "Reads the YAML file of a DPO or KTO training, so that template, frames and cutoff_len are the training's, "
            "and writes the file that hound.reference_log_probs names. Rows that it has are not computed again, and a "
            "stopped computation continues. Under torchrun the processes share the rows; each holds the whole "
            "reference."
        ),
        epilog=(
            "examples:\n"
            f"  hound reward ref-logps {recipe} hound.reference_log_probs=saves/reference.jsonl\n"
            f"  torchrun --nproc-per-node 8 --no-python hound reward ref-logps {recipe} "
            "hound.reference_log_probs=saves/reference.jsonl"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="YAML", help=f"of the training; such as {recipe}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override the file, as in training")
    parser.set_defaults(run=lambda arguments: _ref_logps(arguments, models))


def _ref_logps(arguments: argparse.Namespace, models: Models) -> int:
    path = models.write_reference(arguments.recipe, arguments.overrides)
    if os.environ.get("RANK", "0") == "0":
        say(f"ref-logps: complete in {path}")
    return 0


def _add_browse(stages: Commands, models: Models) -> None:
    parser = stages.add_parser(
        "browse",
        help="a page that shows pairs next to the frames that the model saw, to drop bad ones",
        description=(
            "Serves a page to this machine's own browser until Ctrl-C. Keys: j next, k back, d drop or take back, u "
            "undo. Dropped pairs are listed in excluded.jsonl in the run folder; the data is never edited. Run `hound "
            "reward pairs` again to leave them out; no other pair takes their place, unless pairs.replace_dropped is "
            "set."
        ),
        epilog=f"examples:\n  hound reward browse {RECIPE}\n  hound reward browse {RECIPE} --port 7861",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_recipe(parser)
    parser.add_argument("--port", type=int, default=7860, help="port on 127.0.0.1 (default: 7860; 0: any)")
    parser.set_defaults(run=lambda arguments: _browse(arguments, models))


def _browse(arguments: argparse.Namespace, models: Models) -> int:
    from hound_plugin.pages.frames import LARGE
    from hound_plugin.reward.browse import open_page

    settings = _settings(arguments)
    open_page(settings, arguments.port, models.frames(settings.sample, LARGE), say)
    return 0


def _add_iterate(stages: Commands, models: Models) -> None:
    parser = stages.add_parser(
        "iterate",
        help="rounds of sample, judge, pairs and DPO, each from the model of the previous round",
        description=(
            "Round 1 samples from sample.model; DPO runs through `llamafactory-cli train` with the recipe that "
            "iterate.recipe names; round 2 samples from its result, and so on. Finished rounds are not repeated."
        ),
        epilog=f"examples:\n  hound reward iterate {RECIPE}\n  hound reward iterate {RECIPE} iterate.rounds=3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_recipe(parser)
    parser.add_argument("--max-cost", type=float, help="stop a round before its folder's total cost exceeds this")
    parser.set_defaults(run=lambda arguments: _iterate(arguments, models))


def _iterate(arguments: argparse.Namespace, models: Models) -> int:
    from hound_plugin.reward.rounds import run_rounds

    run_rounds(_settings(arguments), say, models.generator, models.frames, models.evaluate)
    return 0
