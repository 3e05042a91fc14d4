"""Six sampled answers about a clip: six generations, and all of them in one row; one question, and several.

The language model has the width, depth and vocabulary given, and random weights, which hardly ever end an answer. The
ways take turns, and draw the same answers for the same seeds whether questions stand alone or side by side.

    python benchmarks/sampling.py [--hidden 1024] [--layers 4] [--answers 6] [--tokens 24] [--questions 3] [--repeat 2]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, LlamaConfig, set_seed

import hound_plugin
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.model.answer_sampling import sample_answers, sample_many
from hound_plugin.model.configuration import LlavaHoundTowerConfig
from hound_plugin.model.feature_cache import FeatureCache
from hound_plugin.model.inference import HoundModel

TOKENIZER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tokenizer"
VOCABULARY = 32000


def build(chosen: argparse.Namespace) -> HoundModel:
    """A model in memory, as ``hound_plugin.load`` gives it."""
    text = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=chosen.hidden, intermediate_size=chosen.hidden * 43 // 16,
        num_hidden_layers=chosen.layers, num_attention_heads=max(chosen.hidden // 128, 1),
        max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    tower: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    tower |= {"image_size": 224, "patch_size": 14, "num_hidden_layers": 3}
    config = hound_plugin.LlavaHoundConfig(
        text_config=text,
        image_tower_config=LlavaHoundTowerConfig(**tower),
        video_tower_config=LlavaHoundTowerConfig(**tower, add_time_attn=True, num_frames=8),
        mm_image_tower=None,
        mm_video_tower=None,
    )
    set_seed(0)
    model = hound_plugin.LlavaHoundForConditionalGeneration(config).eval()
    processor = hound_plugin.LlavaHoundProcessor.from_config(config, AutoTokenizer.from_pretrained(TOKENIZER))
    processor.pixel_cache, model.model.feature_cache = PixelCache(), FeatureCache()
    return HoundModel(model, processor)


def write_clip(path: Path) -> str:
    """Two seconds of noise."""
    draw = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(20):
            picture = draw.integers(0, 256, (240, 320, 3), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return str(path)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (
        ("hidden", 1024), ("layers", 4), ("answers", 6), ("tokens", 24), ("questions", 3), ("repeat", 2),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    seeds = list(range(chosen.answers))
    options: dict[str, Any] = {"max_new_tokens": chosen.tokens, "batch_size": chosen.answers * chosen.questions}
    generation = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "max_new_tokens": chosen.tokens}
    with tempfile.TemporaryDirectory() as folder:
        hound, clip = build(chosen), write_clip(Path(folder, "clip.mp4"))
        asked = [(f"What happens in part {number} of the clip?", clip) for number in range(chosen.questions)]
        prompt = hound.batch([(*asked[0][:1], "", clip)], "left")["input_ids"].shape[1]
        question = asked[0][0]
        ways: dict[str, tuple[int, Callable[[], Any]]] = {
            "model.generate, one answer after the other": (
                1,
                lambda: [hound.chat(question, video=clip, **generation) for _ in seeds],
            ),
            "sample_answers": (1, lambda: [sample_answers(hound, question, clip, seeds, **options)]),
            f"sample_many, {chosen.questions} questions side by side": (
                chosen.questions,
                lambda: sample_many(hound, asked, [seeds] * chosen.questions, **options),
            ),
        }
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, float32")
        print(f"torch {torch.__version__}, transformers {transformers.__version__}")
        print(
            f"hidden {chosen.hidden}, {chosen.layers} layers, vocabulary {VOCABULARY}, prompt {prompt}; "
            f"{chosen.answers} answers of {chosen.tokens} tokens; decoding and towers are remembered in all ways\n"
        )
        times: dict[str, list[float]] = {name: [] for name in ways}
        results: dict[str, Any] = {}
        for turn in range(chosen.repeat + 1):  # the first one warms up
            for name, (questions, run) in ways.items():
                start = time.perf_counter()
                results[name] = run()
                if turn:
                    times[name].append((time.perf_counter() - start) / questions)
    _, alone, together = results.values()
    first = statistics.median(next(iter(times.values())))
    print("| way | s a question (median, least to most) | times faster |\n|---|---|---|")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} ({min(values):.2f} to {max(values):.2f}) | {first / middle:.2f} |")
    print(f"\nthe same answers for the same seeds, alone and side by side: {alone[0] == together[0]}")


if __name__ == "__main__":
    main()
