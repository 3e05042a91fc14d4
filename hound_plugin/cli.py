"""The command ``hound``: a thin composition root.

Each command is one ``add_<command>(commands)`` function, which declares its arguments and names the function that
runs it. Heavy imports are inside those, so that ``hound --help`` is quick and works in a broken environment.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hound_plugin.errors import CorpusError, DiskFullError, EnvironmentMismatchError, HoundError, JudgeError
from hound_plugin.version import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DONE = 0
FAILED = 1
BAD_INPUT = 2

EXAMPLES = """\
examples:
  hound doctor                 does this environment work, and is the plugin active in LLaMA-Factory?
  hound doctor --json          the same as JSON
  hound doctor --serve FILE    can chat, api or webchat answer questions about clips with this YAML file?
  hound demo                   write the tiny model, its clips and data to demo/
  hound demo --run             the same, then SFT and DPO with llamafactory-cli, and held-out accuracies
  hound convert SRC DST        original LLaVA-Hound or Video-LLaVA checkpoint to Hugging Face layout, or back
  hound assemble --help        language model + towers + projector to a trainable checkpoint
  hound corpus list            the original's data sets: download, extract, validate, convert
  hound reward --help          preference data: sample, judge, pairs, report, rank
  hound eval --help            benchmark suites: predict, judge, report, compare
  hound caption --help         detailed captions for clips
  hound COMMAND --help         what a command does, and its options

