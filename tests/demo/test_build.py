"""The demo's folder: complete, deterministic, made once, remade after an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.demo import build as build_module
from hound_plugin.demo.build import SHARES, DemoPaths, build_demo, draw_split
from hound_plugin.demo.curriculum import sft_records
from hound_plugin.demo.evaluate import STAGES, TIME, Evaluation, accuracies, results_table, sentence_share
from hound_plugin.demo.records import dpo_records, held_out_questions
from hound_plugin.errors import InUseError, SettingsError
from hound_plugin.evaluation.run import open_evaluation, run_stages
from hound_plugin.evaluation.run_folder import EvaluationRun, load_run
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.evaluation.statistics import Estimate
from hound_plugin.evaluation.summary import ALL

SMALL: dict[str, Any] = {"train_clips": 40, "held_out_clips": 20, "progress": False}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoPaths:
    return build_demo(tmp_path_factory.mktemp("build") / "demo", **SMALL)


def test_layout(demo: DemoPaths) -> None:
    names = {f"{kind}{split}" for kind in ("demo_sft", "demo_dpo") for split in ("", "_held_out")}
    info = json.loads((demo.data / "dataset_info.json").read_text())
    assert info.keys() == names
    for name, entry in info.items():
        assert entry["formatting"] == "hound"
        assert entry.get("ranking", False) is name.startswith("demo_dpo")
        assert (demo.data / entry["file_name"]).is_file()
    assert (demo.tokenizer / "tokenizer.model").is_file()
    assert len(list(demo.clips.iterdir())) == 60
    assert not demo.model.exists()
    assert json.loads(demo.stamp.read_text())["complete"] is True


@pytest.mark.parametrize("name", ["demo_sft", "demo_sft_held_out"])
def test_conversations_are_well_formed(demo: DemoPaths, name: str) -> None:
    records = rows(demo.data / f"{name}.jsonl")
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        medium = "image" if "image" in record else "video"
        assert (demo.clips / record[medium]).is_file()
        messages = record["conversations"]
        assert [message["from"] for message in messages] == ["human", "gpt"] * (len(messages) // 2)
        assert messages[0]["value"].startswith(f"<{medium}>\n")
        assert sum(message["value"].count("<") for message in messages) == 1
        assert all(message["value"].strip() for message in messages)


def test_training_has_images_and_several_turns(demo: DemoPaths) -> None:
    records = rows(demo.data / "demo_sft.jsonl")
    assert {"image", "video"} == {key for record in records for key in record} - {"id", "conversations"}
    assert {len(record["conversations"]) for record in records} == {2, 4, 6}


def test_questions_for_the_reward_module(demo: DemoPaths) -> None:
    records = rows(demo.data / "reward_questions.jsonl")
    assert len({record["id"] for record in records}) == len(records) == 40
    for record in records:
        medium = "image" if "image" in record else "video"
        assert (demo.clips / record[medium]).is_file()
        assert record["prompt"].startswith(f"<{medium}>\n")
        assert record["caption"].endswith(".")
        assert record["reference"].endswith(".")


@pytest.mark.parametrize("name", ["demo_dpo", "demo_dpo_held_out"])
def test_pairs_are_well_formed(demo: DemoPaths, name: str) -> None:
    for record in rows(demo.data / f"{name}.jsonl"):
        medium = "image" if "image" in record else "video"
        assert (demo.clips / record[medium]).is_file()
        assert record["prompt"].startswith(f"<{medium}>\n")
        assert record["chosen"].endswith(".")
        assert record["chosen"] != record["rejected"]
        assert record["chosen_score"] > record["rejected_score"]


def test_the_splits_share_no_file_and_no_scene(demo: DemoPaths) -> None:
    def media(name: str) -> set[str]:
        return {row.get("video") or row["image"] for row in rows(demo.data / f"{name}.jsonl")}

    train = media("demo_sft") | media("demo_dpo")
    held_out = media("demo_sft_held_out") | media("demo_dpo_held_out") | media("held_out_questions")
    assert not train & held_out
    contents = Counter(file.read_bytes() for file in demo.clips.iterdir())
    assert set(contents.values()) == {1}
    items = draw_split(0, 600, 200)
    assert not {item.scene for item in items[0]} & {item.scene for item in items[1]}
    assert items[1] == draw_split(0, 30, 200)[1], "held-out clips depend on the number of training clips"


def test_families_have_their_shares() -> None:
    items = draw_split(3, 1000, 1)[0]
    assert Counter(item.scene.family for item in items) == {name: share * 1000 for name, share in SHARES.items()}


def test_held_out_answers_are_balanced() -> None:
    asked = held_out_questions(draw_split(0, 1, 600)[1])
    by_topic: dict[str, list[str]] = defaultdict(list)
    for _, question in asked:
        by_topic[question.topic].append(question.answer)
    for topic, answers in by_topic.items():
        chance = 1 / 3 if topic.endswith("shape") else 1 / 4
        most = Counter(answers).most_common(1)[0][1] / len(answers)
        assert most < chance + 0.15, (topic, Counter(answers))
    assert {question.kind for _, question in asked} == {"colour", "shape", "count", "motion", "order"}


def test_no_held_out_scene_is_ever_trained_on_in_either_stage() -> None:
    import numpy as np

    train, held_out = draw_split(7, 300, 120)
    scenes = {item.file: item.scene for item in [*train, *held_out]}
    rng = np.random.default_rng(7)
    rows = [*sft_records(train, rng, stages=(70, 70, 60, 100, 100, 300)), *dpo_records(train, rng)]
    trained = {scenes[row.get("video") or row["image"]] for row in rows}
    measured = {scenes[item.file] for item, _ in held_out_questions(held_out)}
    assert len(trained) == 300
    assert len(measured) == 120
    assert not trained & measured


def test_the_training_answers_have_no_useful_prior() -> None:
    import numpy as np

    train = draw_split(0, 2000, 1)[0]
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for record in sft_records(train, np.random.default_rng(0)):
        messages = record["conversations"]
        for human, gpt in zip(messages[::2], messages[1::2], strict=True):
            words[human["value"].split("\n")[-1]][gpt["value"].rstrip(".").split()[-1]] += 1
    for question, answers in words.items():
        assert answers.most_common(1)[0][1] / answers.total() < 1 / len(answers) + 0.08, (question, answers)


def test_pairs_are_half_style_half_content_without_a_biased_wrong_answer() -> None:
    import numpy as np

    pairs = dpo_records(draw_split(0, 2000, 1)[0], np.random.default_rng(0))
    style = [pair for pair in pairs if pair["rejected_score"] == 3]
    assert 0.35 < len(style) / len(pairs) <= 0.5
    balance: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        if pair["rejected_score"] == 1:
            balance[pair["kind"]][pair["rejected"].rstrip(".").split()[-1]] += 1
            balance[pair["kind"]][pair["chosen"].rstrip(".").split()[-1]] -= 1
            assert pair["rejected"].split()[:-1] == pair["chosen"].split()[:-1]
    for kind, difference in balance.items():
        total = sum(pair["kind"] == kind for pair in pairs)
        assert max(map(abs, difference.values())) < 0.15 * total, (kind, difference)


def test_the_right_answers_score_100_percent(demo: DemoPaths) -> None:
    """By the suite, its judging and its kinds: either form of each answer is right, and another one is not."""
    for wanted, answer in ((1.0, 0), (1.0, -1), (0.0, None)):
        run = judged_run(demo, lambda row, answer=answer: "purple" if answer is None else row["accepted"][answer])
        shares = accuracies(run)
        assert list(shares)[-2:] == [TIME, ALL]
        assert {name: share.mean for name, share in shares.items()} == dict.fromkeys(shares, wanted)
        assert shares[ALL].n == len(run.questions) == len(rows(demo.held_out_questions))
        assert shares[TIME].n == shares["motion"].n + shares["order"].n


def test_sentences_are_counted_where_there_are_two_forms(demo: DemoPaths) -> None:
    assert sentence_share(judged_run(demo, lambda row: row["accepted"][-1])) == 1
    assert sentence_share(judged_run(demo, lambda row: row["accepted"][0])) == 0
    run = judged_run(demo, lambda row: row["accepted"][0])
    assert sentence_share(replace(run, questions=[replace(q, accepted=()) for q in run.questions])) is None


def judged_run(demo: DemoPaths, answer: Callable[[dict[str, Any]], str]) -> EvaluationRun:
    """The suite ``demo`` with answers that are given, judged without a model."""
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.jsonl"
        given.write_text(
            "".join(json.dumps({"id": q["id"], "text": answer(q)}) + "\n" for q in rows(demo.held_out_questions))
        )
        predict = {"backend": "given", "answers": str(given)}
        settings = EvaluationSettings(data=str(demo.folder), folder=folder, name="x", predict=predict)
        run_stages(open_evaluation(settings, lambda _: None, stages=STAGES), STAGES)
        return load_run(settings.run_folder)


def test_an_evaluation_survives_its_json() -> None:
    some = {"motion": Estimate(0.25, 0.1, 0.5, 8, 4), ALL: Estimate(1 / 3, None, None, 3, 1)}
    before = Evaluation(some, None, Estimate(0.5, 0.2, 0.8, 4, 4), -1.5)
    values = json.loads(json.dumps(before.to_dict()))
    assert Evaluation.from_dict(values) == before
    assert values["exact_match"]["motion"]["correct"] == 2
    with pytest.raises(KeyError):  # as an earlier version wrote it
        Evaluation.from_dict({**values, "exact_match": {"motion": {"correct": 2, "total": 8, "accuracy": 0.25}}})


def test_the_table_has_a_column_for_each_model() -> None:
    one, two = ({name: Estimate(mean, mean - 0.1, mean + 0.1, 40, 20)} for name, mean in ((ALL, 0.5), ("order", 0.75)))
    share = Estimate(0.5, 0.2, 0.8, 4, 4)
    lines = results_table(
        {"after SFT": Evaluation(one, 1.0, share, 0.0), "after DPO": Evaluation(two, 1.0, share, 0.0)}
    )
    assert lines.splitlines() == [
        "| kind | n | after SFT | after DPO |",
        "|---|---|---|---|",
        "| all | 40 | 50.0 (40.0 to 60.0) | - |",
        "| order | 40 | - | 75.0 (65.0 to 85.0) |",
    ]


def test_equal_seeds_give_equal_files(demo: DemoPaths, tmp_path: Path) -> None:
    again = files(build_demo(tmp_path / "demo", **SMALL).folder)
    assert again == files(demo.folder)
    other = files(build_demo(tmp_path / "other", **{**SMALL, "seed": 1}).folder)
    assert other["data/demo_sft.jsonl"] != again["data/demo_sft.jsonl"]


def test_a_second_build_does_nothing(demo: DemoPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.stat().st_mtime_ns for file in demo.folder.rglob("*")}
    monkeypatch.setattr(build_module, "_clear", lambda *_: pytest.fail("it was built again"))
    assert build_demo(demo.folder, **SMALL) == demo
    assert before == {file: file.stat().st_mtime_ns for file in demo.folder.rglob("*")}


def test_other_parameters_damage_and_force_build_anew(tmp_path: Path) -> None:
    tiny = {"train_clips": 4, "held_out_clips": 4, "progress": False}
    paths = build_demo(tmp_path, **tiny)
    whole = files(tmp_path)
    build_demo(tmp_path, **{**tiny, "held_out_clips": 5})
    assert len(list(paths.clips.iterdir())) == 9
    build_demo(tmp_path, **tiny)
    assert files(tmp_path) == whole
    next(paths.clips.iterdir()).unlink()
    build_demo(tmp_path, **tiny)
    assert files(tmp_path) == whole
    (paths.data / "demo_sft.jsonl").write_text("")
    build_demo(tmp_path, **tiny)
    assert files(tmp_path) == whole
    paths.stamp.write_text("{")
    build_demo(tmp_path, **tiny)
    assert files(tmp_path) == whole
    stray = paths.clips / "stray.mp4"
    stray.touch()
    build_demo(tmp_path, force=True, **tiny)
    assert not stray.exists()


def test_a_killed_build_is_made_anew(tmp_path: Path) -> None:
    code = (
        "from hound_plugin.demo import build, clips; import os, signal\n"
        "write, count = clips.write_clip, [0]\n"
        "def failing(path, frames):\n"
        "    count[0] += 1\n"
        "    if count[0] == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, frames)\n"
        "clips.write_clip = failing\n"
        f"build.build_demo({str(tmp_path)!r}, train_clips=40, held_out_clips=20, progress=False)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert child.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "build.json").read_text())["complete"] is False
    fresh = build_demo(tmp_path.parent / "fresh", **SMALL)
    assert files(build_demo(tmp_path, **SMALL).folder) == files(fresh.folder)


@pytest.mark.parametrize("second", [{"seed": 1}, {"train_clips": 8}, {"force": True}])
def test_a_second_build_at_once_is_refused_and_the_first_is_whole(
    demo: DemoPaths, tmp_path: Path, second: dict[str, Any]
) -> None:
    code = (
        "from hound_plugin.demo import build, clips\n"
        "write, count = clips.write_clip, [0]\n"
        "def slow(path, frames):\n"
        "    count[0] += 1\n"
        "    if count[0] == 5: print('begun', flush=True); input()\n"
        "    write(path, frames)\n"
        "clips.write_clip = slow\n"
        f"build.build_demo({str(tmp_path)!r}, train_clips=40, held_out_clips=20, progress=False)\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "begun\n"
        with pytest.raises(InUseError, match=r"Another process builds or trains the demo in .* name another folder"):
            build_demo(tmp_path, **{**SMALL, **second})
        first.communicate("\n")
    assert first.returncode == 0
    assert files(tmp_path) == files(demo.folder)


def test_what_is_built_is_there_beside_a_training(demo: DemoPaths) -> None:
    with demo.alone():
        assert build_demo(demo.folder, **SMALL) == demo
        with pytest.raises(InUseError, match="builds or trains"):
            build_demo(demo.folder, **{**SMALL, "seed": 1})
    assert build_demo(demo.folder, **SMALL) == demo


def test_the_model_is_written_by_the_function_given(tmp_path: Path) -> None:
    calls = []

    def write_model(tokenizer: Path, folder: Path, seed: int) -> None:
        calls.append((tokenizer, folder, seed))
        assert (tokenizer / "tokenizer.model").is_file()
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    tiny = {"train_clips": 4, "held_out_clips": 4, "progress": False, "seed": 5}
    for _ in range(2):
        paths = build_demo(tmp_path, write_model=write_model, **tiny)
    assert calls == [(paths.tokenizer, paths.model, 5)]
    (paths.model / "config.json").unlink()
    build_demo(tmp_path, write_model=write_model, **tiny)
    assert len(calls) == 2


def test_bad_arguments_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one clip or more in each split, got 0 and 1"):
        build_demo(tmp_path, train_clips=0, held_out_clips=1)
    (tmp_path / "data").mkdir()
    precious = tmp_path / "data" / "mine.txt"
    precious.write_text("keep")
    with pytest.raises(SettingsError, match=r"found data and no build\.json; name another folder"):
        build_demo(tmp_path, **SMALL)
    assert precious.read_text() == "keep"
