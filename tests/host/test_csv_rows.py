"""Data sets of a training in CSV: what is in a cell is what the model learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from hound_plugin.errors import DataError
from tests.host.test_pipeline import Host
from tests.host.test_row_source import register, write

TEXTS = {"prompt": "instruction", "query": "input", "response": "output", "system": "system", "videos": "video"}
ALPACA: dict[str, Any] = {"formatting": "alpaca", "columns": TEXTS}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def learnt(host: Host, rows: Any, name: str = "labels") -> list[str]:
    texts = [host.tokenizer.decode([token for token in row[name] if token >= 0]) for row in rows]
    return [text.removesuffix("</s>").strip() for text in texts]


ANSWERS = ["042", "12", "2.50", "None", "nan", "1e5", "True"]


def test_answers_are_learnt_as_they_are_in_the_file(host: Host) -> None:
    lines = "".join(f"{number},clip_short,<video>How many?,{answer},\n" for number, answer in enumerate(ANSWERS))
    write(host, "id,video,question,answer,note\n" + lines, "mine.csv")
    assert learnt(host, host.load("sft", "mine")) == ANSWERS


def test_a_number_beside_an_empty_cell_stays_whole(host: Host) -> None:
    content = "id,video,prompt,chosen,rejected\n1,clip_short,<video>How many?,4,5\n2,clip_short,<video>How many?,6,\n"
    write(host, content, "mine.csv", ranking=True)
    with pytest.raises(DataError, match=r"mine.csv' cannot be used:\n.* row 2, id '2': `rejected`"):
        host.load("dpo", "mine")
    write(host, content.replace("6,\n", "6,07\n"), "mine.csv", ranking=True)
    rows = host.load("dpo", "mine")
    assert learnt(host, rows, "chosen_labels") == ["4", "6"]
    assert learnt(host, rows, "rejected_labels") == ["5", "07"]


def test_labels_are_true_or_false(host: Host) -> None:
    rows = ["No.,TRUE", "00,false", "x,1"]
    write(host, "video,prompt,answer,label\n" + "".join(f"clip_short,<video>Q?,{row}\n" for row in rows), "mine.csv")
    assert [row["kto_tags"] for row in host.load("kto", "mine")] == [True, False, True]


def test_lists_in_cells_are_refused_by_name(host: Host) -> None:
    content = 'video,conversations\nclip_short,"[{""from"": ""human"", ""value"": ""Q""}]"\n'
    write(host, content, "mine.csv")
    with pytest.raises(DataError, match=r"row 1.*`conversations`.*expected a list of messages"):
        host.load("sft", "mine")


def test_bad_rows_are_listed_with_file_and_number(host: Host) -> None:
    write(host, "video,question,answer\nclip_short,<video>Q?,A\nclip_short,<video>Q, really?,A\n", "mine.csv")
    with pytest.raises(DataError, match=r"1 of 2 rows of dataset 'mine.csv'.*\n.* row 2: expected 3 cells"):
        host.load("sft", "mine")


def test_the_host_s_own_format_reads_the_same_cells(host: Host) -> None:
    content = (
        "video,instruction,input,output,system\n"
        "clip_short,<video>Which word is this?,null,0070,\n"
        "clip_short,<video>Which code?,N/A,1.0,NA\n"
    )
    write(host, content, "mine.csv", **ALPACA)
    rows = host.load("sft", "mine")
    assert learnt(host, rows) == ["0070", "1.0"]
    asked = [host.tokenizer.decode(row["input_ids"]) for row in rows]
    assert "Which word is this?\nnull ASSISTANT" in asked[0]
    assert "Which code?\nN/A ASSISTANT" in asked[1]
    assert asked[1].startswith("<s> NA USER")


def test_the_host_s_own_labels_are_true_or_false(host: Host) -> None:
    header = "video,instruction,input,output,system,good\n"
    content = header + "clip_short,<video>Q?,,08,,{}\nclip_short,<video>Q?,,9,,false\n"
    info = {"formatting": "alpaca", "columns": {**TEXTS, "kto_tag": "good"}}
    write(host, content.format("True"), "mine.csv", **info)
    assert [row["kto_tags"] for row in host.load("kto", "mine")] == [True, False]
    write(host, content.format("yes"), "mine.csv", **info)
    with pytest.raises(DataError, match="expected true or false in `good`, found 'yes'"):
        host.load("kto", "mine")


def test_tables_of_a_folder_may_differ_in_columns(host: Host) -> None:
    write(host, "video,question,answer\nclip_short,<video>Q?,01\n", "more/a.csv")
    write(host, "answer,question,video,id\n02,<video>Q?,clip_short,x\n", "more/b.csv")
    register(host, file_name="more", formatting="hound")
    assert learnt(host, host.load("sft", "mine")) == ["01", "02"]
