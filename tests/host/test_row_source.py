"""Rows of every shape through the host's loader, and what it says of mistakes in ``dataset_info.json``."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from llamafactory.data import get_dataset

from hound_plugin.errors import DataError
from hound_plugin.host.row_source import read_texts, row_of
from tests.corpus.hub import Hub, lines, serving
from tests.host import test_pipeline
from tests.host.hosting import REPO
from tests.host.test_pipeline import Host

FRAMES = [f"clip_long/c01_00{number:02d}.jpeg" for number in (1, 8, 16)]
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def write(host: Host, content: bytes | str | list[Row], name: str = "mine.jsonl", **info: Any) -> None:
    """A data set `mine` of one file."""
    file = host.folder / "data" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = lines(content)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    register(host, **{"file_name": name, "formatting": "hound", **info})


def register(host: Host, name: str = "mine", **info: Any) -> None:
    file = host.folder / "data" / "dataset_info.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text()) if file.exists() else {}
    entry = {key: value for key, value in info.items() if value is not None}
    file.write_text(json.dumps({**known, name: entry}))


def talk(*texts: Any, token: str = "<video>", tags: str = "from value human gpt") -> list[Row]:
    role, content, *roles = tags.split()
    return [
        {role: roles[number % 2], content: f"{token}\n{text}" if number % 2 == 0 and token else text}
        for number, text in enumerate(texts)
    ]


# Each differs from the one before it in the type of a column.
MIXED: list[Row] = [
    {"id": 1, "video": "clip_long", "conversations": talk("Red?", "One."), "score": 5},
    {"id": "a2", "video": ["clip_long", "clip_short"], "conversations": talk("Blue?", "Two.", "Up?", "Three.")},
    {"id": 2.5, "video": FRAMES, "conversations": talk("Green?", "Four."), "score": "n/a"},
    {"id": None, "image": "img_wide.jpg", "conversations": talk("Grey?", "Five.", token="<image>"), "score": [1]},
    {"id": 7, "conversations": talk("Text?", "Six.", token=""), "meta": {"a": 1}},
    {"id": "s 8", "video": [FRAMES], "conversations": talk("Sky?", "Seven."), "meta": "none", "system": "Be terse."},
]
LEARNT: list[list[str]] = [["One."], ["Two.", "Three."], ["Four."], ["Five."], ["Six."], ["Seven."]]
ASKED = ["Red?", "Blue?", "Green?", "Grey?", "Text?", "Sky?"]

PAIRS: list[Row] = [
    {"id": 1, "video": "clip_long", "prompt": "Red?", "chosen": "One.", "rejected": "No.", "chosen_score": 5},
    {"id": "b", "video": FRAMES, "prompt": "Blue?", "chosen": {"from": "gpt", "value": "Two."}, "rejected": "No."},
    {
        "id": "c",
        "video": "clip_short",
        "prompt": [{"role": "user", "content": "Green?"}],
        "chosen": [{"role": "assistant", "content": "Three."}],
        "rejected": "No.",
        "chosen_score": "n/a",
    },
    {"id": "d", "image": "img_tall.png", "prompt": "Grey?", "chosen": "Four.", "rejected": "No.", "chosen_score": {}},
]


def paths(host: Host, *items: Any) -> list[Any]:
    media = host.folder / "media"
    return [[str(media / frame) for frame in item] if isinstance(item, list) else str(media / item) for item in items]


def check(host: Host, row: Row, number: int) -> None:
    """What row ``number`` of ``MIXED`` teaches."""
    learnt = host.tokenizer.decode([token for token in row["labels"] if token != -100])
    assert [text.strip() for text in learnt.split("</s>") if text.strip()] == LEARNT[number]
    seen = host.tokenizer.decode(row["input_ids"])
    assert ASKED[number] in seen
    assert seen.startswith("<s> Be terse. USER") == (number == 5)
    clips = {0: ["clip_long"], 1: ["clip_long", "clip_short"], 2: [FRAMES], 5: [FRAMES]}.get(number, [])
    images = ["img_wide.jpg"] if number == 3 else []
    assert (row["videos"] or []) == paths(host, *clips)
    assert (row["images"] or []) == paths(host, *images)
    tokens = (
        row["input_ids"].count(host.processor.video_token_id),
        row["input_ids"].count(host.processor.image_token_id),
    )
    assert tokens == (len(clips) * host.processor.tokens_per_video, len(images) * host.processor.tokens_per_image)


def check_pair(host: Host, row: Row, number: int) -> None:
    for side, text in (("chosen", ("One.", "Two.", "Three.", "Four.")[number]), ("rejected", "No.")):
        learnt = host.tokenizer.decode([token for token in row[f"{side}_labels"] if token != -100])
        assert learnt.removesuffix("</s>").strip() == text
        assert ("Red?", "Blue?", "Green?", "Grey?")[number] in host.tokenizer.decode(row[f"{side}_input_ids"])
    clips: list[Any] = [["clip_long"], [FRAMES], ["clip_short"], []][number]
    assert (row["videos"] or []) == paths(host, *clips)
    assert (row["images"] or []) == (paths(host, "img_tall.png") if number == 3 else [])


STREAM = {"streaming": True, "buffer_size": 1, "max_steps": 1}
WAYS = {
    "2 workers": {"preprocessing_num_workers": 2},
    "16 workers": {"preprocessing_num_workers": 16},
    "streamed": STREAM,
    "streamed to 3 workers": {**STREAM, "dataloader_num_workers": 3},
}


@pytest.mark.parametrize("way", WAYS)
def test_supervised_rows_of_every_type_are_learnt(way: str, host: Host) -> None:
    write(host, b"\xef\xbb\xbf" + lines(MIXED))
    found = list(host.load("sft", "mine", **WAYS[way]))
    assert len(found) == len(MIXED)
    for row in found:
        number = next(number for number, text in enumerate(ASKED) if text in host.tokenizer.decode(row["input_ids"]))
        check(host, row, number)
    if "streamed" not in way:
        assert [ASKED[number] in host.tokenizer.decode(row["input_ids"]) for number, row in enumerate(found)] == [
            True
        ] * 6


@pytest.mark.parametrize("files", [1, 4])
def test_workers_of_a_loader_share_a_stream(files: int, host: Host) -> None:
    for number in range(files):
        write(host, MIXED[number::files], f"many/{number}.jsonl", file_name="many")
    stream = host.load("sft", "mine", **STREAM, dataloader_num_workers=3)
    found = list(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=3))
    texts = [host.tokenizer.decode(row["input_ids"]) for row in found]
    assert sorted(next(word for word in ASKED if word in text) for text in texts) == sorted(ASKED)


@pytest.mark.parametrize("way", WAYS)
def test_pairs_of_every_type_are_learnt(way: str, host: Host) -> None:
    write(host, PAIRS, ranking=True)
    found = list(host.load("dpo", "mine", **WAYS[way]))
    assert len(found) == len(PAIRS)
    for row in found:
        text = host.tokenizer.decode(row["chosen_input_ids"])
        check_pair(host, row, next(n for n, word in enumerate(("Red?", "Blue?", "Green?", "Grey?")) if word in text))


@pytest.mark.parametrize("kind", ["array", "gzip", "folder", "pretty array"])
def test_every_kind_of_json_file(kind: str, host: Host) -> None:
    if kind == "array":
        write(host, json.dumps(MIXED), "mine.json")
    elif kind == "pretty array":
        write(host, "\ufeff" + json.dumps(MIXED, indent=1), "mine.json")
    elif kind == "gzip":
        write(host, gzip.compress(lines(MIXED)), "mine.jsonl.gz")
    else:
        write(host, MIXED[3:], "many/b.jsonl")
        write(host, MIXED[:3], "many/a.jsonl", file_name="many")
    found = host.load("sft", "mine")
    assert len(found) == len(MIXED)
    for number, row in enumerate(found):
        check(host, row, number)


def test_a_changed_file_is_read_again(host: Host) -> None:
    write(host, MIXED[:1])
    file = host.folder / "data" / "mine.jsonl"
    assert len(host.load("sft", "mine", overwrite_cache=False)) == 1
    stamp = file.stat()
    write(host, MIXED[:2])
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # another size, the same time
    assert len(host.load("sft", "mine", overwrite_cache=False)) == 2
    write(host, [{**MIXED[4], "conversations": talk("Text?", "Ten.", token="")}, MIXED[0]])
    row = host.load("sft", "mine", overwrite_cache=False)[0]
    assert "Ten." in host.tokenizer.decode(row["input_ids"])


def shared(host: Host, answer: str, kind: str) -> None:
    """One row in the host's own format, in a file of one size and one time of change."""
    file = host.folder / "data" / f"mine.{kind}"
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"messages": talk("Text?", answer, token="")}
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), file, compression="none", use_dictionary=False)
    elif kind == "csv":
        file.write_text(f"question,answer\nText?,{answer}\n")
    else:
        file.write_text(json.dumps(row) + "\n")
    os.utime(file, ns=(0, 10**18))
    formats = {"csv": ("alpaca", {"prompt": "question", "response": "answer"})}
    formatting, columns = formats.get(kind, ("sharegpt", {"messages": "messages"}))
    register(host, "mine", file_name=file.name, formatting=formatting, columns=columns)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["ours", "json", "parquet", "csv"])
