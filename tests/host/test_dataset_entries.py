"""Entries of ``dataset_info.json``: every value is of its type and has an effect, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError
from hound_plugin.host.dataset_entries import check_entries
from tests.host.hosting import write_dataset
from tests.host.test_pipeline import Host

TALK = [{"from": "human", "value": "<video>\nQ?"}, {"from": "gpt", "value": "A."}]
ROW = {"id": "1", "video": "clip_short", "conversations": TALK}
SHARE = {"formatting": "sharegpt", "columns": {"messages": "conversations", "videos": "video"}}
HUB = {"hf_hub_url": "owner/name", "formatting": "hound"}
OURS = {"file_name": "mine.jsonl", "formatting": "hound"}

RIGHT: dict[str, Any] = {
    "ours": OURS,
    "pairs": {**OURS, "ranking": True},
    "a hub's": {**HUB, "subset": "a", "folder": "b", "split": "test"},
    "two hubs'": {**HUB, "ms_hub_url": "owner/name"},
    "a script's": {"script_url": "hub", "subset": "a", "formatting": "hound"},
    "nulls": {**HUB, "subset": None, "folder": None, "num_samples": None, "columns": {"videos": None}},
    "all of it": {**OURS, "num_samples": 3, "split": "train", "columns": {"videos": "video", "kto_tag": "label"}},
    "tags": {**OURS, **SHARE, "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user"}},
}
WRONG: dict[str, tuple[Any, str]] = {
    "true as text": ({**OURS, "ranking": "true"}, r'`ranking`: expected true or false, without quotes, found "true"'),
    "false as text": ({**OURS, "ranking": "false"}, r'`ranking`: expected true or false, .* found "false"'),
    "a number as truth": ({**OURS, "ranking": 1}, "`ranking`: expected true or false, without quotes, found 1"),
    "no truth": ({**OURS, "ranking": None}, "`ranking`: expected true or false, .*found null"),
    "a list of columns": ({**OURS, "columns": ["video"]}, r"`columns`: expected an object such as .*found \[\"video"),
    "a text as columns": ({**OURS, "columns": "video"}, r"`columns`: expected an object"),
    "a column as list": ({**OURS, "columns": {"videos": ["video"]}}, r"`columns.videos`: expected a text, found \["),
    "an empty column": ({**OURS, "columns": {"videos": ""}}, r"`columns.videos`: expected a text"),
    "a column of ours": ({**OURS, "columns": {"video": "clip"}}, r"`columns` has `video`.*did you mean `videos`"),
    "a column of nobody": ({**OURS, "columns": {"zzz": "clip"}}, r"`columns` has `zzz`.*the host reads prompt, query"),
    "a tag as number": ({**OURS, "tags": {"role_tag": 3}}, r"`tags.role_tag`: expected a text, found 3"),
    "a tag misspelt": ({**OURS, "tags": {"rol_tag": "role"}}, r"did you mean `role_tag`"),
    "tags as list": ({**OURS, "tags": []}, "`tags`: expected an object"),
    "a key misspelt": ({**OURS, "rankings": True}, r"`rankings` is not a key .*did you mean `ranking`"),
    "a column outside": ({**OURS, "messages": "talk"}, r'belongs into `columns`: "columns": {"messages": "talk"}'),
    "a tag outside": ({**OURS, "role_tag": "role"}, r"belongs into `tags`"),
    "a file as list": ({**OURS, "file_name": ["a.jsonl"]}, r"`file_name`: expected a text"),
    "no file": ({**OURS, "file_name": ""}, r"`file_name`: expected a text"),
    "nowhere": ({"formatting": "hound"}, "expected `file_name`, `hf_hub_url` or another place of its rows"),
    "here and there": ({**OURS, **HUB}, "expected one place of its rows, found `hf_hub_url` and `file_name`"),
    "a folder of a file": ({**OURS, "folder": "data"}, "`folder` has no effect with `file_name`"),
    "a subset of a file": ({**OURS, "subset": "a"}, "`subset` has no effect with `file_name`"),
    "a format misspelt": ({**OURS, "formatting": "huond"}, "expected one of alpaca, hound, openai, sharegpt"),
    "a format as list": ({**OURS, "formatting": ["hound"]}, "`formatting`: expected one of"),
    "a split as number": ({**HUB, "split": 1}, "`split`: expected a text"),
    "samples as text": ({**OURS, "num_samples": "12"}, r'`num_samples`: expected a whole number .*found "12"'),
    "no samples": ({**OURS, "num_samples": 0}, "`num_samples`: expected a whole number of at least 1, found 0"),
    "true samples": ({**OURS, "num_samples": True}, "`num_samples`: expected a whole number of at least 1, found true"),
    "half a sample": ({**OURS, "num_samples": 1.5}, "`num_samples`: expected a whole number"),
    "an entry as text": ("mine.jsonl", r'expected an object as its entry, found "mine.jsonl"'),
}


@pytest.mark.parametrize("given", ["as a file", "as an object"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_entry_is_refused_by_name(name: str, given: str, tmp_path: Path) -> None:
    entry, message = WRONG[name]
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry, "other": 3}))
    with pytest.raises(DataError, match=f"dataset 'mine': .*{message}.*Correct dataset_info.json"):
        check_entries(["mine"], str(tmp_path) if given == "as a file" else {"mine": entry})


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_entry_passes(name: str) -> None:
    check_entries(["mine", "absent"], {"mine": RIGHT[name]})


def test_all_problems_of_all_entries_are_in_one_message() -> None:
    wrong = {"a": {**OURS, "ranking": "yes"}, "b": {**OURS, "tags": 1, "num_samples": -1}}
    with pytest.raises(DataError, match=r"'a': `ranking`.*; dataset 'b': `num_samples`.*; dataset 'b': `tags`"):
        check_entries(["a", "b"], wrong)


@pytest.mark.parametrize(("content", "message"), [('{"a": ', "Expected JSON in"), ("[1]", "Expected an object with")])
def test_a_broken_file_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(DataError, match=message):
        check_entries(["a"], str(tmp_path))


def test_the_host_does_not_take_text_for_truth(host: Host) -> None:
    write_dataset(host.folder / "data", "mine", [ROW], ranking="false")
    with pytest.raises(DataError, match=r"dataset 'mine': `ranking`: expected true or false"):
        host.load("sft", "mine")


def test_a_key_that_nothing_reads_is_said(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(host.folder / "data", "mine", [ROW], _about="from the lab")
    with caplog.at_level("WARNING"):
        assert len(host.load("sft", "mine")) == 1
    assert "dataset 'mine': nothing reads `_about` of its entry" in caplog.text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dataset": "mine,mine"}, "found 'mine' repeatedly in mine, mine"),
        ({"dataset": "mine, other ,mine,other"}, "found 'mine', 'other' repeatedly in mine, other, mine, other"),
        ({"dataset": "mine", "eval_dataset": "other,other"}, "found 'other' repeatedly in other, other"),
    ],
)
def test_a_data_set_that_is_named_twice(options: dict[str, Any], named: str, host: Host) -> None:
    """The host would train on its rows once."""
    write_dataset(host.folder / "data", "mine", [ROW])
    write_dataset(host.folder / "data", "other", [ROW])
    with pytest.raises(DataError, match=f"Expected each data set once, {named}: the host would read it once"):
        host.load("sft", "mine", **options)


def test_a_number_of_samples_of_a_stream(host: Host) -> None:
    write_dataset(host.folder / "data", "mine", [ROW] * 3, num_samples=2)
    assert len(host.load("sft", "mine")) == 2
    with pytest.raises(DataError, match=r"`num_samples` of its entry .* has no effect with `streaming: true`"):
        host.load("sft", "mine", streaming=True, max_steps=1)


@pytest.mark.parametrize(
    ("stage", "columns", "message"),
    [
        ("sft", {"kto_tag": "label"}, r"Expected data sets of good answers for `stage: sft`; .*Choose `stage: kto`"),
        ("pt", {"kto_tag": "label"}, r"Expected data sets of good answers for `stage: pt`"),
        ("kto", {}, r'labelled answers for `stage: kto`; .*Write "columns": {"kto_tag": ...}'),
    ],
)
def test_labels_in_the_host_s_own_format(stage: str, columns: dict[str, str], message: str, host: Host) -> None:
    """The host drops such rows one by one."""
    info = {**SHARE, "columns": {**SHARE["columns"], **columns}}  # type: ignore[dict-item]
    write_dataset(host.folder / "data", "mine", [{**ROW, "video": ["clip_short"], "label": True}], **info)
    with pytest.raises(DataError, match=message):
        host.load(stage, "mine", packing=False)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)
