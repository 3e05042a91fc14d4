"""The file of the reference's log-probabilities: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError
from hound_plugin.host.reference.file import (
    PartialFile,
    Rows,
    Stored,
    differences,
    read_file,
    read_partials,
    remove_partials,
    write_file,
)

REFERENCE: dict[str, Any] = {
    "weights": {"model.safetensors": "a" * 64, "config.json": "b" * 64},
    "adapters": [{"adapter_model.safetensors": "c" * 64}],
    "clips": {"num_frames": 8, "frame_sampling": "uniform"},
    "dtype": "torch.float32",
}
ROWS: Rows = {
    "one": Stored((-1.1920928955078125e-07, -123.45678711), (3, 40)),
    "two": Stored((-5.5, -0.25), (1, 2)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_file(tmp_path / "reference.jsonl", REFERENCE, ROWS)
    return tmp_path / "reference.jsonl"


def test_what_was_written_is_read(path: Path) -> None:
    assert read_file(path, REFERENCE) == ROWS
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("123.45", "123.46"), "expected 2 rows, .* it has 2, changed ones"),
        (lambda text: text[: text.rindex("{")], "expected 2 rows, as its first line says; it has 1"),
        (lambda text: text[:-7], "damaged or cut off"),
        (lambda text: text + text.splitlines()[-1] + "\n", "it has 3"),
        (lambda text: text[:40], "is damaged, or not such a file"),
        (lambda text: "", "is damaged, or not such a file"),
        (lambda text: text.partition("\n")[2], "expected a file that `hound reward ref-logps`"),
        (lambda text: '{"id": "clip", "chosen": "yes"}\n', "expected a file that `hound reward ref-logps`"),
        (lambda text: "[1, 2]\n", "expected a file that `hound reward ref-logps`"),
    ],
)
def test_a_damaged_or_another_file_is_refused(path: Path, change: Any, message: str) -> None:
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        read_file(path, REFERENCE)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00" + path.read_bytes())
    with pytest.raises(DataError, match="is damaged, or not such a file"):
        read_file(path, REFERENCE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "torch.bfloat16"}, "dtype: 'torch.float32' there, 'torch.bfloat16' now"),
        ({"clips": {"num_frames": 16, "frame_sampling": "uniform"}}, "clips.num_frames: 8 there, 16 now"),
        ({"weights": {**REFERENCE["weights"], "config.json": "d" * 64}}, "weights.config.json: other content"),
        ({"adapters": []}, "adapters: "),
        (
            {"adapters": [{"adapter_model.safetensors": "e" * 64}]},
            "adapters 1.adapter_model.safetensors: other content",
        ),
    ],
)
def test_another_reference_is_refused_with_what_differs(path: Path, change: dict[str, Any], words: str) -> None:
    now = {**REFERENCE, **change}
    assert len(differences(REFERENCE, now)) == 1
    with pytest.raises(DataError, match=r"is of another reference \(.*\)\. Delete .* or name another file"):
        read_file(path, now)
    assert differences(REFERENCE, now)[0].startswith(words)
    assert differences(REFERENCE, json.loads(json.dumps(REFERENCE))) == []


def test_a_stopped_computation_leaves_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "reference.jsonl"
    for rank, key in enumerate(ROWS):
        PartialFile(path, rank, REFERENCE).append({key: ROWS[key]})
    PartialFile(path, 0, REFERENCE).append({"three": ROWS["one"]})  # started again
    with (tmp_path / "reference.jsonl.partial-1").open("a") as file:
        file.write('{"row": "four", "log_pro')  # killed in the middle of a line
    assert read_partials(path, REFERENCE) == {**ROWS, "three": ROWS["one"]}
    PartialFile(path, 1, REFERENCE).append({"five": ROWS["two"]})
    assert read_partials(path, REFERENCE) == {**ROWS, "three": ROWS["one"], "five": ROWS["two"]}
    remove_partials(path)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_reference_are_not_read(tmp_path: Path) -> None:
    path, other = tmp_path / "reference.jsonl", {**REFERENCE, "dtype": "torch.bfloat16"}
    PartialFile(path, 0, other).append(ROWS)
    PartialFile(path, 3, other).append(ROWS)
    assert read_partials(path, REFERENCE) == {}
    part = PartialFile(path, 0, REFERENCE)
    part.append({"one": ROWS["one"]})
    assert read_partials(path, REFERENCE) == {"one": ROWS["one"]}