def test_a_file_with_other_rows_of_its_size_and_time_is_read_again(kind: str, overwrite: bool, host: Host) -> None:
    for answer in ("Red.", "Tan."):
        if kind == "ours":
            write(host, [{"question": "Text?", "answer": answer}])
            os.utime(host.folder / "data" / "mine.jsonl", ns=(0, 10**18))
        else:
            shared(host, answer, kind)
        row = host.load("sft", "mine", overwrite_cache=overwrite)[0]
        assert answer in host.tokenizer.decode(row["input_ids"])


def test_the_host_s_numbers_of_samples_hold(host: Host) -> None:
    write(host, MIXED, num_samples=9)
    assert len(host.load("sft", "mine")) == 9
    write(host, MIXED, split="train[2:4]")
    assert len(host.load("sft", "mine")) == 2
    write(host, MIXED)
    assert len(host.load("sft", "mine", max_samples=2)) == 2


def test_rows_are_packed_whatever_their_clips_are(host: Host) -> None:
    write(host, [MIXED[4]] * 3 + MIXED)
    found = host.load("sft", "mine", neat_packing=True, cutoff_len=2048, preprocessing_batch_size=3)
    learnt = [host.tokenizer.decode([token for token in row["labels"] if token != -100]) for row in found]
    assert sorted(text.strip() for row in learnt for text in row.split("</s>") if text.strip()) == sorted(
        text for texts in [["Six."]] * 3 + LEARNT for text in texts
    )
    assert sorted(str(item) for row in found for item in row["videos"] or []) == sorted(
        map(str, paths(host, "clip_long", "clip_long", "clip_short", FRAMES, FRAMES))
    )


