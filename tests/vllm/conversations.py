"""Conversations about the demo's clips and images, and their greedy answers by this package and by other engines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hound_plugin.processing.prompt import Turn, encode_conversation
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


def log_probs_of(engine: Any, items: Sequence[tuple[str, str, str]]) -> list[float]:
    """Summed log-probabilities of given answers by vLLM's engine; ``items`` as ``HoundModel.log_probs`` takes them."""
    from vllm import SamplingParams

    requests, lengths = [], []
    for (question, answer, clip), shown in zip(items, engine._read([clip for *_, clip in items]), strict=True):
        prompt = engine._prompt(question, clip, shown, 1)
        whole = f"<{prompt.kind}>\n{question.partition(chr(10))[2]}"
        ((source, target),) = encode_conversation(
            engine.processor.tokenizer, [Turn(whole, answer)], engine.processor.system
        )
        assert source == prompt.ids
        requests.append({"prompt_token_ids": source + target, "multi_modal_data": {prompt.kind: [prompt.media]}})
        lengths.append(len(target))
    outputs = engine._llm.generate(requests, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    sums = []
    for output, length in zip(outputs, lengths, strict=True):
        ids, steps = output.prompt_token_ids[-length:], output.prompt_logprobs[-length:]
        sums.append(sum(step[token].logprob for token, step in zip(ids, steps, strict=True)))
    return sums


@dataclass(frozen=True)
class OtherEngine:
    """vLLM's engine in processes of its own, for one batch of questions.

    Attributes:
        model: a checkpoint or an adapter.
        media: the folder that it may read.
        folder: for files on the way.
        dtype: of the engine.
    """

    model: Path
    media: Path
    folder: Path
    dtype: str = "float32"

    def answers(
        self, asked: Sequence[Messages], most: int, items: Sequence[tuple[str, str, str]] = (), **engine: Any
    ) -> tuple[list[Ids], list[float]]:
        """Greedy answers of at most ``most`` tokens, and log-probabilities of the answers of ``items``."""
        settings = {"enforce_eager": True, "allowed_local_media_path": str(self.media), **engine}
        job, out = self.folder / "job.json", self.folder / "out.json"
        values = {"model": str(self.model), "dtype": self.dtype, "engine": settings, "asked": asked, "most": most}
        job.write_text(json.dumps({**values, "items": items}))
        command = [sys.executable, "-m", "tests.vllm.conversations", str(job), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        ids, log_probs = json.loads(out.read_text())
        return [(prompt, answer) for prompt, answer in ids], log_probs


def _answer(job: Path, out: Path) -> None:
    from vllm import SamplingParams

    from hound_plugin.vllm.engine import VllmModel

    given = json.loads(job.read_text())
    model = VllmModel(given["model"], given["dtype"], engine=given["engine"])
    greedy = SamplingParams(temperature=0, max_tokens=given["most"])
    outputs = model._llm.chat(given["asked"], greedy, use_tqdm=False, lora_request=model._adapter)
    ids = [[output.prompt_token_ids, output.outputs[0].token_ids] for output in outputs]
    out.write_text(json.dumps([ids, log_probs_of(model, given["items"]) if given["items"] else []]))


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]))
