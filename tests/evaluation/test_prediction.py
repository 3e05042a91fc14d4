"""Predicting: every question once and in order, however the work is divided, stopped or repeated."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.errors import LedgerError, SettingsError
from hound_plugin.evaluation.items import Prediction, Question
from hound_plugin.evaluation.prediction import Progress, make_batches, predict_with_model, wait_for_others
from hound_plugin.evaluation.run_folder import PREDICTIONS, finish_predictions, freeze_questions, load_run
from hound_plugin.evaluation.shards import Shard, shard_of_process
from hound_plugin.evaluation.suites import read_suite
from hound_plugin.model.inference import load
from hound_plugin.records.run_folders import read_run
from tests.evaluation.stand_ins import QUESTIONS, rows, write_corpora, write_recipe, write_rows
from tests.goldens import DPO, ROOT, SFT
from tests.model.test_adapters import write_adapter
from tests.reward.test_host_server import host as host  # the host's API with the recorded model


def some_questions(number: int, per_clip: int = 3) -> list[Question]:
    return [
        Question(f"q{n}", "s", f"c{n // per_clip}", (f"c{n // per_clip}.mp4",), f"<video>\n{'x' * (n * 7 % 31)}?", "x?")
        for n in range(number)
    ]


class Echo:
    """Answers without a model: what it is asked is checked, not what it says."""

    identity: dict[str, Any] = {"model": "echo"}  # noqa: RUF012

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [question.id for question in questions]
        return [Prediction(question.id, f"answer to {question.id}") for question in questions]


def open_folder(folder: Path, questions: Sequence[Question]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    freeze_questions(folder, questions)
    return folder


# --- batches


@pytest.mark.parametrize(("number", "per_clip", "size"), [(1, 1, 4), (50, 3, 8), (50, 1, 8), (23, 7, 3), (12, 12, 5)])
def test_batches_have_every_question_once(number: int, per_clip: int, size: int) -> None:
    questions = some_questions(number, per_clip)
    batches = make_batches(questions, size)
    asked = [question.id for batch in batches for question in batch.questions]
    assert sorted(asked) == sorted(question.id for question in questions)
    assert all(1 <= len(batch.questions) <= size for batch in batches)
    if per_clip <= size:
        places = [{question.clip for question in batch.questions} for batch in batches]
        assert sum(map(len, places)) == len({question.clip for question in questions}), "each clip is in one batch"


def test_batches_are_of_similar_length_the_longest_first() -> None:
    batches = make_batches(some_questions(60, 1), 6)
    longest = [max(len(question.prompt) for question in batch.questions) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    spread = [longest[n] - min(len(q.prompt) for q in batch.questions) for n, batch in enumerate(batches)]
    assert max(spread) <= 4


# --- divided, stopped, repeated


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    questions = some_questions(40)
    one, two = open_folder(tmp_path / "one", questions), open_folder(tmp_path / "two", questions)
    predict_with_model(one, Echo(), 5, Shard())
    wait_for_others(one, Shard(), print)
    second = Echo()
    predict_with_model(two, second, 5, Shard(1, 2))
    assert not finish_predictions(two)
    first = Echo()
    predict_with_model(two, first, 5, Shard(0, 2))
    wait_for_others(two, Shard(0, 2), print)
    assert (one / PREDICTIONS).read_bytes() == (two / PREDICTIONS).read_bytes()
    assert not set(first.asked) & set(second.asked)
    assert [row["id"] for row in rows(one / PREDICTIONS)] == [question.id for question in questions]


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, some_questions(40))
    first = Echo(stop_after=15)
    with pytest.raises(KeyboardInterrupt):
        predict_with_model(folder, first, 5, Shard())
    with (folder / PREDICTIONS).open("ab") as file:
        file.write(b'{"id": "q39", "text": "ans')  # as a power cut may leave it
    second = Echo()
    predict_with_model(folder, second, 5, Shard())
    assert not set(first.asked) & set(second.asked)
    assert len(first.asked) + len(second.asked) == 40
    assert finish_predictions(folder)
    third = Echo()
    assert predict_with_model(folder, third, 5, Shard(0, 3))["added"] == 0
    assert third.asked == []


def test_a_second_command_waits_and_asks_nothing_twice(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, some_questions(40))
    second, said = Echo(), []

    def run() -> None:
        predict_with_model(folder, second, 5, Shard(), said.append)

    class First(Echo):
        """Begins the second command while it answers."""

        def predict(self, questions: Sequence[Question]) -> list[Prediction]:
            if not other.is_alive():
                other.start()
                while not said:
                    time.sleep(0.01)
            return super().predict(questions)

    other = threading.Thread(target=run, daemon=True)
    predict_with_model(folder, First(), 5, Shard())
    other.join(60)
    assert "another run is at `predict-0-of-1`" in said[0]
    assert second.asked == []
    assert len(rows(folder / PREDICTIONS)) == 40


SLOW = """
import sys, time
from pathlib import Path
from hound_plugin.evaluation.prediction import predict_with_model
from hound_plugin.evaluation.items import Prediction
from hound_plugin.evaluation.shards import Shard

