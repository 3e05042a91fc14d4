"""What the second question about a clip costs, with the memory of :func:`hound_plugin.load` and without.

Both towers have the released model's size (ViT-L/14 with temporal attention, 2048 visual tokens a clip) and random
weights; the language model is small, because memory saves nothing there. So the differences between rows are those of
the real model, the totals are not. The answers with and without memory are compared.

    python benchmarks/conversation.py [--device cuda] [--dtype bfloat16] [--seconds 10] [--height 720] [--tiny]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, LlamaConfig, set_seed

from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig
from hound_plugin.model.feature_cache import FeatureCache, fingerprint
from hound_plugin.model.inference import HoundModel
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor

TOKENIZER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tokenizer"
QUESTIONS = ("What is this video about?", "What happens then?", "Are you sure?")


def build(tiny: bool, device: str, dtype: torch.dtype) -> HoundModel:
    """The towers at full size, a small language model, random weights."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    size: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    size |= {"num_attention_heads": 16, "image_size": 224, "patch_size": 14}
    if tiny:
        size |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaHoundConfig(
        text_config=text,
        image_tower_config=LlavaHoundTowerConfig(**{**size, "num_hidden_layers": 1}),
        video_tower_config=LlavaHoundTowerConfig(**size, add_time_attn=True, num_frames=8),
        mm_image_tower=None,
        mm_video_tower=None,
    )
    set_seed(0)
    model = LlavaHoundForConditionalGeneration(config).to(device, dtype).eval()
    return HoundModel(model, LlavaHoundProcessor.from_config(config, tokenizer))


def write_clip(path: Path, seconds: int, height: int) -> None:
    """An H.264 clip, 16:9, 30 frames a second, of a moving gradient."""
    width = height * 16 // 9 // 2 * 2
    ramp = np.linspace(0, 255, width * 2, dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "ultrafast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(30 * seconds):
            start = number * 7 % width
            row = ramp[start : start + width]
            image = np.broadcast_to(row[None, :, None], (height, width, 3))
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


class Clock:
    """Seconds spent inside two functions of a model since the last reading."""

    def __init__(self, hound: HoundModel) -> None:
        self.spent = {"decode": 0.0, "encode": 0.0}
        self._time(hound.processor.video_processor, "_read", "decode")
        self._time(hound.model.model.video_tower, "features", "encode")

    def _time(self, owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronise()
            start = time.perf_counter()
            result = original(*args, **kwargs)
            synchronise()
            self.spent[label] += time.perf_counter() - start
            return result

        setattr(owner, name, timed)

    def read(self) -> dict[str, float]:
        """The seconds, which begin anew."""
        spent = dict(self.spent)
        self.spent = dict.fromkeys(self.spent, 0.0)
        return spent


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def converse(hound: HoundModel, clip: str, clock: Clock) -> list[tuple[str, dict[str, float]]]:
    """Ask every question about one clip; each answer with the seconds that it took."""
    history: list[tuple[str, str]] = []
    rows = []
    for question in QUESTIONS:
        clock.read()
        start = time.perf_counter()
        answer = hound.chat(question, video=clip, history=history, temperature=0, max_new_tokens=4)
        synchronise()
        rows.append((answer, {**clock.read(), "total": time.perf_counter() - start}))
        history.append((question, answer))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--tiny", action="store_true", help="a tiny tower, to try the script")
    chosen = parser.parse_args()
    hound = build(chosen.tiny, chosen.device, getattr(torch, chosen.dtype))
    clock = Clock(hound)
    machine = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else platform.processor()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    print(f"{machine or platform.machine()}, {threads}, {chosen.dtype}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"clip of {chosen.seconds} s, {chosen.height}p, H.264; {hound.processor.tokens_per_video} visual tokens\n")
    with tempfile.TemporaryDirectory() as folder:
        clip = str(Path(folder) / "clip.mp4")
        write_clip(Path(clip), chosen.seconds, chosen.height)
        hound.chat("Warm up", temperature=0, max_new_tokens=1)
        without = converse(hound, clip, clock)
        hound.processor.pixel_cache, hound.model.model.feature_cache = PixelCache(), FeatureCache()
        kept = converse(hound, clip, clock)
    print("| question | memory | decode s | encode s | total s |\n|---|---|---|---|---|")
    for name, rows in (("off", without), ("on", kept)):
        for number, (_, spent) in enumerate(rows, 1):
            print(f"| {number} | {name} | {spent['decode']:.3f} | {spent['encode']:.3f} | {spent['total']:.3f} |")
    start = time.perf_counter()
    fingerprint((hound.model.model.video_tower, hound.model.model.multi_modal_projector))
    print(f"\nchecksum of the tower's weights, once a question: {time.perf_counter() - start:.3f} s")
    print(f"answers equal: {[answer for answer, _ in without] == [answer for answer, _ in kept]}")
    print(f"cached: {hound.processor.pixel_cache.size >> 20} MiB of pixels, ", end="")
    print(f"{hound.model.model.feature_cache.size >> 20} MiB of features (hidden size 256; 4096 in the 7B model)")


if __name__ == "__main__":
    main()