@pytest.mark.parametrize("way", ["2 workers", "streamed"])
@pytest.mark.parametrize("nested", [False, True])
def test_our_rows_mix_with_the_host_s_own_format(nested: bool, way: str, host: Host) -> None:
    write(host, MIXED)
    clip: Any = FRAMES if nested else "clip_short"
    (host.folder / "data" / "share.jsonl").write_bytes(
        lines([{"conversations": talk("And?", "Eight."), "videos": [clip]}])
    )
    columns = {"messages": "conversations", "videos": "videos"}
    register(host, "share", file_name="share.jsonl", formatting="sharegpt", columns=columns)
    found = list(host.load("sft", "share,mine", **WAYS[way]))
    assert len(found) == 7
    for row in found:
        text = host.tokenizer.decode(row["input_ids"])
        if "And?" in text:
            assert row["videos"] == paths(host, clip)
        else:
            check(host, row, next(number for number, word in enumerate(ASKED) if word in text))


def test_tokenised_rows_come_back_from_disk(host: Host) -> None:
    write(host, MIXED)
    host.load("sft", "mine", tokenized_path=str(host.folder / "tokens"))
    for number, row in enumerate(host.load("sft", "mine", tokenized_path=str(host.folder / "tokens"))):
        check(host, row, number)


def test_columns_may_have_other_names(host: Host) -> None:
    row = {"clip": "clip_short", "turns": talk("Red?", "One."), "rules": "Be kind."}
    columns = {"videos": "clip", "messages": "turns", "system": "rules"}
    write(host, [MIXED[4] | {"turns": talk("Text?", "Six.", token="")}, row], columns=columns)
    seen = host.load("sft", "mine")[1]
    assert seen["videos"] == paths(host, "clip_short")
    assert host.tokenizer.decode(seen["input_ids"]).startswith("<s> Be kind. USER")
    pair = {"video": "clip_short", "prompt": "Red?", "good": "One.", "bad": "No."}
    write(host, [pair], ranking=True, columns={"chosen": "good", "rejected": "bad"})
    check_answers = host.load("dpo", "mine")[0]
    assert "One." in host.tokenizer.decode(check_answers["chosen_input_ids"])
    assert "No." in host.tokenizer.decode(check_answers["rejected_input_ids"])


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"better": "One.", "worse": None, "rejected": "No."}, {"chosen": "better", "rejected": "worse"}),
        ({"better": "One.", "chosen": "Two.", "rejected": "No."}, {"chosen": "better", "rejected": "worse"}),
    ],
)
def test_no_other_field_takes_the_place_of_a_named_column(row: Row, columns: dict[str, str], host: Host) -> None:
    write(host, [{"video": "clip_short", "prompt": "Red?", **row}], ranking=True, columns=columns)
    with pytest.raises(DataError, match=r"row 1: .*rejected"):
        host.load("dpo", "mine")


