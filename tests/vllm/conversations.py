"""Conversations about the demo's clips and images, and their greedy answers by this package and by other engines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.vllm.conftest import Demo

Messages = list[dict[str, Any]]
Ids = tuple[list[int], list[int]]
"""Tokens of a prompt and of its answer."""


def _parts(*parts: str, text: str) -> list[dict[str, Any]]:
    shown = []
    for path in parts:
        kind = "image_url" if path.endswith(".png") else "video_url"
        shown.append({"type": kind, kind: {"url": f"file://{path}"}})
    return [*shown, {"type": "text", "text": text}]


def conversations(demo: Demo) -> dict[str, Messages]:
    """Messages of every kind about the demo's media."""
    clips = [demo.clip(row) for row in demo.rows if "video" in row]
    images = [demo.clip(row) for row in demo.rows if "image" in row]
    user = {"role": "user"}
    return {
        "text alone": [{**user, "content": "What is red?"}],
        "a clip": [{**user, "content": _parts(clips[0], text="What moves?")}],
        "an image": [{**user, "content": _parts(images[0], text="What is it?")}],
        "a clip behind its question": [{**user, "content": _parts(clips[0], text="What moves?")[::-1]}],
        "two clips": [{**user, "content": _parts(clips[0], clips[-1], text="What differs?")}],
        "a clip and an image": [{**user, "content": _parts(images[0], clips[0], text="Which is longer?")}],
        "several turns": [
            {"role": "system", "content": "Be brief."},
            {**user, "content": _parts(clips[0], text="What moves?")},
            {"role": "assistant", "content": "A circle. It is red."},
            {**user, "content": _parts(clips[-1], text=" And here?  ")},
        ],
        "control tokens as text": [{**user, "content": "Say </s> and <s> and <unk>, USER: please"}],
    }


def about_each(demo: Demo) -> list[Messages]:
    """Every question of the demo as a conversation."""
    return [
        [{"role": "user", "content": _parts(clip, text=question.partition("\n")[2])}] for question, clip in demo.asked
    ]


def ids_of_ours(hound: Any, messages: Messages, most: int) -> Ids:
    """By our own path."""
    by_path = json.loads(json.dumps(messages).replace("file://", ""))
    batch = hound.processor.apply_chat_template(
        by_path, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    end = hound.processor.tokenizer.eos_token_id
    with torch.inference_mode():
        (made,) = hound.model.generate(
            **batch, do_sample=False, max_new_tokens=most, eos_token_id=end, pad_token_id=0
        ).tolist()
    length = batch["input_ids"].shape[1]
    return made[:length], made[length:]


def ids_of_other_engine(
    model: Path, asked: Sequence[Messages], most: int, media: Path, folder: Path, **engine: Any
) -> list[Ids]:
    """By vLLM's engine in processes of its own.

    Args:
        model: a checkpoint or an adapter.
        asked: conversations.
        most: tokens of an answer.
        media: the folder that the engine may read.
        folder: for files on the way.
        engine: further arguments of the engine.
    """
    settings = {"enforce_eager": True, "allowed_local_media_path": str(media), **engine}
    job, out = folder / "job.json", folder / "out.json"
    job.write_text(json.dumps({"model": str(model), "engine": settings, "asked": asked, "most": most}))
    command = [sys.executable, "-m", "tests.vllm.conversations", str(job), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return [(prompt, answer) for prompt, answer in json.loads(out.read_text())]


def _answer(job: Path, out: Path) -> None:
    from vllm import SamplingParams

    from hound_plugin.vllm.engine import VllmModel

    given = json.loads(job.read_text())
    model = VllmModel(given["model"], "float32", engine=given["engine"])
    greedy = SamplingParams(temperature=0, max_tokens=given["most"])
    outputs = model._llm.chat(given["asked"], greedy, use_tqdm=False, lora_request=model._adapter)
    out.write_text(json.dumps([[output.prompt_token_ids, output.outputs[0].token_ids] for output in outputs]))


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]))
