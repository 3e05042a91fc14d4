"""Rows of questions that cannot be used: they stop a run, or are left out of it and listed; rounds share the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.files import write_json
from hound_plugin.records.questions import read_questions
from hound_plugin.reward import rounds, stages
from hound_plugin.reward.run import run_stages
from hound_plugin.reward.run_setup import Run, open_run
from hound_plugin.reward.settings import RewardSettings, build_settings
from tests.reward.conftest import Parrot, rows, write_rows

SKIP = {"on_bad_rows": "skip", "max_bad_rows": 0.5}


def easy(file: Path) -> list[dict[str, Any]]:
    """The rows of the file, with a reference that one of the parrot's answers hits: every question gives a pair."""
    write_rows(file, [{**row, "reference": "It moves left."} for row in rows(file)])
    return rows(file)


@pytest.fixture
def damaged(questions_file: Path) -> list[dict[str, Any]]:
    """The eight rows of the file, which then has four bad ones among them: its rows 2, 4, 7 and 12."""
    good = easy(questions_file)
    lines = [json.dumps(row) for row in good]
    lines.insert(1, '{"id": "torn", "video"')
    lines.insert(3, json.dumps({**good[0], "id": "gone", "video": "gone.mp4"}))
    lines.insert(6, json.dumps({**good[1], "prompt": "Which colour?"}))
    lines.append('{"id": "half", "video": "1.mp4", "prompt": "What is \\ud83d?"}')
    questions_file.write_text("\n".join(lines))
    return good


def start(settings: RewardSettings, said: list[str]) -> Run:
    return open_run(settings, said.append, lambda _: Parrot())


def found_in(folder: Path) -> list[tuple[Any, ...]]:
    return [(row["row"], row["id"], row["problem"], row["field"]) for row in rows(folder / "bad_rows.jsonl")]


LISTED = [
    (2, None, "no object", ""),
    (4, "gone", "media missing", "video"),
    (7, "q1", "id twice", "id"),
    (12, None, "half a character", ""),
]


def test_bad_rows_stop_a_run(values: dict[str, Any], damaged: list[dict[str, Any]]) -> None:
    assert len(damaged) == 8
    with pytest.raises(DataError) as caught:
        start(build_settings(values), [])
    message = str(caught.value)
    assert message.startswith(f"4 of 12 rows of {values['questions']} cannot be used:\n")
    assert "1  id twice          row 7, id 'q1': `id`: expected a unique id; row 3 has it too" in message
    assert "`on_bad_rows: skip`. `hound corpus validate" in message
    assert not Path(values["folder"]).exists()
    with pytest.raises(DataError, match=r"more than the share of 0\.33 that may be left out"):
        start(build_settings({**values, "on_bad_rows": "skip", "max_bad_rows": 0.33}), [])


def test_bad_rows_are_left_out_and_listed(values: dict[str, Any], damaged: list[dict[str, Any]]) -> None:
    said: list[str] = []
    run = start(build_settings({**values, **SKIP}), said)
    counts = run_stages(run, ("sample", "judge", "pairs"))
    assert [question.id for question in run.questions] == [row["id"] for row in damaged]
    assert counts["judge"]["scored"] == 8 * 6
    assert found_in(run.folder) == LISTED
    (warning,) = [line for line in said if line.startswith("warning: 4 of 12 rows of")]
    assert warning.splitlines()[-1] == f"All of them are listed in {run.folder / 'bad_rows.jsonl'}."
    write_rows(Path(values["questions"]), damaged)
    start(build_settings({**values, **SKIP}), [])
    assert not (run.folder / "bad_rows.jsonl").exists(), "the list of an earlier run"