@pytest.mark.parametrize(("label", "answer"), [(True, "One."), (False, "One.")])
def test_labels_for_kto_may_have_another_name(label: bool, answer: str, host: Host) -> None:
    rows = [{**MIXED[0], "good": label}, {**MIXED[0], "id": "z", "good": not label}]
    write(host, rows, columns={"messages": "conversations", "kto_tag": "good"})
    assert [row["kto_tags"] for row in host.load("kto", "mine")] == [label, not label]


def test_parquet_keeps_the_host_s_way_and_its_nulls_mean_absent(host: Host) -> None:
    file = host.folder / "data" / "mine.parquet"
    file.parent.mkdir(parents=True)
    datasets.Dataset.from_list(
        [MIXED[0] | {"image": None}, {**MIXED[3], "id": 2, "score": 1, "video": None}]
    ).to_parquet(file)
    register(host, file_name="mine.parquet", formatting="hound")
    found = host.load("sft", "mine")
    check(host, found[0], 0)
    check(host, found[1], 3)


def test_data_sets_of_other_templates_pass_through(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamafactory.data import loader
    from llamafactory.hparams import get_train_args

    write(host, [{"instruction": "Q", "input": "", "output": "A", "conversations": talk("x", "y")}], formatting=None)
    arguments = {"model_name_or_path": "x", "stage": "sft", "dataset": "mine", "dataset_dir": str(host.folder / "data")}
    model, data, training, *_ = get_train_args(
        {**arguments, "template": "vicuna", "output_dir": str(host.folder / "out"), "do_train": True}
    )
    attr = loader.get_dataset_list(["mine"], data.dataset_dir)[0]
    aligned = loader._load_single_dataset(attr, model, data, training)
    assert aligned[0]["_response"] == [{"role": "assistant", "content": "A"}]
    write(host, [{"question": "Q"}], formatting=None)
    with pytest.raises(KeyError, match="instruction"):  # as without the plugin
        loader._load_single_dataset(attr, model, data, training)


# --- the hub


@contextmanager
def reachable(hub: Hub, folder: Path) -> Iterator[None]:
    """The stand-in is the hub, while data are loaded."""
    with pytest.MonkeyPatch.context() as patch:
        constants = huggingface_hub.constants
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        yield


@pytest.mark.parametrize("changes", [{}, STREAM, {**STREAM, "dataloader_num_workers": 2}])
def test_a_hub_data_set_is_read_as_text(changes: Row, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"train-1.jsonl": lines(MIXED[:3]), "train-2.jsonl": lines(MIXED[3:]), "test-1.jsonl": lines(MIXED)}
    with serving(Hub({"me/mine": files})) as hub:

        def online(*args: Any, **kwargs: Any) -> Any:
            with reachable(hub, host.folder):
                return get_dataset(*args, **kwargs)

        monkeypatch.setattr(test_pipeline, "get_dataset", online)
        register(host, hf_hub_url="me/mine", formatting="hound")
        dataset = host.load("sft", "mine", **changes)
        found = list(dataset)
        assert len(found) == len(MIXED)
        for row in found:
            text = host.tokenizer.decode(row["input_ids"])
            check(host, row, next(number for number, word in enumerate(ASKED) if word in text))
        if changes:
            assert dataset.n_shards == 2
        files["train-2.jsonl"] += b'{"id": 7, "conversations": 3}\n'
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(host.folder / "another"))
        monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(host.folder / "another" / "downloads"))
        hub.files["me/mine"] = files
        (host.folder / "hub").rename(host.folder / "old")
        with pytest.raises(
            DataError, match=r"'me/mine', train-2.jsonl, row 4, id '7': .conversations.: expected a list of messages"
        ):
            list(host.load("sft", "mine", **changes))


