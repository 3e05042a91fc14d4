"""``vllm serve``: what a client may show, bad media among good, and a server that is killed under a running job."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import openai
import pytest
import yaml

from hound_plugin import cli
from hound_plugin.model.generation import cut_roles
from hound_plugin.records.jsonl import read_objects
from tests.vllm.conftest import Demo
from tests.vllm.serving import NAME, Server

ANSWER = 12  # tokens
SETTINGS: dict[str, Any] = {"temperature": 0, "max_tokens": ANSWER, "extra_body": {"return_token_ids": True}}
QUESTION = {"type": "text", "text": "What moves?"}


def _client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", timeout=300, max_retries=0)


def _shown(*urls: str) -> list[dict[str, Any]]:
    return [*({"type": "video_url", "video_url": {"url": url}} for url in urls), QUESTION]


def _ask(server: Server, content: Any, **settings: Any) -> list[int]:
    reply = _client(server).chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": content}], **{**SETTINGS, **settings}
    )
    return _tokens(reply)


def _tokens(reply: Any) -> list[int]:
    """The answer's tokens. A model with random weights says bytes of no character, which texts may lose on the way."""
    ids: list[int] = reply.choices[0].model_extra["token_ids"]
    return ids


def _text(ours: Any, tokens: list[int]) -> str:
    return cut_roles(ours.processor.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _refusal(server: Server, content: Any) -> str:
    with pytest.raises(openai.BadRequestError) as caught:
        _ask(server, content)
    return str(caught.value)


@pytest.fixture(scope="module")
def clip(demo: Demo) -> str:
    return next(demo.clip(row) for row in demo.rows if "video" in row)


@pytest.fixture(scope="module")
def frames(demo: Demo, clip: str) -> Path:
    """The clip as a folder of frames, in the server's folder."""
    folder = demo.folder / "clips" / "as_frames"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with av.open(clip) as file:
        for number, frame in enumerate(file.decode(video=0), 1):
            frame.to_image().save(folder / f"frame_{number}.png")
    return folder


def test_every_way_to_show_a_clip(server: Server, ours: Any, clip: str, frames: Path) -> None:
    data = base64.b64encode(Path(clip).read_bytes()).decode()
    settings = {"do_sample": False, "max_new_tokens": ANSWER}
    for url, shown in {
        clip: clip,
        f"file://{clip}": clip,
        f"data:video/mp4;base64,{data}": clip,
        f"file://{frames}": str(frames),
        f"file://{clip}#t=0,0.4": f"{clip}#t=0,0.4",
    }.items():
        answer = _text(ours, _ask(server, _shown(url)))
        assert answer == ours.chat(QUESTION["text"], video=shown, **settings), url[:80]


def test_what_a_server_refuses(server: Server, demo: Demo, clip: str, tmp_path: Path) -> None:
    (tmp_path / "outside.mp4").write_bytes(Path(clip).read_bytes())
    inside = demo.folder / "clips" / "link.mp4"
    inside.unlink(missing_ok=True)
    inside.symlink_to(tmp_path / "outside.mp4")
    for url in (str(tmp_path / "outside.mp4"), f"file://{tmp_path}/outside.mp4", str(inside), f"{clip}.gone"):
        assert "there is none here" in _refusal(server, _shown(url))
    inside.unlink()
    damaged = base64.b64encode(b"no video").decode()
    assert "not a video" in _refusal(server, _shown(f"data:video/mp4;base64,{damaged}"))
    assert "data:video/FORMAT" in _refusal(server, _shown("data:video/jpeg;base64,AAAA"))
    assert "Expected one <video>" in _refusal(server, "<video>\nWhat moves?")
    assert _ask(server, _shown(clip))


def test_parameters_that_look_at_the_prompt_leave_the_engine_alive(server: Server, clip: str) -> None:
    """The ids of placeholders lie above the model's vocabulary, where penalties and log-probabilities look them up."""
    for body in ({"prompt_logprobs": 1}, {"repetition_penalty": 1.3}, {"logit_bias": {"5": 1.0}}):
        asked = {**SETTINGS, "extra_body": {**SETTINGS["extra_body"], **body}}
        assert _ask(server, _shown(clip), **asked), body
    assert _ask(server, _shown(clip), frequency_penalty=0.5)


def test_several_answers_of_one_request(server: Server, clip: str) -> None:
    reply = _client(server).chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": _shown(clip)}],  # type: ignore[misc,list-item]
        n=6,
        temperature=2.0,
        max_tokens=ANSWER,
        seed=3,
    )
    assert len({choice.message.content for choice in reply.choices}) > 1
    assert len(reply.choices) == 6