def test_the_validator_lists_the_same_rows(
    values: dict[str, Any], damaged: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert damaged
    file = Path(values["questions"])
    words = ["corpus", "validate", str(file), "--kind", "questions", "--media-dir", values["media_dir"]]
    assert cli.main(words) == 1
    assert "12 rows, 3 with problems" in capsys.readouterr().out, "ids of other rows are not looked at"
    (file.parent / "questions.bad.jsonl").rename(file.parent / "bad_rows.jsonl")
    assert found_in(file.parent) == [entry for entry in LISTED if entry[2] != "id twice"]


def test_no_row_can_be_used(values: dict[str, Any]) -> None:
    write_rows(Path(values["questions"]), [{"id": "a"}, {"id": "b"}])
    with pytest.raises(DataError, match="expected questions, one JSON object per line; none of its 2 rows can be used"):
        read_questions(values["questions"], None, on_bad_rows="skip", max_bad_rows=1.0)


def test_decisions_about_rows_are_said_with_their_numbers(values: dict[str, Any]) -> None:
    file = Path(values["questions"])
    found = [{**row, "prompt": row["prompt"].replace("<video>", "<image>"), "note": "x"} for row in rows(file)]
    write_rows(file, found)
    said: list[str] = []
    run = start(build_settings(values), said)
    assert said == [
        f"{file}: `<image>` in rows with only clips stands for the clip (8 rows)",
        f"{file}: fields that nothing reads, by rows: `note` (8)",
    ]
    assert {(question.medium, question.text[:12]) for question in run.questions} == {("video", "What is seen")}


# --- rounds


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Checkpoints that rounds start from; DPO itself is left out."""
    started: list[str] = []

    def train(_: Any, place: Path, settings: Any, checkpoint: str, say: Any) -> None:
        started.append(checkpoint)
        (place / "dpo").mkdir()
        write_json(place / "dpo" / "finished.json", {})

    monkeypatch.setattr(rounds, "train", train)
    return started


def iterating(values: dict[str, Any], tmp_path: Path, **more: Any) -> RewardSettings:
    recipe = tmp_path / "dpo.yaml"
    recipe.write_text("stage: dpo\n")
    return build_settings({**values, "iterate": {"rounds": 3, "recipe": str(recipe), **more}})


def shares(folder: Path, count: int = 3) -> list[list[dict[str, Any]]]:
    files = [folder / f"round_{number}" / "questions.jsonl" for number in range(1, count + 1)]
    return [[json.loads(line) for line in file.read_text().split("\n") if line] for file in files]


def test_rounds_share_all_rows_as_they_are(values: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    file = Path(values["questions"])
    names = ("id", "question_id", "qid")
    given: list[dict[str, Any]] = []
    for number, row in enumerate(easy(file)):  # ids of other names and types, texts and fields of every kind
        identity = row.pop("id") if number % 2 else 10**21 + number
        asked = {"conversations": [{"role": "user", "content": f"{row.pop('prompt')} 🐶"}]}
        given.append({names[number % 3]: identity, **row, **asked, "note": {"nested": [1.5, None, "\u2028"]}})
    write_rows(file, given)
    settings = iterating(values, tmp_path)
    rounds.run_rounds(settings, lambda _: None, lambda _: Parrot())
    found = shares(Path(settings.folder))
    assert [len(share) for share in found] == [3, 3, 2]
    order = {json.dumps(row): number for number, row in enumerate(given)}
    places = [[order[json.dumps(row)] for row in share] for share in found]  # a bent row is a KeyError
    assert sorted(place for share in places for place in share) == list(range(8))
    assert all(place == sorted(place) for place in places)
    assert trained == ["parrot", *(str(Path(settings.folder) / f"round_{n}" / "dpo") for n in (1, 2))]


def test_bad_rows_are_left_out_of_rounds(
    values: dict[str, Any], damaged: list[dict[str, Any]], tmp_path: Path, trained: list[str]
) -> None:
    said: list[str] = []
    settings = iterating({**values, **SKIP}, tmp_path)
    rounds.run_rounds(settings, said.append, lambda _: Parrot())
    folder = Path(settings.folder)
    used = [row for share in shares(folder) for row in share]
    assert sorted(used, key=lambda row: str(row["id"])) == damaged
    assert found_in(folder) == LISTED
    assert sum("4 of 12 rows of" in line for line in said) == 3
    assert not list(folder.glob("round_*/bad_rows.jsonl")), "a round's own file has good rows only"
    assert len(trained) == 3


def test_bad_rows_stop_before_the_first_round(
    values: dict[str, Any], damaged: list[dict[str, Any]], tmp_path: Path, trained: list[str]
) -> None:
    assert damaged
    settings = iterating(values, tmp_path)
    with pytest.raises(DataError, match="4 of 12 rows of"):
        rounds.run_rounds(settings, lambda _: None, lambda _: Parrot())
    assert trained == []
    assert not list(Path(settings.folder).glob("round_*/questions.jsonl"))


@pytest.mark.parametrize("change", ["rounds", "seed", "questions"])
def test_a_round_does_not_repeat_questions_of_an_earlier_one(
    change: str, values: dict[str, Any], tmp_path: Path, trained: list[str]
) -> None:
    easy(Path(values["questions"]))
    settings = iterating(values, tmp_path, rounds=2)
    rounds.run_rounds(settings, lambda _: None, lambda _: Parrot())
    again = iterating({**values, "seed": 5} if change == "seed" else values, tmp_path, rounds=2 + (change == "rounds"))
    if change != "rounds":  # the second round begins after the change
        shutil.rmtree(Path(settings.folder) / "round_2")
    if change == "questions":
        write_rows(Path(values["questions"]), shares(Path(settings.folder), 1)[0])
    with pytest.raises(DataError, match=r"Round \d would train on \d questions that round 1 had .*`iterate.shards: "):
        rounds.run_rounds(again, lambda _: None, lambda _: Parrot())
    assert len(trained) == 2


def test_finished_rounds_belong_to_the_model_that_they_began_with(
    values: dict[str, Any], tmp_path: Path, trained: list[str]
) -> None:
    easy(Path(values["questions"]))
    settings = iterating(values, tmp_path, rounds=2)
    rounds.run_rounds(settings, lambda _: None, lambda _: Parrot())
    finished = Path(settings.folder) / "round_1" / "dpo" / "finished.json"
    write_json(finished, {"from": "parrot", "pairs": "pairs"})
    rounds.run_rounds(settings, lambda _: None, lambda _: Parrot())
    write_json(finished, {"from": "owner/another", "pairs": "pairs"})
    with pytest.raises(SettingsError, match=r"sample.model: expected 'owner/another'.*got 'parrot'.*another `folder`"):
        rounds.run_rounds(settings, lambda _: None, lambda _: Parrot())
    assert trained[:1] == ["parrot"]
    assert len(trained) == 2


def test_without_shards_every_round_has_all_rows(values: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    given = easy(Path(values["questions"]))
    settings = iterating({**values, "limit": 5}, tmp_path, shards=False)
    rounds.run_rounds(settings, lambda _: None, lambda _: Parrot())
    assert shares(Path(settings.folder)) == [given] * 3
    assert len(trained) == 3
    run = json.loads((Path(settings.folder) / "round_2" / "run.json").read_text())
    assert run["counts"]["pairs"]["questions"] == 5, "the limit is each round's"


def test_ranking_says_what_is_left_out(
    values: dict[str, Any], damaged: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert damaged
    settings = build_settings({**values, **SKIP})
    stages.sample(start(settings, []))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({**values, **SKIP}))
    assert cli.main(["reward", "rank", str(recipe), "--policy", "none", "--reference", "none"]) != 0  # no such model
    assert "warning: 4 of 12 rows of" in capsys.readouterr().err


def test_an_answer_beside_a_reference_is_said(questions_file: Path) -> None:
    from hound_plugin.records.bad_rows import RowReport
    from hound_plugin.records.questions import TWO_REFERENCES

    values = rows(questions_file)
    values[2]["answer"] = "Another one."
    values[5]["answer"] = values[5]["reference"]
    write_rows(questions_file, values)
    report = RowReport("questions")
    read = read_questions(questions_file, str(questions_file.parent / "clips"), report=report)
    assert read[2].reference == values[2]["reference"]
    assert report.notes[TWO_REFERENCES] == 1
