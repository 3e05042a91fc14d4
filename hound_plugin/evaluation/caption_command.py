"""``hound caption``: its arguments. The model is passed in by ``cli.py``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hound_plugin.evaluation.run import MakePredictor

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = """\
examples:
  hound caption clips/ --model ShareGPTVideo/LLaVA-Hound-SFT --out captions.jsonl
  hound caption a.mp4 'long.mp4#t=10,20' picture.jpg --model demo/runs/sft --out captions.jsonl
  hound caption questions.jsonl --media-dir /data/frames --model ShareGPTVideo/LLaVA-Hound-SFT --out captions.jsonl
  torchrun --nproc-per-node 8 --no-python hound caption clips/ --model MODEL --out captions.jsonl
  hound corpus validate captions.jsonl --kind captions
  hound reward run RECIPE captions=captions.jsonl      the judge reads them

exit codes: 0 every clip has a caption, 1 some have none (listed in OUT's .bad.jsonl), 2 bad usage or bad input
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
            "JSONL files of rows with a clip each."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", metavar="CLIPS", nargs="+", help="videos, images, folders, JSONL files")
    parser.add_argument("--model", required=True, help="checkpoint or adapter: a folder or a hub id")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSONL to write, complete or not at all")
    parser.add_argument("--media-dir", metavar="DIR", help="folder that the clips' paths are relative to")
    parser.add_argument("--instructions", default="detailed", metavar="YAML", help="a pool of requests of your own")
    parser.add_argument("--seed", type=int, default=0, help="draws the requests, and answers if sampled (default: 0)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--top-p", type=float, default=0.9, help="if sampled: share of probability (default: 0.9)")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="longest caption, in tokens (default: 512)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips at a time (default: 16)")
    parser.add_argument("--num-frames", type=int, help="frames per clip (default: the model's own number)")
    parser.add_argument(
        "--backend", choices=("model", "vllm"), default="model", help="vllm: in vLLM's engine (in its environment)"
    )
    parser.add_argument(
        "--vllm", nargs="+", default=[], metavar="KEY=VALUE", help="of vLLM's engine, such as tensor_parallel_size=2"
    )
    parser.add_argument("--device", help="such as cuda:1 or cpu (default: the first GPU, or else the CPU)")
    parser.add_argument("--dtype", default="auto", help="such as bfloat16 (default: the checkpoint's own)")
    parser.set_defaults(run=lambda arguments: _caption(arguments, make_predictor))


def _say(text: str) -> None:
    print(text, file=sys.stderr if text.startswith("warning") else sys.stdout, flush=True)


def _caption(arguments: argparse.Namespace, make_predictor: MakePredictor) -> int:
    from pathlib import Path

    from hound_plugin.errors import SettingsError
    from hound_plugin.evaluation.caption_clips import list_clips
    from hound_plugin.evaluation.caption_requests import read_instructions
    from hound_plugin.evaluation.captions import bad_list, caption_clips
    from hound_plugin.evaluation.settings import EvaluationSettings
    from hound_plugin.evaluation.shards import shard_of_process
    from hound_plugin.validation import apply_overrides, build

    names = ("backend", "temperature", "top_p", "max_new_tokens", "batch_size", "num_frames", "device", "dtype")
    predict = {name: getattr(arguments, name) for name in names}
    predict["vllm"] = apply_overrides({}, arguments.vllm)
    settings = build(EvaluationSettings, {"model": arguments.model, "seed": arguments.seed, "predict": predict})
    pool = read_instructions(arguments.instructions)
    out, shard = Path(arguments.out), shard_of_process()
    if out.is_dir() or str(out) in arguments.clips:
        raise SettingsError(f"--out: expected a file to write, other than CLIPS; got {out}.")
    clips, remarks = list_clips(arguments.clips, arguments.media_dir)
    say = _say if shard.is_first else lambda _: None
    for line in remarks:
        say(line)
    result = caption_clips(clips, out, settings, pool, make_predictor, shard, say)
    if not shard.is_first:
        return 0
    _say(f"caption: {result.captions} of {len(clips)} clips, {result.added} in this run, in {out}")
    for name, why in list(result.broken.items())[:5]:
        _say(f"warning: no caption: {name}: {why}")
    if result.broken:
        _say(f"warning: {len(result.broken)} of {len(clips)} clips have no caption; {bad_list(out)} lists them all")
    return 1 if result.broken else 0
