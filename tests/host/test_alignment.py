"""What happens to rows that cannot be used, before a training starts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from hound_plugin.errors import DataError, MediaNotFoundError
from hound_plugin.host import settings_state
from hound_plugin.settings import HoundSettings
from tests.host.hosting import write_dataset
from tests.host.test_pipeline import Host, turns

GOOD = {"video": "clip_short", "conversations": turns("<video>\nWhat moves?", "A ball.")}
BAD: list[dict[str, Any]] = [
    {"id": "blank", "video": "clip_short", "conversations": turns("<video>\nQ?", "  ")},
    {"id": "lone", "video": "clip_short", "conversations": turns("<video>\nQ?")},
    {"id": "again", "video": "clip_short", "conversations": turns("<video>\nQ?", " \n")},
    {"id": "fast", "video": {"path": "clip_short", "fps": 4}, "conversations": turns("<video>\nQ?", "A.")},
]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return Host(tmp_path)


def choose(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    build = HoundSettings.build
    monkeypatch.setattr(HoundSettings, "build", lambda block=None, environment=None: build({**settings}, {}))
    monkeypatch.setattr(settings_state, "_settings", HoundSettings.build())


def write(host: Host, good: int, bad: int = len(BAD), **info: Any) -> None:
    rows = [{**GOOD, "id": str(number)} for number in range(good)]
    for number, row in enumerate(BAD[:bad]):
        rows.insert(2 * number + 1, row)
    write_dataset(host.folder / "data", "mixed", rows, **info)


def listed(host: Host) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (host.folder / "out" / "bad_rows.jsonl").read_text().splitlines()]


def test_all_problems_are_in_one_message(host: Host) -> None:
    write(host, 10)
    with pytest.raises(DataError) as caught:
        host.load("sft", "mixed")
    text = str(caught.value)
    assert text.startswith("4 of 14 rows of dataset 'mixed.jsonl' cannot be used:\n        2  blank answer")
    for part in ("row 2, id 'blank'", "no answer", "row 4, id 'lone'", "`video.fps`", "on_bad_rows: skip"):
        assert part in text
    assert "'again'" not in text, "one example of a kind"
    assert [(row["row"], row["id"]) for row in listed(host)] == [(2, "blank"), (4, "lone"), (6, "again"), (8, "fast")]
    assert {row["problem"] for row in listed(host)} == {"blank answer", "no answer", "not honoured"}


def test_skip_leaves_them_out(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    write(host, 10)
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=0.5)
    assert len(host.load("sft", "mixed")) == 10
    assert len(listed(host)) == 4


def test_too_many_stop_all_the_same(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, on_bad_rows="skip")
    write(host, 150, bad=1)
    assert len(host.load("sft", "mixed")) == 150
    write(host, 150, bad=2)
    with pytest.raises(DataError, match=r"2 of 152 rows .* more than the share of 0\.01"):
        host.load("sft", "mixed")


def test_a_stream_leaves_them_out_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    write(host, 10)
    with pytest.raises(DataError, match="blank answer"):
        list(host.load("sft", "mixed", streaming=True, max_steps=1))
    choose(monkeypatch, on_bad_rows="skip")
    assert len(list(host.load("sft", "mixed", streaming=True, max_steps=1))) == 10


def test_media_that_came_back_are_found(host: Host) -> None:
    """A result that was kept with its problems would refuse the rows for ever."""
    write_dataset(host.folder / "data", "gone", [{**GOOD, "id": "a", "video": "later"}])
    with pytest.raises(MediaNotFoundError, match="'later' under media_dir"):
        host.load("sft", "gone")
    shutil.copytree(Path(host.folder / "media" / "clip_short").resolve(), host.folder / "media" / "later")
    assert len(host.load("sft", "gone")) == 1


def test_decisions_and_unknown_fields_are_said_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"id": str(n), "video": "clip_short", "conversations": turns("<image>\nQ?", "A."), "colour": "red", "score": n}
        for n in range(5)
    ]
    write_dataset(host.folder / "data", "said", rows)
    host.load("sft", "said")  # at the level that users have
    assert caplog.text.count("`<image>` in rows with only clips stands for the clip (5 rows)") == 1
    assert caplog.text.count("fields that nothing reads, by rows: `colour` (5)") == 1
    assert "`score`" not in caplog.text


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [
        {"id": str(n), "video": "clip_short", "conversations": turns("<video>\nQ?", f"A {n}."), "label": label}
        for n, label in enumerate(labels)
    ]


def test_labels_as_people_write_them(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """And without the host's warning, which looks at a batch alone."""
    write_dataset(host.folder / "data", "kto", labelled(True, 0, "true", "False", 1, "0"))
    with caplog.at_level("INFO"):
        rows = host.load("kto", "kto")
    assert [row["kto_tags"] for row in rows] == [True, False, True, False, True, False]
    assert "preference type" not in caplog.text
    assert "every label" not in caplog.text


