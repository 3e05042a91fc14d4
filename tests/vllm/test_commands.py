"""``hound reward sample``, ``hound eval`` and ``hound caption`` by vLLM's engine, and the engine's own answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from hound_plugin import cli, own_model
from hound_plugin.errors import CheckpointError, HoundError, MediaError, SettingsError
from tests.vllm.conftest import Demo

ANSWER = 12  # tokens


@pytest.fixture
def one_engine(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands take the engine that is running: a start takes half a minute, and its test is a long one."""
    monkeypatch.setattr(own_model, "_in_vllm", lambda settings: engine)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _questions(demo: Demo, path: Path, count: int) -> list[dict[str, Any]]:
    keys = ("id", "video", "image", "prompt")
    rows = [{**{key: row[key] for key in keys if key in row}, "reference": row["answer"]} for row in demo.rows[:count]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _recipe(demo: Demo, folder: Path, **sample: Any) -> str:
    values = {
        "folder": str(folder / "run"), "questions": str(folder / "questions.jsonl"),
        "media_dir": str(demo.folder / "clips"), "judge": {"backend": "lexical"},
        "sample": {"backend": "vllm", "model": str(demo.model), "n": 6, "max_new_tokens": ANSWER, **sample},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "recipe.yaml")


def test_six_answers_share_their_prompt(demo: Demo, engine: Any) -> None:
    asked = demo.asked[:8]
    seeds = [[number * 10 + draw for draw in range(6)] for number in range(len(asked))]
    settings = {"temperature": 1.5, "top_p": 0.95, "max_new_tokens": ANSWER}
    hits, looked_for = engine.prefix_cache_hits()
    together = engine.answer(asked, seeds, **settings)
    after = engine.prefix_cache_hits()
    share = (after[0] - hits) / (after[1] - looked_for)
    assert share > 0.7, f"{share:.0%} of the prompts' tokens were in the prefix cache"
    assert all(len(own) == 6 for own in together)
    assert sum(len({answer.text for answer in own}) > 1 for own in together) > 4
    alone = [engine.answer([item], [[own[2]]], **settings)[0][0].text for item, own in zip(asked, seeds, strict=True)]
    assert [own[2].text for own in together] == alone


ENDS = """
import sys, tempfile, time

def main():
    from hound_plugin.vllm.engine import VllmModel
    engine = VllmModel(sys.argv[1], "float32", engine={"enforce_eager": True})
    ((answer,),) = engine.answer([("What is this?", None)], [[0]], temperature=0.0, max_new_tokens=4)
    print("tokens", answer.tokens, flush=True)
    time.sleep(5)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory():  # from here on, what is left to `weakref` comes after `multiprocessing`
        main()
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_process_with_an_engine_of_its_own_ends(demo: Demo, tmp_path: Path, is_killed: bool) -> None:
    script = tmp_path / "answer.py"
    script.write_text(ENDS, encoding="utf-8")
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with subprocess.Popen(
        [sys.executable, str(script), str(demo.model)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("tokens") for line in iter(process.stdout.readline, ""))
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("EngineCore" in " ".join(child.cmdline()) for child in children)
        try:
            if is_killed:
                process.kill()
            assert process.wait(60) == (-signal.SIGKILL if is_killed else 0)
            assert psutil.wait_procs(children, timeout=30)[1] == []
        finally:
            process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def test_more_questions_than_one_step_takes(demo: Demo, engine: Any) -> None:
    """vLLM would split a prompt between two steps, and its CPU engine cannot take back a draw."""
    settings = {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": ANSWER}
    answers = engine.answer(demo.asked, [[number] for number in range(len(demo.asked))], **settings)
    last = len(demo.asked) - 1
    (alone,) = engine.answer([demo.asked[last]], [[last]], **settings)
    assert answers[last] == alone


def test_a_bad_clip_spoils_no_other(demo: Demo, engine: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    asked = [demo.asked[0], ("<video>\nWhat?", str(tmp_path / "bad.mp4")), demo.asked[1], ("word " * 3000, None)]
    first, bad, second, long = engine.answer(asked, [[0]] * 4, temperature=0.0, max_new_tokens=ANSWER)
    assert isinstance(bad, MediaError)
    assert "no longer fits" in str(long)
    good = engine.answer([demo.asked[0], demo.asked[1]], [[0]] * 2, temperature=0.0, max_new_tokens=ANSWER)
    assert [first[0].text, second[0].text] == [own[0].text for own in good]


def test_reward_sample(demo: Demo, tmp_path: Path, one_engine: None) -> None:
    asked = _questions(demo, tmp_path / "questions.jsonl", 10)
    recipe = _recipe(demo, tmp_path)
    assert cli.main(["reward", "sample", recipe]) == 0
    answers = _rows(tmp_path / "run" / "candidates.jsonl")
    assert sorted((row["id"], row["candidate"]) for row in answers) == sorted(
        (row["id"], number) for row in asked for number in range(6)
    )
    file = tmp_path / "run" / "candidates.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:17]))  # as after a kill
    recipe = _recipe(demo, tmp_path, vllm={"max_num_seqs": 64})  # goes on, as it decides nothing but the speed
    assert cli.main(["reward", "sample", recipe]) == 0
    assert sorted(file.read_text().splitlines(keepends=True)) == sorted(lines)


@pytest.mark.long
def test_a_killed_run_goes_on(demo: Demo, tmp_path: Path, one_engine: None) -> None:
    """Each command starts an engine of its own; the answers are those of a run that nothing disturbed."""
    whole, recipe, rows = _twice(demo, tmp_path, 5)
    written = tmp_path / "own" / "run" / "candidates.jsonl"
    log = tmp_path / "log"  # a pipe that nobody reads would fill
    with (
        log.open("wb") as out,
        subprocess.Popen(_sample(recipe), stdout=out, stderr=out, start_new_session=True) as job,
    ):
        while not written.exists():
            assert job.poll() is None, log.read_text(errors="replace")[-4000:]
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGKILL)
    kept = written.read_bytes().count(b"\n")  # what follows the last one was cut off
    assert 0 < kept < rows, "nothing was left to do"
    done = subprocess.run(_sample(recipe), capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{rows - kept} answers added" in done.stdout
    assert _rows(written) == _rows(whole)


@pytest.mark.long
def test_engines_of_ray_actors(demo: Demo, tmp_path: Path, one_engine: None) -> None:
    """`--engine ray` with `backend: vllm`: one engine an actor, and the answers of this process."""
    pytest.importorskip("ray", reason="Ray is not installed here (extra `ray`)")
    whole, recipe, rows = _twice(demo, tmp_path, 2)
    settings = ["--engine", "ray", "engine.actors=1", "engine.batch=1", "engine.object_store=0.2"]
    done = subprocess.run([*_sample(recipe), *settings], capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{rows} answers added" in done.stdout
    assert _rows(tmp_path / "own" / "run" / "candidates.jsonl") == _rows(whole)


def _sample(recipe: str) -> list[str]:
    return [sys.executable, "-m", "hound_plugin.cli", "reward", "sample", recipe]


def _twice(demo: Demo, folder: Path, turns: int) -> tuple[Path, str, int]:
    """Answers by the engine that is running, a recipe for the same ones by another engine, and how many they are."""
    asked = _questions(demo, folder / "once.jsonl", 80)
    rows = [{**row, "id": f"{row['id']}/{turn}"} for turn in range(turns) for row in asked]
    recipes = []
    for name in ("whole", "own"):
        (folder / name).mkdir()
        (folder / name / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipes.append(_recipe(demo, folder / name, n=3, dtype="float32", vllm={"enforce_eager": True}))
    assert cli.main(["reward", "sample", recipes[0]]) == 0
    return folder / "whole" / "run" / "candidates.jsonl", recipes[1], 3 * len(rows)


def test_what_is_done_is_kept_when_a_clip_is_bad(
    demo: Demo, tmp_path: Path, one_engine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = _questions(demo, tmp_path / "questions.jsonl", 6)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write(json.dumps({"id": "bad", "video": str(bad), "prompt": "<video>\nWhat?", "reference": "A"}) + "\n")
    assert cli.main(["reward", "sample", _recipe(demo, tmp_path)]) != 0
    assert "bad.mp4" in capsys.readouterr().err
    kept = {row["id"] for row in _rows(tmp_path / "run" / "candidates.jsonl")}
    assert kept == {row["id"] for row in asked}


def test_eval_and_caption_answer_as_our_own_model(demo: Demo, ours: Any, tmp_path: Path, one_engine: None) -> None:
    asked = _questions(demo, tmp_path / "questions.jsonl", 16)
    for row, whole in zip(asked, demo.rows, strict=False):
        row["answer"] = whole["answer"]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    values = {
        "suite": str(tmp_path / "questions.jsonl"), "media_dir": str(demo.folder / "clips"), "name": "vllm",
        "folder": str(tmp_path / "runs"), "model": str(demo.model),
        "predict": {"backend": "vllm", "max_new_tokens": ANSWER}, "judge": {"backend": "lexical"},
    }  # fmt: skip
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["eval", "predict", str(tmp_path / "eval.yaml")]) == 0
    predicted = {row["id"]: row for row in _rows(next((tmp_path / "runs").rglob("predictions.jsonl")))}
    questions, clips = [row["prompt"] for row in asked], [demo.clip(row) for row in asked]
    expected = ours.chat_many(questions, clips, do_sample=False, max_new_tokens=ANSWER)
    texts = [
        next(value for key, value in predicted[row["id"]].items() if key in ("prediction", "text", "pred"))
        for row in asked
    ]
    assert texts == expected
    out = tmp_path / "captions.jsonl"
    command = ["caption", clips[0], clips[-1], "--model", str(demo.model), "--out", str(out), "--backend", "vllm"]
    assert cli.main([*command, "--max-new-tokens", str(ANSWER)]) == 0
    assert all(row["caption"] for row in _rows(out))


def test_wrong_use_is_refused_before_anything_starts(demo: Demo) -> None:
    from hound_plugin.vllm.engine import VllmModel

    with pytest.raises(SettingsError, match="vllm: gpu_count: expected arguments of vLLM's engine"):
        VllmModel(str(demo.model), engine={"gpu_count": 2})
    with pytest.raises(SettingsError, match="num_frames: expected a multiple of 8"):
        VllmModel(str(demo.model), num_frames=3)
    with pytest.raises(CheckpointError, match="of another architecture"):
        VllmModel(str(Path(__file__).parents[1] / "golden" / "tokenizer"))


def test_the_host_is_not_needed() -> None:
    from importlib.util import find_spec

    assert find_spec("llamafactory") is None
    assert issubclass(MediaError, HoundError)


def test_vllm_finds_the_plugin() -> None:
    from importlib.metadata import entry_points

    from vllm.model_executor.models.registry import ModelRegistry
    from vllm.plugins import load_general_plugins

    from hound_plugin.vllm.plugin import ARCHITECTURE, register

    load_general_plugins()
    assert "llava_hound" in entry_points(group="vllm.general_plugins").names
    assert ARCHITECTURE in ModelRegistry.get_supported_archs()
    register()