# --- what cannot be read


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": "cut", "video": "clip', r"row 3: not valid JSON: .*it begins .*\"cut\""),
        (b"[1, 2]\n", r"dataset 'mine.jsonl' cannot .*row 3: expected an object, found \[1, 2\]"),
        (b"42\n", "row 3: expected an object, found 42"),
        (b'{"id": "caf\xe9"}\n', "row 3: .*codec can.*t decode byte 0xe9"),
        (b'{"id": "\\\xe9"}\n', "row 3: .*codec can.*t decode byte 0xe9"),
        (
            lines([{"id": 9, "conversations": [{"from": "human", "value": {"x": 3}}]}]),
            r"row 3, id '9': `conversations\[0\].content\[0\]`: expected a part of type text.*found \{'x': 3\}",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_number(content: bytes, message: str, workers: int | None, host: Host) -> None:
    write(host, lines([MIXED[0]]) + b"\n" + content + lines([MIXED[1]]))
    with pytest.raises(DataError, match=f"(?s){message}"):
        host.load("sft", "mine", preprocessing_num_workers=workers)


def test_elements_of_an_array_that_are_no_objects_are_named(host: Host) -> None:
    write(host, json.dumps([MIXED[0], MIXED[1]])[:-1] + ', {"id": 1, "id": 2}]', "mine.json")
    with pytest.raises(DataError, match=r"row 3: .*the key 'id' appears twice"):
        host.load("sft", "mine")
    write(host, json.dumps([MIXED[0], "text", MIXED[1]]), "mine.json")
    with pytest.raises(DataError, match=r"(?s)'mine.json' cannot.*row 2: expected an object, found 'text'"):
        host.load("sft", "mine")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.jsonl", b"", "Expected rows in .*mine.jsonl; the file is empty"),
        ("mine.jsonl", b"\n \n", "expected rows, found none"),
        ("mine.json", b'[{"id": 1},', "Expected a JSON array in .*mine.json"),
        ("mine.json", b"[]", "expected rows, found none"),
        ("mine.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 99)[:-20], "mine.jsonl.gz is damaged or incomplete"),
        ("mine.jsonl.gz", gzip.compress(bytes(range(256)) * 9)[:100] + b"x" * 99, "mine.jsonl.gz is damaged"),
        ("mine.jsonl.gz", gzip.compress(b"\n"), "mine.jsonl.gz: expected rows, found none"),
    ],
    ids=range(7),
)
def test_files_without_rows_are_named(name: str, content: bytes, message: str, host: Host) -> None:
    write(host, content, name)
    with pytest.raises(DataError, match=message) as caught:
        host.load("sft", "mine")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_texts_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf  {"a": 1.50, "a": "\\ud800"}  \r\n\n{}\nno\n' + b'"' + b"x" * (17 << 20) + b'"\n{"b": 2}'
    )
    found = list(read_texts(file))
    assert found[:3] == [(1, '{"a": 1.50, "a": "\\ud800"}'), (3, "{}"), (4, "no")]
    assert found[3][0] == 5
    assert found[3][1].startswith("\x00a line of more than 16.8 MB")
    assert len(found[3][1]) < 300
    assert found[4:] == [(6, '{"b": 2}')]


def test_null_columns_of_typed_rows_are_absent() -> None:
    example = {"a": None, "b": [{"from": "x", "role": None}], "c": {"d": None}}
    assert row_of(example) == ({"b": [{"from": "x"}], "c": {}}, None, None)
    text = {"hound_row": '{"a": null}', "hound_number": 4, "hound_file": "f"}
    assert row_of(text) == ({"a": None}, 4, "f")


# --- dataset_info.json