exit codes: 0 done, 1 failed, 2 bad usage or bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        arguments = _parse(argv)
    except SystemExit as stop:  # argparse has printed help, the version or what is wrong
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except HoundError as error:
        lines = (line.rstrip() for line in str(error).splitlines())  # a table keeps its columns
        print(f"hound: {chr(10).join(line for line in lines if line)}", file=sys.stderr)
        failed = isinstance(error, EnvironmentMismatchError | CorpusError | JudgeError | DiskFullError)
        return FAILED if failed else BAD_INPUT
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # `hound ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        print(f"hound: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("hound: interrupted", file=sys.stderr)
        return 130


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Accept arguments in any order: argparse takes no ``key=value`` after an option once it has seen the YAML file."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and hasattr(arguments, "overrides") and not any(word.startswith("-") or "=" not in word for word in rest):
        arguments.overrides = [*arguments.overrides, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    parser = argparse.ArgumentParser(
        prog="hound",
        description="LLaVA-Hound for LLaMA-Factory. Training, chat, API and web UI are the host's own commands.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hound-plugin {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_doctor(commands)
    add_demo(commands)
    add_convert(commands)
    add_assemble(commands)
    add_corpus(commands)
    add_reward(commands)
    add_eval(commands)
    add_caption(commands)
    return parser


def add_doctor(commands: Commands) -> None:
    """``hound doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="check versions, activation, decoders and the GPU, and say what to do",
        description="Checks this environment and says what to do about each problem: 10 to 60 seconds, line by line.",
        epilog="exit codes: 0 no problems (warnings allowed), 1 at least one problem",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument(
        "--serve",
        nargs="+",
        default=(),
        metavar=("YAML", "key=value"),
        help="also check a setup of chat, api or webchat: allowed media folder, decoder, template, model, adapter",
    )
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    import hound_plugin.doctor as doctor

    def show(check: doctor.Check) -> None:
        print("\n".join(doctor.to_lines(check)) + "\n", end="", flush=True)  # in one piece: it has several callers

    checks = doctor.examine(arguments.serve, None if arguments.json else show)
    print(doctor.to_json(checks) if arguments.json else f"\n{doctor.closing_line(checks)}")
    return doctor.exit_code(checks)


def add_demo(commands: Commands) -> None:
    """``hound demo``."""
    parser = commands.add_parser(
        "demo",
        help="write the embedded tiny model, clips and data; --run trains it",
        description=(
            "Writes a tiny LLaVA-Hound with random weights, a tokenizer, some thousand clips of moving shapes, and SFT "
            "and preference data about them. Nothing is downloaded. With --run it is trained by SFT and DPO with "
            "`llamafactory-cli train examples/yaml/demo_sft.yaml` and `demo_dpo.yaml` and measured on held-out clips; "
            "that takes about seven minutes on two cores. Finished steps are not repeated."
        ),
        epilog="examples:\n  hound demo\n  hound demo --run\n  hound demo --folder saves/tiny --seed 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", default="demo", help="where to write (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of clips, data and weights (default: 0)")
    parser.add_argument(
        "--run", dest="train", action="store_true", help="train it, question it, and print held-out accuracies"
    )
    parser.add_argument("--force", action="store_true", help="rebuild everything from scratch")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from hound_plugin.demo.build import build_demo
    from hound_plugin.demo.model import write_model
    from hound_plugin.demo.run import run_demo

    if arguments.train:
        from hound_plugin.host.presence import require_host

        require_host("`hound demo --run`")
        run_demo(arguments.folder, arguments.seed, arguments.force)
        return DONE
    paths = build_demo(arguments.folder, seed=arguments.seed, force=arguments.force, write_model=write_model)
    print(f"{paths.folder}/: model, tokenizer, clips and data (dataset_dir {paths.data}, media_dir {paths.clips})")
    return DONE


def add_convert(commands: Commands) -> None:
    """``hound convert``."""
    parser = commands.add_parser(
        "convert",
        help="original LLaVA-Hound / Video-LLaVA checkpoint -> Hugging Face layout, or back",
        description=(
            "Renames tensors and never changes them: a round trip reproduces every bit. Memory stays near one shard. "
            "Training and chat read the original layout directly; converting is for other tools and for sharing."
        ),
        epilog=(
            "examples:\n"
            "  hound convert ShareGPTVideo/LLaVA-Hound-DPO llava-hound-dpo-hf\n"
            "  hound convert LanguageBind/Video-LLaVA-7B video-llava-hf\n"
            "  hound convert saves/llava-hound-7b/dpo my-dpo-original --to original\n"
            "  hound convert SRC DST --dry-run            print the key mapping and write nothing"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="folder or hub id")
    parser.add_argument("target", metavar="DST", help="a new or an empty folder")
    parser.add_argument("--to", choices=("hf", "original"), default="hf", help="layout to write (default: hf)")
    parser.add_argument(
        "--towers",
        choices=("auto", "repository", "checkpoint"),
        default="auto",
        help="where tower weights come from: their own repositories if the checkpoint's copy is just their rounding "
        "(auto), always the repositories, or always the checkpoint; with --to original, what config.json names",
    )
    parser.add_argument("--tokenizer", help="for --to original: folder with the original's tokenizer.model")
    parser.add_argument("--shard-size", default="5GB", help="largest weight file (default: 5GB)")
    parser.add_argument("--dry-run", action="store_true", help="print the key mapping and write nothing")
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from hound_plugin.model.checkpoint_conversion import convert

    report = convert(
        arguments.source,
        arguments.target,
        to=arguments.to,
        towers=arguments.towers,
        tokenizer=arguments.tokenizer,
        shard_size=arguments.shard_size,
        dry_run=arguments.dry_run,
    )
    if arguments.dry_run:
        for old, new in report.keys:
            print(f"{old} -> {new}")
    for tower, source in report.towers.items():
        print(f"{tower}: {source}")
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{len(report.keys)} tensors" + (f" written to {report.written}" if report.written else "; nothing written"))
    return DONE


def add_assemble(commands: Commands) -> None:
    """``hound assemble``."""
    parser = commands.add_parser(
        "assemble",
        help="language model + towers + projector -> a trainable checkpoint",
        description="Writes the checkpoint that pre-training starts from, in Hugging Face layout.",
        epilog=(
            "examples:\n"
            "  hound assemble lmsys/vicuna-7b-v1.5 start --projector mm_projector.bin\n"
            "  hound assemble vicuna/ start --image-tower LanguageBind_Image/ --video-tower LanguageBind_Video_merge/"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("language_model", metavar="LM", help="LLaMA or Vicuna, folder or hub id")
    parser.add_argument("target", metavar="DST", help="a new or an empty folder")
    parser.add_argument("--image-tower", default="LanguageBind/LanguageBind_Image", help="folder or hub id")
    parser.add_argument("--video-tower", default="LanguageBind/LanguageBind_Video_merge", help="folder or hub id")
    parser.add_argument("--projector", help="mm_projector.bin; fresh random weights if not given")
    parser.add_argument("--projector-type", default="mlp2x_gelu", help="linear or mlp<N>x_gelu (default: mlp2x_gelu)")
    parser.add_argument("--seed", type=int, default=0, help="seed of a fresh projector (default: 0)")
    parser.add_argument("--shard-size", default="5GB", help="largest weight file (default: 5GB)")
    parser.set_defaults(run=_assemble)


def _assemble(arguments: argparse.Namespace) -> int:
    from hound_plugin.model.assemble import assemble

    written = assemble(
        arguments.language_model,
        arguments.target,
        image_tower=arguments.image_tower,
        video_tower=arguments.video_tower,
        projector=arguments.projector,
        projector_type=arguments.projector_type,
        seed=arguments.seed,
        shard_size=arguments.shard_size,
    )
    print(f"written to {written}")
    return DONE


def add_corpus(commands: Commands) -> None:
    """``hound corpus ...``."""
    from hound_plugin.corpus.commands import add_all

    parser = commands.add_parser(
        "corpus",
        help="data sets: list, download, extract, validate, convert, prepare",
        description="The original's data sets on the hub, and other people's data in our format.",
        epilog=(
            "examples:\n"
            "  hound corpus list\n"
            "  hound corpus download --only dpo_17k --with-media\n"
            "  hound corpus extract\n"
            "  hound corpus validate data/video_instruction/train/dpo/sft_dpo_17k.jsonl --media-dir data/frames\n"
            "  hound corpus convert theirs.json ours.jsonl --split 0.05\n"
            "  hound corpus prepare examples/yaml/demo_dpo.yaml"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_all(parser.add_subparsers(title="commands", metavar="COMMAND", required=True), _prepare)


def _prepare(arguments: argparse.Namespace) -> int:
    from hound_plugin.host.presence import require_host

    require_host("`hound corpus prepare`")
    from hound_plugin.engines.arguments import engine_of_options
    from hound_plugin.engines.choice import make_engine
    from hound_plugin.host.cache_filling import fill

    engine = make_engine(engine_of_options(arguments))
    filled = fill(arguments.recipe, arguments.overrides, arguments.processes, arguments.part, engine)
    print(filled.summary())
    return FAILED if filled.bad or filled.lost else DONE


def add_reward(commands: Commands) -> None:
    """``hound reward``, with our model as the local source of answers and log-probabilities."""
    from hound_plugin.own_model import OwnLogProbs, evaluate_round, frames_of_sampler, make_generator
    from hound_plugin.reward.commands import Models, add_reward_commands

    models = Models(make_generator, OwnLogProbs, frames_of_sampler, evaluate_round, _write_reference)
    add_reward_commands(commands, models)


def _write_reference(recipe: str, overrides: Sequence[str]) -> str:
    """:func:`hound_plugin.host.reference.command.write_reference`, which needs the host."""
    from hound_plugin.host.presence import require_host

    require_host("`hound reward ref-logps`")
    import torch  # noqa: F401  (activates the plugin before the host is imported)

    from hound_plugin.host.reference.command import write_reference

    return write_reference(recipe, overrides)


def add_eval(commands: Commands) -> None:
    """``hound eval``, with our model as the local source of predictions."""
    from hound_plugin.evaluation.commands import Models, add_eval_commands
    from hound_plugin.own_model import frames_of_sampler, make_predictor

    add_eval_commands(commands, Models(make_predictor, frames_of_sampler))


def add_caption(commands: Commands) -> None:
    """``hound caption``, with our model."""
    from hound_plugin.evaluation.caption_command import add_caption_command
    from hound_plugin.own_model import make_predictor

    add_caption_command(commands, make_predictor)


if __name__ == "__main__":
    sys.exit(main())