class Slow:
    identity = {"model": "echo"}
    def predict(self, questions):
        time.sleep(0.03)
        return [Prediction(question.id, f"answer to {question.id}") for question in questions]

predict_with_model(Path(sys.argv[1]), Slow(), 2, Shard())
"""


def test_killed_in_the_middle(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, some_questions(200))
    with subprocess.Popen([sys.executable, "-c", SLOW, str(folder)]) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(load_run(folder).predictions) < 10:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = dict(load_run(folder).predictions)
    assert 10 <= len(before) < 200
    rest = Echo()
    predict_with_model(folder, rest, 2, Shard())
    assert not set(rest.asked) & set(before), "a question that has an answer is asked again"
    assert finish_predictions(folder)
    assert len(rows(folder / PREDICTIONS)) == 200


def test_a_batch_that_is_there_in_part_is_not_written_twice(tmp_path: Path) -> None:
    questions = some_questions(6)
    folder = open_folder(tmp_path, questions)
    write_rows(folder / PREDICTIONS, [Prediction("q1", "earlier").to_row()])
    predict_with_model(folder, Echo(), 6, Shard())
    assert [row["id"] for row in rows(folder / PREDICTIONS)].count("q1") == 1
    assert load_run(folder).predictions["q1"].text == "earlier"


def test_predictions_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, some_questions(4))
    predict_with_model(folder, Echo(), 2, Shard())
    other = Echo()
    other.identity = {"model": "parrot"}
    with pytest.raises(LedgerError, match=r"model was 'echo' and is 'parrot'.*another `name`"):
        predict_with_model(folder, other, 2, Shard())


def test_other_questions_are_refused(tmp_path: Path) -> None:
    questions = some_questions(4)
    folder = open_folder(tmp_path, questions)
    freeze_questions(folder, questions)
    with pytest.raises(LedgerError, match="1 are new, 0 gone, 0 changed, such as 'q4'"):
        freeze_questions(folder, some_questions(5))
    with pytest.raises(LedgerError, match="and the order"):
        freeze_questions(folder, questions[::-1])


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("x", "2"), ("-1", "2"), ("0", "")])
def test_odd_shards_are_refused(rank: str, size: str) -> None:
    with pytest.raises(SettingsError, match="RANK < WORLD_SIZE"):
        shard_of_process({"RANK": rank, "WORLD_SIZE": size})
    assert shard_of_process({"RANK": "1", "WORLD_SIZE": "3"}) == Shard(1, 3)
    assert shard_of_process({}) == Shard()


def test_progress_has_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    said: list[str] = []
    progress = Progress(7200, Shard(1, 4), said.append)
    for _ in range(3):
        now[0] += 6
        progress.add(6)
    assert said == ["predict (process 2 of 4): 12 of 7,200, 1 rows/s, 2 h 0 min left"]


# --- the real model


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about clips, folders of frames, lists of frames, an image and text; a cut and an absent clip."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(ROOT / "media", folder / "media")
    (folder / "media" / "cut.mp4").write_bytes((ROOT / "media" / "clip_long.mp4").read_bytes()[:2000])
    frames = sorted(str(path) for path in (ROOT / "frames" / "few3").iterdir())
    shown: list[tuple[str, dict[str, Any]]] = [
        ("short", {"video": "clip_short.mp4"}), ("long", {"video": "clip_long.mp4"}), ("list", {"video": frames}),
        ("folder", {"video": str(ROOT / "frames" / "few3")}), ("image", {"image": "img_wide.jpg"}), ("text", {}),
        ("cut", {"video": "cut.mp4"}), ("gone", {"video": "gone.mp4"}),
    ]  # fmt: skip
    values = [
        {"id": f"{name}_{n}", "prompt": text, "answer": "a dog", **media}
        for name, media in shown
        for n, text in enumerate(QUESTIONS[:2])
    ]
    write_rows(folder / "mixed.jsonl", values)
    return folder


def predict(folder: Path, mixed: Path, *more: str, **values: Any) -> int:
    values = {"suite": str(mixed / "mixed.jsonl"), "media_dir": str(mixed / "media"), **values}
    recipe = write_recipe(folder / "eval.yaml", **values)
    return cli.main(["eval", "predict", str(recipe), *more])


def test_answers_are_those_of_one_question_at_a_time(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(tmp_path, mixed) == 0
    run = load_run(tmp_path / "runs" / "tiny" / "mixed")
    assert list(run.predictions) == [question.id for question in run.questions]
    hound = load(str(SFT), device="cpu", dtype="float32")
    for question in run.questions:
        prediction = run.predictions[question.id]
        if question.id.startswith(("cut", "gone")):
            assert prediction.text is None
            assert question.media[0] in prediction.error
            continue
        image = question.shown if question.id.startswith("image") else None
        clip = None if image else question.shown
        assert prediction.text == hound.chat(question.question, clip, image, do_sample=False, max_new_tokens=6)
    cut = sum(row.is_cut for row in run.predictions.values())
    assert cut == sum(row.finish == "length" for row in run.predictions.values()) > 0
    output = capsys.readouterr()
    assert "12 of 16 answered, 16 in this run" in output.out
    assert f"warning: {cut} answers were cut at predict.max_new_tokens=6" in output.err
    assert "4 questions have no answer and count as unanswered (cut_0: " in output.err
    meta = read_run(run.folder)
    assert meta["counts"]["predict"]["sets"]["mixed"] == {
        "questions": 16, "answered": 12, "cut": cut, "unanswered": 4, "missing": 0,
    }  # fmt: skip
    before = (run.folder / PREDICTIONS).read_bytes()
    assert predict(tmp_path, mixed) == 0
    assert (run.folder / PREDICTIONS).read_bytes() == before
    assert cli.main(["eval", "predict", str(tmp_path / "eval.yaml"), f"model={DPO}"]) == 2
    assert "predictions of another model" in capsys.readouterr().err


def test_seeded_answers_do_not_depend_on_their_batch(mixed: Path, tmp_path: Path) -> None:
    texts = []
    for size in (1, 3):
        block = {"temperature": 1.0, "batch_size": size}
        assert predict(tmp_path, mixed, name=f"by_{size}", seed=5, predict=block) == 0
        texts.append([row["text"] for row in rows(tmp_path / "runs" / f"by_{size}" / "mixed" / PREDICTIONS)])
    assert texts[0] == texts[1]
    assert len(set(filter(None, texts[0]))) > 6


def test_a_server_answers(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    values = [
        {"id": f"{clip}_{n}", "video": f"{clip}.mp4", "prompt": text, "answer": "a dog"}
        for clip in ("clip_short", "clip_long", "clip_gone")
        for n, text in enumerate(QUESTIONS[:2])
    ]
    file = write_rows(tmp_path / "some.jsonl", values)
    texts = {}
    for show in ("video_url", "frames"):
        block = {"backend": "openai", "base_url": host, "show": show, "device": None, "tries": 2}
        recipe = write_recipe(
            tmp_path / f"{show}.yaml",
            suite=str(file),
            media_dir=str(ROOT / "media"),
            model="tiny",
            name=show,
            predict=block,
        )
        assert cli.main(["eval", "predict", str(recipe)]) == 0
        run = load_run(tmp_path / "runs" / show / "some")
        texts[show] = {name: row.text for name, row in run.predictions.items()}
        assert read_run(run.folder)["counts"]["predict"]["usage"]["answers"] >= 4
        assert run.predictions["clip_gone_0"].text is None
        assert {row.finish for row in run.predictions.values()} <= {"stop", "length", ""}
        assert any(row.is_cut for row in run.predictions.values())
    hound = load(str(SFT), device="cpu", dtype="float32")
    expected = {
        row["id"]: hound.chat(row["prompt"], str(ROOT / "media" / row["video"]), do_sample=False, max_new_tokens=6)
        for row in values
        if "gone" not in row["id"]
    }
    assert {name: texts["video_url"][name] for name in expected} == expected
    assert all(texts["frames"][name] for name in expected)


def test_a_file_of_predictions(tmp_path: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [{"id": f"short_{n}", "pred": "left"} for n in range(2)] + [{"id": "unknown", "pred": "right"}]
    answers = write_rows(tmp_path / "theirs.jsonl", given)
    block = {"predict": {"backend": "given", "answers": str(answers)}, "model": "theirs"}
    assert predict(tmp_path, mixed, **block) == 0
    run = load_run(tmp_path / "runs" / "tiny" / "mixed")
    assert len(run.predictions) == 16
    assert run.predictions["short_1"].text == "left"
    output = capsys.readouterr()
    assert "1 of 3 rows are about no question of the suite" in output.out
    assert "14 of 16 questions have no row" in output.err
    write_rows(answers, [*given[:1], {"id": "short_1", "pred": "up"}])
    assert predict(tmp_path, mixed, **block) == 2
    assert "predictions of another model" in capsys.readouterr().err


def test_a_clip_that_was_replaced_is_refused_at_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real model answers; then a clip of the same path shows something else."""
    media = tmp_path / "media"
    shutil.copytree(ROOT / "frames" / "few3", media / "frames")
    shutil.copy(ROOT / "media" / "clip_short.mp4", media)
    shutil.copy(ROOT / "media" / "img_wide.jpg", media)
    (media / "cut.mp4").write_bytes((ROOT / "media" / "clip_long.mp4").read_bytes()[:2000])
    shown: dict[str, dict[str, Any]] = {
        "short": {"video": "clip_short.mp4"}, "part": {"video": "clip_short.mp4", "start": 0, "end": 0.5},
        "frames": {"video": "frames"}, "image": {"image": "img_wide.jpg"}, "cut": {"video": "cut.mp4"}, "text": {},
    }  # fmt: skip
    values = [{"id": name, "prompt": "What moves?", "answer": "a dog", **where} for name, where in shown.items()]
    recipe = write_recipe(
        tmp_path / "e.yaml", suite=str(write_rows(tmp_path / "s.jsonl", values)), media_dir=str(media)
    )

    def command(*names: str) -> tuple[list[int], str]:
        codes = [cli.main(["eval", name, str(recipe)]) for name in names]
        return codes, capsys.readouterr().err

    assert command("predict", "judge", "report")[0] == [0, 0, 0]
    run = tmp_path / "runs" / "tiny" / "s"
    before = {path: path.read_bytes() for path in run.glob("*.jsonl")}
    frame = sorted((media / "frames").iterdir())[1]
    for path, source, ids in (
        (media / "clip_short.mp4", ROOT / "media" / "clip_long.mp4", ["short", "part"]),
        (frame, sorted((media / "frames").iterdir())[0], ["frames"]),
        (media / "img_wide.jpg", ROOT / "frames" / "few3" / frame.name, ["image"]),
    ):
        content = path.read_bytes()
        path.write_bytes(source.read_bytes())
        codes, error = command("predict", "judge", "report", "run")
        assert codes == [2, 2, 2, 2]
        assert f"{run} has answers to {len(ids)} questions that have changed" in error
        assert all(f"{name!r} (another clip)" in error for name in ids)
        assert "choose another `name`" in error
        path.write_bytes(content)
    (media / "cut.mp4").write_bytes((ROOT / "media" / "clip_long.mp4").read_bytes())
    frame.rename(frame.with_name("gone"))
    frame.with_name("gone").rename(frame)
    assert command("predict", "judge", "report")[0] == [0, 0, 0]
    assert {path: path.read_bytes() for path in before if path.name != "asked.jsonl"} == {
        path: content for path, content in before.items() if path.name != "asked.jsonl"
    }
    (run / "asked.jsonl").unlink()  # as an earlier version left it
    codes, error = command("predict", "predict")
    assert codes == [0, 0]
    assert error.count("that did not note what was asked") == 1
    shutil.rmtree(media / "frames")  # what is gone cannot be compared
    assert command("judge")[0] == [0]