def test_labels_of_one_kind_are_said(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(host.folder / "data", "kto", labelled(True, "1"))
    with caplog.at_level("INFO"):
        host.load("kto", "kto")
    assert "every label is true; KTO learns from good and from bad answers" in caplog.text


def test_labels_that_are_none_are_refused(host: Host) -> None:
    write_dataset(host.folder / "data", "kto", labelled(True, "good", None, 2, False))
    with pytest.raises(
        DataError, match=r"(?s)3 of 5 rows.*row 2, id '1': `label`: expected true, false, 1 or 0, found"
    ) as caught:
        host.load("kto", "kto")
    assert re.search(r"no label +row 3, id '2': `label`: expected true or false", str(caught.value))


PREDICT: dict[str, Any] = {"do_train": False, "do_predict": True, "predict_with_generate": True, "dataset": None}


@pytest.mark.parametrize("stage", ["sft", "pt", "predictions"])
def test_a_rejected_answer_is_neither_learned_nor_compared_with(stage: str, host: Host) -> None:
    write_dataset(host.folder / "data", "kto", labelled(True, False, "0"))
    changes = {**PREDICT, "eval_dataset": "kto"} if stage == "predictions" else {"packing": False}
    with pytest.raises(
        DataError, match=r"2 of 3 rows.*(?s:.)*row 2, id '1': `label`: expected a good answer, .*`stage: kto`"
    ):
        host.load("sft" if stage == "predictions" else stage, "kto", **changes)


def test_rows_that_are_labelled_good_are_learned(host: Host) -> None:
    write_dataset(host.folder / "data", "kto", labelled(True, "true", 1))
    assert len(host.load("sft", "kto")) == 3


def test_a_label_of_a_pair_is_counted_as_not_read(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    pair = {"video": "clip_short", "prompt": "Q?", "chosen": "A.", "rejected": "B."}
    rows = [{"id": str(n), **pair, **label} for n, label in enumerate(({"label": False}, {"kto_tag": "good"}, {}))]
    write_dataset(host.folder / "data", "mine", rows, ranking=True)
    with caplog.at_level("WARNING"):
        assert len(host.load("dpo", "mine")) == 3
    assert re.search(r"fields that nothing reads, by rows: `label` \(1\), `kto_tag` \(1\)", caplog.text)


Asked = tuple[dict[str, Any], str, str]
REPEATED: dict[str, Asked] = {
    "in front and behind": ({"video": "clip_short"}, "<video>\nWhat is it? <video>", "video"),
    "three in front": ({"videos": ["clip_short"]}, "<video><video><video> What is it?", "video"),
    "in the middle": ({"image": "img_wide.jpg"}, "Is <image> like <image>?", "image"),
    "as the other kind": ({"video": "clip_short"}, "<image><image> What is it?", "video"),
}


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_placeholders_that_stand_for_one_clip_are_counted(
    stage: str, name: str, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """The original removes all of them, and puts one in front."""
    media, question, kind = REPEATED[name]
    answers = (
        {"prompt": question, "chosen": "A.", "rejected": "B."}
        if stage == "dpo"
        else {"conversations": turns(question, "A.")}
    )
    rows = [{"id": str(n), **media, **answers} for n in range(3)]
    write_dataset(host.folder / "data", "mine", rows, **({"ranking": True} if stage == "dpo" else {}))
    with caplog.at_level("WARNING"):
        (first, *_) = host.load(stage, "mine")
    token, count = {
        "video": (host.processor.video_token_id, host.processor.tokens_per_video),
        "image": (host.processor.image_token_id, host.processor.tokens_per_image),
    }[kind]
    assert first["chosen_input_ids" if stage == "dpo" else "input_ids"].count(token) == count
    assert f"`<{kind}>` several times in a question stands for one {'clip' if kind == 'video' else kind}" in caplog.text
    assert "in the original (3 rows)" in caplog.text


def test_placeholders_for_several_clips_are_no_note(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    row = {"id": "1", "videos": ["clip_short", "clip_long"], "conversations": turns("<video> or <video>?", "A.")}
    write_dataset(host.folder / "data", "mine", [row])
    with caplog.at_level("WARNING"):
        host.load("sft", "mine")
    assert "several times" not in caplog.text


def test_placeholders_in_the_host_s_own_format_are_said(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"conversations": turns("<video>What? <video>", "A."), "video": ["clip_short"]}] * 2
    columns = {"messages": "conversations", "videos": "video"}
    write_dataset(host.folder / "data", "mine", rows, formatting="sharegpt", columns=columns)
    with caplog.at_level("WARNING"):
        host.load("sft", "mine")
    assert "`<video>` several times in a question stands for one clip" in caplog.text


def test_a_field_that_columns_puts_aside_is_counted(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    row = {"id": "1", "clip_name": "clip_short", "videos": ["clip_long"], "conversations": turns("<video>\nQ?", "A.")}
    write_dataset(host.folder / "data", "named", [row], columns={"videos": "clip_name"})
    with caplog.at_level("INFO"):
        (read,) = host.load("sft", "named")
    assert [Path(path).name for path in read["videos"]] == ["clip_short"]
    assert "`videos beside clip_name` (1)" in caplog.text


def test_all_data_sets_of_a_run_are_in_one_message_and_one_list(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [{**GOOD, "id": str(number)} for number in range(4)]
    write_dataset(host.folder / "data", "one", [*good, BAD[0]])
    write_dataset(host.folder / "data", "two", [BAD[1], *good, BAD[3]])
    write_dataset(host.folder / "data", "all_bad", [BAD[2]])
    with pytest.raises(DataError) as caught:
        host.load("sft", "one,two", eval_dataset="all_bad")
    for part in (
        "1 of 5 rows of dataset 'one.jsonl'",
        "2 of 6 rows of dataset 'two.jsonl'",
        "1 of 1 rows of dataset 'all_bad",
    ):
        assert part in str(caught.value)
    assert [row["id"] for row in listed(host)] == ["blank", "lone", "fast", "again"]
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=0.5)
    assert len(host.load("sft", "one,two")) == 8
    assert [row["id"] for row in listed(host)] == ["blank", "lone", "fast"]
    write_dataset(host.folder / "data", "two", good)
    write_dataset(host.folder / "data", "one", good)
    assert len(host.load("sft", "one,two")) == 8
    assert not (host.folder / "out" / "bad_rows.jsonl").exists(), "the list of an earlier run"


def test_a_stream_in_any_order_counts_its_bad_rows(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Loader workers get the parts of a file in an order of their own."""
    from hound_plugin.host.alignment import Collecting, Usable
    from hound_plugin.host.converter import HoundDatasetConverter
    from hound_plugin.host.row_source import FILE, NUMBER, ROW

    rows = [{**GOOD, "id": str(n), "colour": "red"} for n in range(40)]
    rows[3:6] = BAD[:3]
    write_dataset(host.folder / "data", "order", rows)
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=0.5)
    host.load("sft", "order")
    attr = type("Attr", (), {"ranking": False, "kto_tag": None, "dataset_name": "order", "formatting": "hound"})()
    usable = Usable(
        Collecting(HoundDatasetConverter(attr, type("Args", (), {"media_dir": str(host.folder / "media")})()))
    )
    order = [*range(20, 40), *range(20), *range(10)]  # the second part first, and the beginning once more
    kept = 0
    caplog.clear()
    for start in range(0, len(order), 8):
        part = order[start : start + 8]
        batch = {ROW: [json.dumps(rows[n]) for n in part], NUMBER: [n + 1 for n in part], FILE: ["f"] * len(part)}
        kept += len(usable(batch)["_prompt"])
    assert kept == len(order) - 6
    assert usable.report.bad == 3
    assert caplog.text.count("on_bad_rows: skip:") == 3
    assert caplog.text.count("fields that nothing reads, by rows: `colour`") == 1


def test_media_that_came_back_are_found_after_skipping_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=0.6)
    rows = [{**GOOD, "id": "a"}, {**GOOD, "id": "b", "video": "later"}]
    write_dataset(host.folder / "data", "gone", rows)
    assert len(host.load("sft", "gone", overwrite_cache=False)) == 1
    shutil.copytree(Path(host.folder / "media" / "clip_short").resolve(), host.folder / "media" / "later")
    assert len(host.load("sft", "gone", overwrite_cache=False)) == 2
    assert not (host.folder / "out" / "bad_rows.jsonl").exists()


def test_a_part_that_cannot_be_read_is_a_bad_row(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {**GOOD, "id": "a"},
        {**GOOD, "id": "b", "video": "clip_long.mp4#t=2,1"},
        {**GOOD, "id": "c", "video": "clip_short#t=1"},
    ]
    write_dataset(host.folder / "data", "parts", rows)
    with pytest.raises(DataError, match=r"(?s)2 of 3 rows.*part of a clip"):
        host.load("sft", "parts")


def test_no_row_is_left(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=1)
    write_dataset(host.folder / "data", "none", [BAD[0]])
    with pytest.raises(DataError, match=r"No row is left: 1 of 1 rows of dataset 'none.jsonl'"):
        host.load("sft", "none")


def test_labels_with_names_are_refused(host: Host) -> None:
    rows = labelled(0, 1)
    features = datasets.Dataset.from_list(rows).features
    features["label"] = datasets.ClassLabel(names=["good", "bad"])
    (host.folder / "data").mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(host.folder / "data" / "kto.parquet")
    info = {"kto": {"file_name": "kto.parquet", "formatting": "hound"}}
    (host.folder / "data" / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(
        DataError, match=r"expected true and false in `label`, found numbers that stand for 'good', 'bad'"
    ):
        host.load("kto", "kto")