SHARE = {"formatting": "sharegpt", "columns": {"messages": "conversations", "videos": "video"}}
OPENAI = talk("Q?", "A.", tags="role content user assistant")
MISTAKES: dict[str, tuple[list[Row], Row, str]] = {
    "formatting missing": (
        [MIXED[0]],
        {"formatting": None},
        r"dataset 'mine.jsonl', row 1: there is no column `instruction` \(for `prompt`, `formatting: alpaca`\); the "
        r"rows have `id`, `video`, `conversations`, `score`. Write \"formatting\": \"hound\" into",
    ),
    "formatting missing, pairs": (
        [PAIRS[0]],
        {"formatting": None, "ranking": True},
        r'no column `instruction`.* Write "formatting": "hound", "ranking": true',
    ),
    "no input": (
        [{"instruction": "Q", "output": "A"}],
        {"formatting": None},
        r"no column `input` .*the rows have `instruction`, `output`",
    ),
    "videos for video": (
        [MIXED[0]],
        {**SHARE, "columns": {"messages": "conversations", "videos": "videos"}},
        r'no column `videos` .*`video`, .*Did you mean `video`\? Write "formatting": "hound" or '
        r'"columns": {"videos": "video"}',
    ),
    "misspelt messages": (
        [MIXED[0]],
        {**SHARE, "columns": {"messages": "conversation"}},
        r"no column `conversation` .*Did you mean `conversations`\?",
    ),
    "nothing like it": (
        [MIXED[0]],
        {**SHARE, "columns": {"messages": "conversations", "system": "zzz"}},
        "no column `zzz` .*the rows have `id`, `video`",
    ),
    "pairs without their columns": (
        [{"conversations": talk("Q?", "A."), "chosen": {}, "rejected": {}}],
        {**SHARE, "columns": {"messages": "conversations"}, "ranking": True},
        r'the format needs a column for `chosen`, which dataset_info.json does not name.*"columns": '
        r'{"chosen": "chosen"}',
    ),
    "tags missing": (
        [{"messages": OPENAI, "video": "clip_long"}],
        {**SHARE, "columns": {"messages": "messages", "videos": "video"}},
        r'row 1: a message has `role`, `content`, and no `from`. Write "tags": {"role_tag": "role", "content_tag": '
        r'"content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"} or '
        r'"formatting": "hound"',
    ),
    "tags missing in part": (
        [{"messages": OPENAI, "video": "clip_long"}],
        {
            **SHARE,
            "columns": {"messages": "messages", "videos": "video"},
            "tags": {"role_tag": "role", "content_tag": "content"},
        },
        r'a message is of .user., not one of the tags \[\]. Write "tags"',
    ),
    "clips not named": (
        [MIXED[4], MIXED[0] | {"meta": {"a": 2}, "id": 8}],
        {**SHARE, "columns": {"messages": "conversations"}},
        r"row 2: a question has <video> and the row has `video`, but dataset_info.json names no column for `videos`. "
        r'Write "columns": {"videos": "video"} or "formatting": "hound"',
    ),
    "hound, misspelt": (
        [MIXED[4], MIXED[0]],
        {"columns": {"videos": "vidoe"}},
        r'no column `vidoe` \(for `videos`, `formatting: hound`\).*Write "columns": {"videos": ',
    ),
    "hound, absent": (
        MIXED,
        {"columns": {"kto_tag": "good"}},
        "dataset 'mine.jsonl', row 1: there is no column `good`",
    ),
    "ids of two types": (
        [MIXED[0] | {"id": 4, "score": None}] * 3 + [MIXED[0] | {"id": "four", "score": None}],
        SHARE,
        r"dataset 'mine.jsonl': mine.jsonl, row 4: `id` is a text, and a number in row 1. `formatting: sharegpt` needs "
        r'.*one type a column. Write "formatting": "hound"',
    ),
    "a clip and a list": (MIXED[:2], {**SHARE, "formatting": None}, r"row 2: `(id|video)` is a .*`formatting: alpaca`"),
    "parts": (
        [
            {"messages": OPENAI},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q?"}]}, OPENAI[1]]},
        ],
        {**SHARE, "columns": {"messages": "messages"}},
        r"row 2: `messages\[\].content` is a list, and a text in row 1",
    ),
    "typed answers": (
        [PAIRS[0], {**PAIRS[0], "chosen": {"value": "x"}}],
        {"formatting": "sharegpt", "ranking": True, "columns": {"messages": "prompt"}},
        r"row 2: `chosen` is an object, and a text in row 1",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_dataset_info_are_named(name: str, host: Host) -> None:
    rows, info, message = MISTAKES[name]
    write(host, rows, **info)
    stage = "dpo" if info.get("ranking") else "kto" if "kto_tag" in info.get("columns", {}) else "sft"
    with pytest.raises(DataError, match=message) as caught:
        host.load(stage, "mine")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no traceback of pyarrow's


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.jsonl", lines(MIXED[:1]) + b'{"id": \n', r"mine.jsonl, row 2 is not valid JSON .*: '{\"id\":'"),
        ("mine.jsonl", lines(MIXED[:1]) + b"[1]\n", r"mine.jsonl, row 2 is not a JSON object: '\[1\]'"),
        ("mine.json", b"\xef\xbb\xbf" + json.dumps(MIXED[:1]).encode(), "mine.json begins with a byte order mark"),
    ],
)
def test_files_that_the_host_s_formats_cannot_read_are_explained(
    name: str, content: bytes, message: str, host: Host
) -> None:
    write(host, content, name, **SHARE)
    with pytest.raises(DataError, match=message):
        host.load("sft", "mine")


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "many/b.jsonl has the column `extra`, and many/a.jsonl does not"),
        ({"id": "x"}, "many/b.jsonl, row 1: `id` is a text, and a number in many/a.jsonl, row 1"),
    ],
)
def test_files_of_a_folder_that_differ_are_named(change: Row, message: str, workers: int | None, host: Host) -> None:
    row = {**MIXED[0], "score": None}
    write(host, [row], "many/a.jsonl")
    write(host, [{**row, **change}], "many/b.jsonl", file_name="many", **SHARE)
    with pytest.raises(DataError, match=message):
        host.load("sft", "mine", preprocessing_num_workers=workers)
    register(host, file_name="many", formatting="hound")
    assert len(host.load("sft", "mine", preprocessing_num_workers=workers)) == 2


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"), "train and test"),
        (("ours.train.jsonl", "ours.heldout.jsonl"), "train and test"),
        (("my_val.jsonl", "my_training_2.jsonl"), "train and validation"),
        (("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"), ""),
        (("part_1.jsonl", "train_test.jsonl"), ""),
        (("trains.jsonl", "contest.jsonl", "devices.jsonl"), ""),
    ],
    ids=str,
)
def test_a_folder_with_several_splits_is_refused(names: tuple[str, ...], found: str, host: Host) -> None:
    folder = host.folder / "data" / "rows"
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        row = {"video": "clip_short", "conversations": talk("What?", f"It is {number}.")}
        (folder / name).write_text(json.dumps(row) + "\n")
    register(host, file_name="rows", formatting="hound")
    if not found:
        assert len(host.load("sft", "mine")) == len(names)
        return
    with pytest.raises(DataError, match=rf"files of one split in its folder, found {found} \("):
        host.load("sft", "mine")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "sharegpt", "streaming"])
