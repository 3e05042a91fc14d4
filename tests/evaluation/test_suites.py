"""Suites: declared in files, found on this machine, read into questions that are never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hound_plugin.corpus.schema import CORPORA
from hound_plugin.errors import DataError, MediaNotFoundError, SettingsError
from hound_plugin.evaluation.items import Question
from hound_plugin.evaluation.questions import read_suite_questions
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.evaluation.suites import BUILT_IN, how_to_get, read_suite
from tests.evaluation.stand_ins import CLIPS, rows, write_corpora, write_rows
from tests.goldens import ROOT

MEDIA = str(ROOT / "media")


def ask(said: list[str] | None = None, **values: Any) -> list[Question]:
    settings = EvaluationSettings(**values)
    return read_suite_questions(read_suite(settings.suite), settings, (said if said is not None else []).append)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_suites_can_be_read(name: str) -> None:
    suite = read_suite(name)
    assert all((suite.title, suite.metric, suite.paper))
    assert all(CORPORA[corpus].kind == "test" for corpus in suite.sets.values())
    assert how_to_get(name, suite, None).startswith("Run `hound ")


def test_the_papers_sets() -> None:
    assert read_suite("official").names == ("msrvtt", "msvd", "tgif")
    assert read_suite("official").rows == 15_000
    assert set(read_suite("in-domain").names) == {"actnet", "webvid", "vidal"}
    assert set(read_suite("out-of-domain").names) == {"msrvtt", "msvd", "tgif", "ssv2"}


def test_official_stand_in(tmp_path: Path) -> None:
    suite = read_suite("official")
    questions = ask(suite="official", data=str(write_corpora(tmp_path, list(suite.sets.values()))))
    assert len(questions) == 3 * len(CLIPS) * 2
    assert len({question.id for question in questions}) == len(questions), "the sets use the same ids"
    first = questions[0]
    assert (first.id, first.set, first.clip) == ("msrvtt/clip_short_0", "msrvtt", "test/msrvtt/clip_short")
    assert first.media == (str(tmp_path / "frames" / "test" / "msrvtt" / "clip_short"),)
    assert first.prompt == "<video>\nWhat moves?"
    assert (first.question, first.reference, first.evidence) == ("What moves?", "a dog in msrvtt", "")
    assert len(ask(suite="official", data=str(tmp_path), limit=2)) == 6


def test_captions_asks_each_clip_once(tmp_path: Path) -> None:
    data = write_corpora(tmp_path, list(read_suite("captions").sets.values()))
    questions = ask(suite="captions", data=str(data))
    assert len(questions) == 3 * len(CLIPS)
    assert questions[0].reference == questions[0].evidence == "A dog runs in actnet, clip_short."
    assert questions[0].question == read_suite("captions").ask


def test_captions_need_captions(tmp_path: Path) -> None:
    suite = read_suite("captions")
    data = write_corpora(tmp_path, list(suite.sets.values()))
    file = suite.paths(str(data))["webvid"]
    write_rows(file, [{name: value for name, value in row.items() if name != "caption"} for row in rows(file)])
    with pytest.raises(DataError, match=r"3 of 3 clips have none.*webvid/clip_short_0"):
        ask(suite="captions", data=str(data))


def test_a_clip_with_two_captions_is_refused(tmp_path: Path) -> None:
    suite = read_suite("captions")
    data = write_corpora(tmp_path, list(suite.sets.values()))
    file = suite.paths(str(data))["webvid"]
    again = [{**row, "id": f"again_{row['id']}", "caption": "A cat sleeps."} for row in rows(file)]
    write_rows(file, [*rows(file), *again])
    with pytest.raises(DataError, match=r"one caption for each clip; .* another one in row 'webvid/again_.*Keep one"):
        ask(suite="captions", data=str(data))


def test_an_absent_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hound corpus download --only test_actnet .*--with-media --folder"):
        ask(suite="in-domain", data=str(tmp_path))


def test_an_unknown_suite_lists_those_there_are() -> None:
    with pytest.raises(SettingsError, match="one of in-domain, out-of-domain"):
        ask(suite="oficial")


ROW = {"id": "a", "video": "clip_short.mp4", "prompt": "<video>\nWhat moves?", "answer": "a dog"}


def test_a_file_is_a_suite(tmp_path: Path) -> None:
    values = [
        ROW,
        {**ROW, "id": 7, "video": "clip_long.mp4", "accepted": ["a dog", "A dog moves."], "source": "long"},
        {
            **ROW,
            "id": "frames",
            "video": [f"{ROOT}/frames/few3/{n.name}" for n in (ROOT / "frames" / "few3").iterdir()],
        },
        {"id": "text", "prompt": "What is a dog?", "answer": "an animal"},
        {"id": "image", "image": "img_wide.jpg", "prompt": "<image>\nWhat?", "answer": "a cat"},
    ]
    file = write_rows(tmp_path / "mine.jsonl", values)
    questions = ask(suite=str(file), media_dir=str(ROOT / "media"))
    assert [question.id for question in questions] == ["a", "7", "frames", "text", "image"]
    assert [question.set for question in questions] == ["mine", "long", "mine", "mine", "mine"]
    assert questions[1].accepted == ("A dog moves.",)
    assert isinstance(questions[2].shown, list)
    assert len(questions[2].shown) == 3
    assert questions[3].shown is None
    assert str(questions[4].shown).endswith("img_wide.jpg")
    assert questions[0].clip == "clip_short.mp4"


def test_a_single_frame_of_a_clip_is_no_image(tmp_path: Path) -> None:
    frame = str(next((ROOT / "frames" / "few3").iterdir()))
    (question,) = ask(suite=str(write_rows(tmp_path / "one.jsonl", [{**ROW, "video": [frame]}])))
    assert question.shown == [frame]


def test_a_missing_clip_keeps_its_questions(tmp_path: Path) -> None:
    said: list[str] = []
    file = write_rows(tmp_path / "some.jsonl", [ROW, {**ROW, "id": "b", "video": "gone.mp4"}])
    questions = ask(said, suite=str(file), media_dir=str(ROOT / "media"))
    assert [question.id for question in questions] == ["a", "b"]
    assert questions[1].media == (str(ROOT / "media" / "gone.mp4"),)
    assert any("1 of 2 clips are not there" in line and "gone.mp4" in line for line in said)


def test_a_set_without_any_clip_is_refused(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "some.jsonl", [ROW])
    with pytest.raises(MediaNotFoundError, match=r"none of its 1 clips is there.*media_dir"):
        ask(suite=str(file), media_dir=str(tmp_path))


# --- Parquet, as data sets lie on the hub

TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(path: Path, values: list[dict[str, Any]], **types: pa.DataType) -> Path:
    """Rows with every column in each of them, as in a table: what a row does not have is null."""
    names = dict.fromkeys(name for value in values for name in value)
    columns = {name: pa.array([value.get(name) for value in values], types.get(name)) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_conversations_as_columns(tmp_path: Path) -> None:
    """The original's rows with typed columns, of which a row has only some."""
    asked = [{"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "a dog"}]
    values = [
        {"id": "a", "video": "clip_short.mp4", "conversations": asked, "caption": "A dog runs."},
        {"id": "b", "video": "clip_long.mp4", "conversations": asked, "source": "web", "accepted": ["a hound"]},
        {"id": "c", "image": "img_wide.jpg", "conversations": [{**asked[0], "value": "<image>\nWho?"}, asked[1]]},
    ]
    table = ask(suite=str(parquet(tmp_path / "rows.parquet", values, conversations=TURNS)), media_dir=MEDIA)
    lines = ask(suite=str(write_rows(tmp_path / "rows.jsonl", values)), media_dir=MEDIA)
    assert table == lines
    assert [question.evidence for question in table] == ["A dog runs.", "", ""]
    assert [question.set for question in table] == ["rows", "web", "rows"]


def test_questions_as_columns(tmp_path: Path) -> None:
    """As the video-QA sets of lmms-lab: a number as id, the name of a folder of frames, a type."""
    values = [
        {"video_name": "clip_short", "question_id": 7, "question": "What moves?", "answer": "a dog", "type": 3},
        {"video_name": "clip_long", "question_id": 8, "question": "Who is it?", "answer": "nobody", "type": 1},
    ]
    first, second = ask(suite=str(parquet(tmp_path / "qa.parquet", values)), media_dir=str(ROOT / "frames"))
    assert (first.id, first.question, first.reference) == ("7", "What moves?", "a dog")
    assert first.media == (str(ROOT / "frames" / "clip_short"),)
    assert second.prompt == "<video>\nWho is it?"


def test_clips_within_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of the hub's type for videos: the file itself."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    content = (ROOT / "media" / "clip_short.mp4").read_bytes()
    values = [
        {"id": str(number), "video": {"bytes": content, "path": "clip_short.mp4"}, "question": text, "answer": "a dog"}
        for number, text in enumerate(("What moves?", "Who?"))
    ]
    first, second = ask(suite=str(parquet(tmp_path / "held.parquet", values, video=MEDIUM)))
    assert first.media == second.media
    assert first.clip == second.clip, "questions about one clip are one cluster"
    assert Path(first.media[0]).read_bytes() == content


def test_a_suite_of_the_paper_as_parquet(tmp_path: Path) -> None:
    corpora = list(read_suite("official").sets.values())
    data = write_corpora(tmp_path / "data", corpora)
    before = ask(suite="official", data=str(data))
    for corpus in corpora:
        file = data / CORPORA[corpus].paths()[0]
        parquet(file.with_suffix(".parquet"), rows(file), conversations=TURNS)
        file.unlink()
    assert ask(suite="official", data=str(data)) == before


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    file = parquet(tmp_path / "some.parquet", [{**ROW, "id": str(number)} for number in range(50)])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"some\.parquet: expected a whole Parquet file"):
        ask(suite=str(file), media_dir=MEDIA)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "empty"),
        ([ROW, ROW], "id twice"),
        ([{**ROW, "id": ""}], "no id"),
        ([{**ROW, "prompt": "<video>"}], "blank question"),
        ([{**ROW, "accepted": "a dog"}], "accepted answers"),
    ],
)
def test_rows_that_cannot_be_used(values: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ask(suite=str(write_rows(tmp_path / "bad.jsonl", values)), media_dir=str(ROOT / "media"))
    assert "on_bad_rows" not in str(caught.value), "there is no such key in the recipe"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../x"}, "name: expected a name for a folder"),
        ({"name": ""}, "name: expected a name"),
        ({"model": "a", "predict": {"model": "b"}}, "give only one of them"),
        ({"predict": {"backend": "given"}}, "predict.answers"),
        ({"judge": {"backend": "openai"}}, "judge.model"),
        ({"max_cost": 1.0, "judge": {"backend": "openai", "model": "j"}}, "no price for j"),
        ({"sute": "demo"}, "Did you mean 'suite'"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EvaluationSettings(**values)


def test_one_model_in_two_places() -> None:
    assert EvaluationSettings(model="a").predict.model == "a"
    assert EvaluationSettings(predict={"model": "a"}).model == "a"
    assert EvaluationSettings(model="a").changed(limit=2).predict.model == "a"