def test_sixty_four_at_once_with_bad_media_among_them(server: Server, demo: Demo, ours: Any) -> None:
    """The good ones get the answers that they get alone; each bad one a reason, and no other."""
    asked = [item for item in demo.asked if item[1].endswith(".mp4")]
    asked = [asked[number % len(asked)] for number in range(64)]
    bad = {number: f"data:video/mp4;base64,{base64.b64encode(b'bad' * number).decode()}" for number in range(5, 64, 10)}

    async def ask_all() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none", timeout=500, max_retries=0) as client:

            def ask(number: int) -> Any:
                question, path = asked[number]
                text = {"type": "text", "text": question.partition("\n")[2]}
                shown = {"type": "video_url", "video_url": {"url": bad.get(number, f"file://{path}")}}
                messages: Any = [{"role": "user", "content": [shown, text]}]
                return client.chat.completions.create(model=NAME, messages=messages, **SETTINGS)

            return await asyncio.gather(*map(ask, range(64)), return_exceptions=True)

    replies = asyncio.run(ask_all())
    questions, clips = zip(*asked, strict=True)
    expected = ours.chat_many(list(questions), list(clips), do_sample=False, max_new_tokens=ANSWER)
    for number, reply in enumerate(replies):
        if number in bad:
            assert isinstance(reply, openai.BadRequestError), reply
            assert "not a video" in str(reply)
        else:
            assert _text(ours, _tokens(reply)) == expected[number]


def test_eval_and_captions_by_a_server(server: Server, demo: Demo, ours: Any, tmp_path: Path) -> None:
    rows, questions = demo.rows[:24], tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predict = {"backend": "openai", "base_url": server.url, "max_new_tokens": ANSWER, "concurrency": 8}
    values = {
        "suite": str(questions), "media_dir": str(demo.folder / "clips"), "name": "served", "model": NAME,
        "folder": str(tmp_path / "runs"), "predict": predict, "judge": {"backend": "lexical"},
    }  # fmt: skip
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["eval", "predict", str(tmp_path / "eval.yaml")]) == 0
    predictions = read_objects(next((tmp_path / "runs").rglob("predictions.jsonl")))
    texts = {str(row["id"]): str(row["text"]) for row in predictions}
    asked = [(row["prompt"], demo.clip(row)) for row in rows]
    expected = ours.chat_many(*map(list, zip(*asked, strict=True)), do_sample=False, max_new_tokens=ANSWER)
    answers = [cut_roles(texts[str(row["id"])]).strip() for row in rows]
    plain = [number for number, text in enumerate(expected) if "\ufffd" not in text]
    assert [answers[number] for number in plain] == [expected[number] for number in plain]
    assert len(plain) > 3

    out, before = tmp_path / "captions.jsonl", _answered(server)
    clips = sorted({clip for _, clip in asked})[:6]
    command = ["caption", *clips, "--model", NAME, "--base-url", server.url, "--out", str(out)]
    command += ["--max-new-tokens", str(ANSWER)]
    assert cli.main(command) == 0
    assert [row["id"] for row in read_objects(out)] == [row["id"] for row in read_objects(out) if row["caption"]]
    assert len(list(read_objects(out))) == _answered(server) - before == len(clips)
    assert cli.main(command) == 0
    assert _answered(server) - before == len(clips), "captions that are there were asked for again"


def test_a_server_that_is_killed_under_a_running_job(server: Server, demo: Demo, tmp_path: Path) -> None:
    """`hound reward sample` goes on when the server is back: nothing is lost, no answer that came is asked again."""
    rows = [row for row in demo.rows if "video" in row][:40]
    questions = tmp_path / "questions.jsonl"
    keys = {"id": "id", "video": "video", "prompt": "prompt", "answer": "reference"}
    questions.write_text("".join(json.dumps({new: row[old] for old, new in keys.items()}) + "\n" for row in rows))
    sample = {
        "backend": "openai", "model": NAME, "base_url": server.url, "n": 3, "max_new_tokens": ANSWER,
        "concurrency": 2, "tries": 60,
    }  # fmt: skip
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "folder": str(tmp_path / "run"),
                "questions": str(questions),
                "media_dir": str(demo.folder / "clips"),
                "sample": sample,
                "judge": {"backend": "lexical"},
            }
        )
    )
    before = _answered(server)
    command = [sys.executable, "-m", "hound_plugin.cli", "reward", "sample", str(recipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        while _answered(server) < before + 20:
            assert job.poll() is None, job.communicate()[0]
            time.sleep(0.05)
        server.kill()
        assert _answered(server) < before + 3 * len(rows), "the job was done before the server was killed"
        server.start()
        server.wait()
        output, _ = job.communicate(timeout=500)
    assert job.returncode == 0, output
    answers = [json.loads(line) for line in (tmp_path / "run" / "candidates.jsonl").read_text().splitlines()]
    assert sorted((row["id"], row["candidate"]) for row in answers) == sorted(
        (row["id"], number) for row in rows for number in range(3)
    )
    # an answer that was on its way when the server died did not come, and is asked for again
    assert 0 <= _answered(server) - before - len(answers) <= sample["concurrency"], output
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "0 answers added" in done.stdout, done.stdout + done.stderr


def _answered(server: Server) -> int:
    return len(re.findall(r"POST /v1/chat/completions HTTP/1.1\" 200", server.log.read_text(errors="replace")))