def test_a_name_of_a_file_is_no_pattern(kind: str, host: Host) -> None:
    suffix = kind if kind in ("csv", "parquet") else "jsonl"
    for name in (f"data[1].{suffix}", f"data1.{suffix}"):
        row = {"video": ["clip_short"], "conversations": talk("What?", f"It is {name}.")}
        path = host.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "csv":
            path.write_text(f"video,question,answer\nclip_short,<video>What?,It is {name}.\n")
        elif kind == "parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            path.write_text(json.dumps(row) + "\n")
    register(host, file_name=f"data[1].{suffix}", **(SHARE if kind == "sharegpt" else {"formatting": "hound"}))
    streamed = {"streaming": True, "max_steps": 1} if kind == "streaming" else {}
    rows = host.load("sft", "mine", **streamed)
    texts = [host.tokenizer.decode([token for token in row["labels"] if token >= 0]) for row in rows]
    assert texts == [f"It is data[1].{suffix}.</s>"]


def test_right_entries_of_the_host_s_formats_pass(host: Host) -> None:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "videos": "video"}
    write(host, [{"messages": OPENAI, "video": "clip_long"}], formatting="sharegpt", columns=columns, tags=tags)
    assert host.load("sft", "mine")[0]["videos"] == paths(host, "clip_long")
    rows = [{"instruction": "<video>Q?", "input": "", "output": "A.", "videos": ["clip_long"]}]
    write(host, rows, formatting="alpaca", columns={"prompt": "instruction", "response": "output", "videos": "videos"})
    assert host.load("sft", "mine")[0]["videos"] == paths(host, "clip_long")


