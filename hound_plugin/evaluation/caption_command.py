"""``hound caption``: its arguments. The model is passed in by ``cli.py``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hound_plugin.command_line import say
from hound_plugin.engines.arguments import add_engine_arguments

if TYPE_CHECKING:
    from hound_plugin.evaluation.run import MakePredictor

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = """\
examples:
  hound caption clips/ --model ShareGPTVideo/LLaVA-Hound-SFT --out captions.jsonl
  hound caption a.mp4 'long.mp4#t=10,20' picture.jpg --model demo/runs/sft --out captions.jsonl
  hound caption questions.jsonl --media-dir /data/frames --model ShareGPTVideo/LLaVA-Hound-SFT --out captions.jsonl
  torchrun --nproc-per-node 8 --no-python hound caption clips/ --model MODEL --out captions.jsonl
  hound caption clips/ --base-url http://localhost:8000/v1 --model NAME --out captions.jsonl --set predict.show=frames
  hound caption clips.jsonl --model MODEL --out captions.jsonl --engine ray --engine-options actors=8 gpus=1
  hound corpus validate captions.jsonl --kind captions
  hound reward run RECIPE captions=captions.jsonl      the judge reads them

exit codes: 0 every clip has a caption, 1 some have none (listed in OUT's .bad.jsonl, or a server has not answered yet),
2 bad usage or bad input
"""


def add_caption_command(commands: Commands, make_predictor: MakePredictor) -> None:
    """Declare ``hound caption``."""
    parser = commands.add_parser(
        "caption",
        help="detailed captions for clips, as rows that `hound reward` and training read",
        description=(
            "Describes clips and images in detail. Each is asked for with a request drawn from a pool of wordings, by "
            "the seed and its id. A run that was stopped continues where it was; clips may be added later. CLIPS are "
            "videos, images, folders (a folder of pictures is one clip, another one stands for all below it), and "
            "files (JSONL, Parquet) of rows with a clip each."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", metavar="CLIPS", nargs="+", help="videos, images, folders, files of rows")
    parser.add_argument(
        "--model", required=True, help="checkpoint or adapter (a folder or a hub id), or a server's name of its model"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="JSONL or Parquet (by its name) to write, complete or not at all"
    )
    parser.add_argument("--media-dir", metavar="DIR", help="folder that the clips' paths are relative to")
    parser.add_argument("--instructions", default="detailed", metavar="YAML", help="a pool of requests of your own")
    parser.add_argument("--seed", type=int, default=0, help="draws the requests, and answers if sampled (default: 0)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--top-p", type=float, default=0.9, help="if sampled: share of probability (default: 0.9)")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="longest caption, in tokens (default: 512)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips at a time (default: 16)")
    parser.add_argument("--num-frames", type=int, help="frames per clip (default: the model's own number)")
    parser.add_argument(
        "--backend",
        choices=("model", "vllm", "openai"),
        help="vllm: in vLLM's engine (in its environment); openai: a server with OpenAI's chat completions API "
        "(default: model, in this process; openai with --base-url)",
    )
    parser.add_argument("--base-url", metavar="URL", help="the server's address (default: OpenAI's own)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="any other setting of `hound eval`, such as predict.show=frames, max_cost=5, "
        "predict.vllm.tensor_parallel_size=2, "
        "'prices.NAME={input: 1, output: 4}'",
    )
    parser.add_argument("--device", help="such as cuda:1 or cpu (default: the first GPU, or else the CPU)")
    parser.add_argument("--dtype", default="auto", help="such as bfloat16 (default: the checkpoint's own)")
    add_engine_arguments(parser, options=True)
    parser.set_defaults(run=lambda arguments: _caption(arguments, make_predictor))


def _caption(arguments: argparse.Namespace, make_predictor: MakePredictor) -> int:
    from pathlib import Path

    from hound_plugin.engines.arguments import engine_of_options
    from hound_plugin.engines.choice import check_alone, make_engine
    from hound_plugin.errors import SettingsError
    from hound_plugin.evaluation.caption_clips import list_clips
    from hound_plugin.evaluation.caption_requests import read_instructions
    from hound_plugin.evaluation.captions import bad_list, caption_clips
    from hound_plugin.evaluation.settings import EvaluationSettings
    from hound_plugin.evaluation.shards import shard_of_process
    from hound_plugin.validation import apply_overrides, build

    names = ("temperature", "top_p", "max_new_tokens", "batch_size", "num_frames", "device", "dtype")
    predict = {name: getattr(arguments, name) for name in (*names, "base_url")}
    predict["backend"] = arguments.backend or ("openai" if arguments.base_url else "model")
    values = {"model": arguments.model, "seed": arguments.seed, "predict": predict}
    settings = build(EvaluationSettings, apply_overrides(values, arguments.set))
    if settings.predict.backend == "given":
        raise SettingsError("predict.backend: expected a model or a server that describes clips; got given.")
    pool = read_instructions(arguments.instructions)
    out, shard = Path(arguments.out), shard_of_process()
    chosen = engine_of_options(arguments)
    check_alone(chosen, shard.size)
    engine = make_engine(chosen)
    if out.is_dir() or str(out) in arguments.clips:
        raise SettingsError(f"--out: expected a file to write, other than CLIPS; got {out}.")
    clips, remarks = list_clips(arguments.clips, arguments.media_dir)
    tell = say if shard.is_first else lambda _: None
    for line in remarks:
        tell(line)
    result = caption_clips(clips, out, settings, pool, make_predictor, shard, tell, engine)
    if not shard.is_first:
        return 0
    say(f"caption: {result.captions} of {len(clips)} clips, {result.added} in this run, in {out}")
    for name, why in list(result.broken.items())[:5]:
        say(f"warning: no caption: {name}: {why}")
    if result.broken:
        say(f"warning: {len(result.broken)} of {len(clips)} clips have no caption; {bad_list(out)} lists them all")
    if result.cut:
        say(
            f"warning: {result.cut} of {result.captions} captions were cut at --max-new-tokens "
            f"{settings.predict.max_new_tokens}; they have `finish: length`, and their end is missing"
        )
    if result.missing:
        say(
            f"warning: {result.missing} of {len(clips)} clips have no reply yet, and {out} was not written; run the "
            "same command again to continue"
        )
    return 1 if result.broken or result.missing else 0
