"""``vllm serve`` of a checkpoint in the original layout, as it is downloaded, with an adapter beside it.

Answers are those that our own path gave in the environment that trains.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from hound_plugin.model.checkpoint_conversion import convert
from tests.goldens import ROOT
from tests.vllm import recording
from tests.vllm.conftest import Demo
from tests.vllm.recording import ADAPTER, TOKENS, asked
from tests.vllm.serving import NAME, Server
from tests.vllm.test_adapters import adapter_on, with_tower

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif("HOUND_DEMO" in os.environ, reason="the recordings are of the untrained demo"),
]
ADAPTED = "adapted"
KINDS = {".mp4": "video", "": "video", ".png": "image", ".jpg": "image"}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server may read."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("media", "frames"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def original(demo: Demo, media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("original")
    convert(str(demo.model), folder / "model", to="original", tokenizer=str(demo.folder / "tokenizer"), progress=False)
    assert json.loads((folder / "model" / "config.json").read_text())["model_type"] == "llava_llama"
    adapter = adapter_on(demo.model, folder / "adapter")
    more = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"{ADAPTED}={adapter}")
    with Server(folder / "model", media, folder / "log", *more) as running:
        yield running


def _client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", timeout=300, max_retries=0)


def _part(url: str, kind: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def _ask(server: Server, parts: list[dict[str, Any]], model: str = NAME, **settings: Any) -> Any:
    given: dict[str, Any] = {"temperature": 0, "max_tokens": TOKENS, "extra_body": {"return_token_ids": True}}
    messages: Any = [{"role": "user", "content": parts}]
    return _client(server).chat.completions.create(model=model, messages=messages, **{**given, **settings})


def _ids(reply: Any) -> list[list[int]]:
    return [choice.model_extra["token_ids"] for choice in reply.choices]


def _shown(media: Path, question: str, medium: str | None) -> list[dict[str, Any]]:
    text = {"type": "text", "text": question}
    return [text] if medium is None else [_part(f"file://{media / medium}", KINDS[Path(medium).suffix]), text]


@pytest.mark.parametrize("model", [NAME, ADAPTED])
def test_answers_with_and_without_the_adapter(model: str, original: Server, media: Path) -> None:
    recorded = [row["answer"] for row in json.loads(recording.ANSWERS.read_text())["rows"]]
    adapted = json.loads((ADAPTER / "answers.json").read_text())
    assert sum(map(list.__ne__, adapted, recorded)) > len(recorded) / 2
    answers = [_ids(_ask(original, _shown(media, *item), model))[0] for item in asked()]
    assert answers == (adapted if model == ADAPTED else recorded)


def test_every_way_to_show_media(original: Server, media: Path, ours: Any) -> None:
    clip, image = media / "media" / "clip_short.mp4", media / "media" / "img_wide.jpg"
    question = {"type": "text", "text": "What moves?"}
    recorded = {
        (row["question"], row["media"]): row["answer"] for row in json.loads(recording.ANSWERS.read_text())["rows"]
    }
    data = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
    picture = f"data:image/jpeg;base64,{base64.b64encode(image.read_bytes()).decode()}"
    (answer,) = _ids(_ask(original, [_part(data, "video"), question]))
    assert answer == recorded["What moves?", "media/clip_short.mp4"]
    (answer,) = _ids(_ask(original, [_part(picture, "image"), question]))
    assert answer == recorded["What moves?", "media/img_wide.jpg"]
    other = media / "media" / "clip_portrait.mp4"
    parts = [_part(f"file://{clip}", "video"), _part(f"file://{other}", "video"), _part(picture, "image"), question]
    messages = [{"role": "user", "content": [
        {"type": "video", "path": str(clip)}, {"type": "video", "path": str(other)},
        {"type": "image", "path": str(image)}, question,
    ]}]  # fmt: skip
    expected = ours.processor.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)
    reply = _ask(original, parts)
    assert reply.model_extra["prompt_token_ids"] == list(expected["input_ids"][0])
    several = _ids(_ask(original, [_part(data, "video"), question], n=3, temperature=1.5, seed=1))
    assert len({tuple(answer) for answer in several}) == 3


def _load(server: Server, name: str, folder: Path) -> tuple[int, str]:
    body = json.dumps({"lora_name": name, "lora_path": str(folder)}).encode()
    request = urllib.request.Request(
        f"{server.url}/load_lora_adapter", body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_an_adapter_that_would_be_applied_in_part_is_refused_and_the_server_goes_on(
    original: Server, demo: Demo, media: Path, tmp_path: Path
) -> None:
    status, text = _load(original, "towers", with_tower(demo.model, tmp_path / "towers"))
    assert status >= 400
    assert "vLLM applies no other, and 2 of its 30 tensors are elsewhere (video_tower)" in text
    with pytest.raises(openai.NotFoundError):
        _ask(original, _shown(media, "What moves?", None), "towers")
    status, _ = _load(original, "again", adapter_on(demo.model, tmp_path / "again"))
    assert status == 200
    (answer,) = _ids(_ask(original, _shown(media, *asked()[0]), "again"))
    assert answer == json.loads((ADAPTER / "answers.json").read_text())[0]