# --- many rows, several ranks

MANY = """
import json, sys, threading, time
from pathlib import Path
folder, number, streamed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "streamed"
from llamafactory.data import loader
from llamafactory.hparams import get_train_args
more = {"preprocessing_num_workers": 2}
if streamed:
    more = {"streaming": True, "max_steps": 1, "dataloader_num_workers": 1}
model, data, training, *_ = get_train_args({
    "model_name_or_path": "x", "stage": "sft", "do_train": True, "dataset": "mine", "dataset_dir": str(folder),
    "media_dir": str(folder / "media"), "template": "llava_hound", "output_dir": str(folder / "out"),
    "report_to": "none", **more})
attr = loader.get_dataset_list(["mine"], data.dataset_dir)[0]
def own():  # kB of this process; pages of mapped files, which the system may drop, are not counted
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
before, start, done, peak = own(), time.time(), threading.Event(), 0
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, own())
threading.Thread(target=watch, daemon=True).start()
aligned = loader._load_single_dataset(attr, model, data, training)
rows = 0
for row in aligned:
    rows += 1
done.set()
found = {"rows": rows, "grown_kb": max(peak, own()) - before, "own_kb": own(), "seconds": time.time() - start}
print("RESULT", json.dumps(found))
"""


def many_rows(folder: Path, number: int, words: int = 40) -> None:
    """Rows whose columns change their types."""
    media = folder / "media"
    media.mkdir(parents=True)
    for name in ("a.mp4", "b.mp4"):
        (media / name).write_bytes(b"x")
    with (folder / "mine.jsonl").open("w") as file:
        for index in range(number):
            clip: Any = ["a.mp4", "b.mp4"] if index % 3 == 1 else "a.mp4"
            texts = ("Q?", "answer " * words, "R?", "B.") if index % 3 == 1 else ("Q?", "answer " * words)
            row = {"id": index if index % 2 else str(index), "video": clip, "conversations": talk(*texts)}
            file.write(json.dumps({**row, "score": [index, str(index), None][index % 3]}) + "\n")
    (folder / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "mine.jsonl", "formatting": "hound"}}))


def load_many(folder: Path, number: int, way: str) -> Row:
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(folder), str(number), way],
        cwd=REPO,
        env={
            **os.environ,
            "HF_DATASETS_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split(maxsplit=1)[1])


@pytest.mark.parametrize("way", ["cached", "streamed"])
def test_memory_does_not_grow_with_the_rows(way: str, tmp_path: Path) -> None:
    grown = []
    for number in (2_000, 20_000):
        folder = tmp_path / str(number)
        many_rows(folder, number, words=600)
        result = load_many(folder, number, way)
        assert result["rows"] == number
        grown.append(result["grown_kb"])
    assert grown[1] - grown[0] < 40_000, grown  # the file grows by 76 MB


def test_two_processes_at_once_write_one_whole_cache(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    many_rows(tmp_path, 3_000)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: load_many(tmp_path, 3_000, "cached"), range(2)))
    assert [result["rows"] for result in results] == [3_000, 3_000]
    prepared = list((tmp_path / "cache").rglob("dataset_info.json"))
    assert len(prepared) == 1
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


@pytest.mark.parametrize("name", ["mine.xlsx", "mine.ods"])
def test_a_spreadsheet_is_refused_by_name(host: Host, name: str) -> None:
    write(host, b"PK\x03\x04", name)
    with pytest.raises(DataError, match=rf"file of dataset '{name}': .*Save it as JSON lines"):
        host.load("sft", "mine")


def test_parquet_under_a_name_of_json_is_named(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"id": "a", "image": {"bytes": b"x", "path": None}}]).to_parquet(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"is Parquet. Give it a name that ends in \.parquet"):
        list(read_texts(tmp_path / "a.jsonl"))