def test_a_dry_run_sends_nothing_and_has_a_price(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "device": None, "max_new_tokens": 100}
    values = {"model": "theirs", "prices": {"theirs": {"input": 1.0, "output": 10.0}}, "predict": block}
    assert predict(tmp_path, mixed, "--dry-run", **values) == 0
    output = capsys.readouterr().out
    assert "16 requests to theirs" in output
    assert "at most 1600 output tokens" in output
    assert "cost of predicting: at most about 0.016" in output


@pytest.mark.long
def test_torchrun_writes_what_one_process_writes(mixed: Path, tmp_path: Path) -> None:
    assert predict(tmp_path, mixed, "name=one") == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command = [*torchrun, "-m", "hound_plugin.cli", "eval", "predict", str(tmp_path / "eval.yaml"), "name=two"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (tmp_path / "runs" / name / "mixed" / PREDICTIONS for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert "process 2 of 2" in done.stdout


# --- whole runs


@pytest.mark.parametrize("suite", ["official", "in-domain", "out-of-domain"])
def test_a_pipeline_of_the_original_from_start_to_end(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_corpora(tmp_path / "data", list(read_suite(suite).sets.values()))
    recipe = write_recipe(tmp_path / "eval.yaml", data=str(data), predict={"max_new_tokens": 2, "batch_size": 16})
    assert cli.main(["eval", "run", str(recipe), f"suite={suite}", "name=sft"]) == 0
    run = load_run(tmp_path / "runs" / "sft" / suite)
    assert len(run.judgements) == len(run.predictions) == len(read_suite(suite).names) * 6
    for name in ("report.md", "sets.csv", "table.tex", "index.html"):
        assert (run.folder / "report" / name).stat().st_size > 100
    assert run.meta["suite_info"]["paper"]
    for name in read_suite(suite).names:  # another model's file for each set, with the right answers
        values = [
            {"id": row.id.partition("/")[2], "query": row.question, "video_path": row.clip, "answer": row.reference,
             "model_prediction": {"status": "success", "message": row.reference}}
            for row in run.questions if row.set == name
        ]  # fmt: skip
        write_rows(tmp_path / name / "theirs.jsonl", values)
    given = ["predict.backend=given", f"predict.answers={tmp_path}/{{set}}/theirs.jsonl", "model=theirs", "name=theirs"]
    assert cli.main(["eval", "run", str(recipe), f"suite={suite}", *given]) == 0
    capsys.readouterr()
    assert cli.main(["eval", "compare", "sft", "theirs", "--folder", str(tmp_path / "runs")]) == 0
    output = capsys.readouterr().out
    assert "100.0" in output
    assert (tmp_path / "runs" / "theirs" / suite / "compare" / "sft").is_dir()
    assert cli.main(["eval", "compare", "sft", "none", "--folder", str(tmp_path / "runs")]) == 2
    assert "none is neither" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [1, 1000, 2200])
def test_a_changed_file_of_answers_is_not_the_one_before(
    changed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One answer of a long file, which keeps its length: the old answers would stay."""
    asked = [{"id": f"q{n}", "question": "What is it?", "answer": "cat"} for n in range(3)]
    suite, answers = write_rows(tmp_path / "some.jsonl", asked), tmp_path / "theirs.jsonl"
    values = [{"id": f"q{n}", "text": "cat " + "x" * 80} for n in range(3000)]
    write_rows(answers, values)
    recipe = write_recipe(tmp_path / "eval.yaml", suite=str(suite), model="theirs")
    given = ["predict.backend=given", f"predict.answers={answers}"]
    assert cli.main(["eval", "run", str(recipe), *given]) == 0
    assert cli.main(["eval", "run", str(recipe), *given]) == 0
    values[changed]["text"] = "dog " + "x" * 80
    write_rows(answers, values)
    capsys.readouterr()
    assert cli.main(["eval", "run", str(recipe), *given]) == 2
    assert "has predictions of another model or of other settings: content was" in capsys.readouterr().err


def test_an_adapter_from_start_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers are those of the merged model, the page has the frames that it saw, and another base is another model."""
    base = tmp_path / "base"
    shutil.copytree(SFT, base)
    adapter = write_adapter(tmp_path / "adapter", 3)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    values = [
        {"id": f"q{n}", "video": "clip_short.mp4", "prompt": text, "answer": "a dog"}
        for n, text in enumerate(QUESTIONS)
    ]
    file = write_rows(tmp_path / "some.jsonl", values)
    recipe = write_recipe(tmp_path / "eval.yaml", suite=str(file), media_dir=str(ROOT / "media"), model=str(adapter))
    assert cli.main(["eval", "run", str(recipe)]) == 0
    run = load_run(tmp_path / "runs" / "tiny" / "some")
    texts = {}
    for name in (adapter, base):
        hound = load(str(name), device="cpu", dtype="float32")
        texts[name] = [hound.chat(q.question, q.shown, do_sample=False, max_new_tokens=6) for q in run.questions]
    assert [row.text for row in run.predictions.values()] == texts[adapter] != texts[base]
    page = (run.folder / "report" / "index.html").read_text()
    assert page.count("data:image/jpeg") >= 8
    assert "is gone, which says what it saw" not in page
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    capsys.readouterr()
    assert cli.main(["eval", "predict", str(recipe)]) == 2
    assert "merged_into was" in capsys.readouterr().err


def test_a_judge_refuses_before_a_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_corpora(tmp_path / "data", list(read_suite("official").sets.values()))
    recipe = write_recipe(tmp_path / "eval.yaml", data=str(data), suite="official", model="no/such-model")
    command = ["eval", "run", str(recipe), "judge.backend=openai", "judge.model=j", "judge.protocol=caption"]
    assert cli.main(command) == 2
    assert "expected a `caption` in every question; 18 of 18" in capsys.readouterr().err
