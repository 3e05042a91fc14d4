"""One table for everything that reads rows: shapes x media x readers, checked on what is really learnt or sent."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import av
import datasets
import pytest
import torch
from llamafactory.data import PairwiseDataCollatorWithPadding, SFTDataCollatorWith4DAttentionMask

from hound_plugin.corpus.dataset_conversion import CAPTION_PROMPTS, convert
from hound_plugin.corpus.validate import Options, validate
from hound_plugin.judge.prompts import JudgePrompt, read_template
from hound_plugin.llm.requests import Request, message_text
from hound_plugin.processing.prompt import SYSTEM
from hound_plugin.records.questions import read_questions
from tests.host.hosting import media_folder, write_dataset
from tests.records.loading import KINDS, STAGES, Loaded, name, plain
from tests.records.shapes import CELLS, MEDIA, SHAPES, Cell, Medium, Row, Shape, good, row_of, verdict

READERS = [(consumer, cell) for consumer in STAGES for cell in good(consumer)]
PROTOCOL = read_template("caption")


# --- in the host


def prompt_of(shape: Shape, medium: Medium, turns: tuple[str, ...]) -> str:
    """The whole prompt in words: system, questions, and answers that came before."""
    text = f"<s>{shape.system or SYSTEM} "
    for number, said in enumerate(turns):
        tokens = medium.tokens if number == 0 else ""
        text += f" {said}</s>" if number % 2 else f"USER: {tokens}{said} ASSISTANT:"
    return plain(text)


def learnt(loaded: Loaded, labels: list[int]) -> str:
    return plain(loaded.host.tokenizer.decode([token for token in labels if token != -100]))


@pytest.mark.parametrize(("consumer", "cell"), READERS, ids=name)
def test_the_host_learns_what_the_row_says(consumer: str, cell: Cell, loaded: Loaded) -> None:
    row, shape, medium = loaded.rows[consumer, cell], SHAPES[cell[0]], MEDIA[cell[1]]
    answers = list(shape.said[1::2])
    if consumer == "pairs":
        for side, text in (("chosen", shape.chosen), ("rejected", shape.rejected)):
            turns = (*shape.said, text or "")
            assert loaded.text(row[f"{side}_input_ids"], medium) == prompt_of(shape, medium, turns)
            assert learnt(loaded, row[f"{side}_labels"]) == f"{text}</s>"
    elif consumer == "predictions":
        turns = shape.said[:-1] if shape.is_answered else shape.said
        assert loaded.text(row["input_ids"], medium) == prompt_of(shape, medium, turns)
        last = answers[-1] if shape.is_answered else ""
        assert learnt(loaded, row["labels"]).removesuffix("</s>") == plain(last)
    else:
        assert loaded.text(row["input_ids"], medium) == prompt_of(shape, medium, shape.said)
        taught = answers if consumer == "sft" else answers[-1:]
        assert learnt(loaded, row["labels"]) == plain("".join(f"{text}</s>" for text in taught))
    if consumer == "labels":
        assert row["kto_tags"] is shape.label
    shown = {"video": row["videos"] or [], "image": row["images"] or []}
    expected = [loaded.path(item) for item in medium.items]
    assert shown == {"video": [], "image": [], **({medium.kind: expected} if medium.kind else {})}


# --- pictures


def pictures(item: Any, folder: Path) -> list[Any]:
    """All frames that an item of the table means, in order: of a file those from start up to the end."""
    if isinstance(item, list):
        return [str(folder / frame) for frame in item]
    path, _, span = str(folder / item).partition("#t=")
    if Path(path).is_dir():
        return [str(frame) for frame in sorted(Path(path).iterdir())]
    start, _, end = span.partition(",")
    with av.open(path) as container:
        frames = [(float(frame.time or 0), frame.to_image()) for frame in container.decode(video=0)]
    return [frame for time, frame in frames if float(start or 0) <= time < float(end or "inf")]


PAIRS_AND_TALKS = {
    "sft": ("sft, the original's", SFTDataCollatorWith4DAttentionMask, {"compute_dtype": torch.float32}),
    "pairs": ("pair, the original's", PairwiseDataCollatorWithPadding, {}),
}


@pytest.mark.parametrize("consumer", PAIRS_AND_TALKS)
def test_a_batch_holds_the_pixels_that_the_rows_mean(consumer: str, loaded: Loaded) -> None:
    shape, collator, more = PAIRS_AND_TALKS[consumer]
    host = loaded.host
    collate = collator(template=host.template, tokenizer=host.tokenizer, processor=host.processor, **more)
    names = [medium for medium in MEDIA if (consumer, (shape, medium)) in loaded.rows]
    batch = collate([dict(loaded.rows[consumer, (shape, medium)]) for medium in names])
    for kind in ("video", "image"):
        items = [item for medium in names if MEDIA[medium].kind == kind for item in MEDIA[medium].items]
        places = batch[f"{kind}_index"].tolist()
        assert places[: len(items)] * (2 if consumer == "pairs" else 1) == places
        pixels = batch[f"pixel_values_{kind}s"]
        for item, place in zip(items, places, strict=False):
            if kind == "image":
                expected = host.processor.read_image(str(loaded.media / item))
            else:
                expected = host.processor.read_video(pictures(item, loaded.media))
            assert torch.equal(pixels[place], expected), item
        assert len({pixel.numpy().tobytes() for pixel in pixels}) == len(pixels)


TEXT = datasets.Value("string")
COLUMNS: dict[str, Any] = {
    "plain": {"path": TEXT, "bytes": datasets.Value("binary")},
    "typed": datasets.Image(),
    "typed list": [datasets.Image()],
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("column", COLUMNS)
def test_bytes_in_a_table_are_the_image(column: str, streaming: bool, loaded: Loaded) -> None:
    names = ("img_wide.jpg", "img_tall.png")
    content = {name: (loaded.media / name).read_bytes() for name in names}
    rows = [
        {"id": name, "image": {"path": name, "bytes": content[name]}, "question": f"<image>\n{name}?", "answer": "I."}
        for name in names
    ]
    rows = [{**row, "image": [row["image"]]} for row in rows] if "list" in column else rows
    features = datasets.Features({"id": TEXT, "image": COLUMNS[column], "question": TEXT, "answer": TEXT})
    write_dataset(loaded.data, "mine", [], file_name="mine.parquet")
    datasets.Dataset.from_list(rows, features=features).to_parquet(loaded.data / "mine.parquet")
    more = {"streaming": True, "buffer_size": 1, "max_steps": 1} if streaming else {}
    for row, file in zip(loaded.load("sft", **more), names, strict=True):
        (path,) = row["images"]
        assert Path(path).read_bytes() == content[file]
        assert Path(path).suffix == Path(file).suffix


# --- questions and the judge


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("questions")
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row_of(cell)) + "\n" for cell in good("questions")))
    media = media_folder(folder / "media")
    return media, {question.id: question for question in read_questions(file, str(media))}


@pytest.mark.parametrize("cell", good("questions"), ids=name)
def test_the_judge_is_sent_what_the_row_says(cell: Cell, asked: tuple[Path, dict[str, Any]]) -> None:
    folder, questions = asked
    shape, medium = SHAPES[cell[0]], MEDIA[cell[1]]
    question = questions[name(cell)]
    reference = shape.reference or (shape.said[1] if shape.is_answered else "")
    assert (question.medium, question.text) == (medium.kind, shape.said[0])
    assert (question.caption, question.reference) == (shape.caption, reference)
    item = medium.items[0] if medium.items else None
    assert question.paths == (
        [str(folder / one) for one in item] if isinstance(item, list) else item and str(folder / item)
    )
    fields = question.fields("A guess of mine.")
    messages = JudgePrompt(PROTOCOL, "salt", "text").messages(Request("k", question.id, 0, 0, fields), 1)
    sent = message_text(messages)
    for text in filter(None, (shape.said[0], shape.caption, reference, "A guess of mine.")):
        assert text in sent


# --- convert


def converted_row(cell: Cell) -> Row:
    """The row that ``hound corpus convert`` must write."""
    shape, medium = SHAPES[cell[0]], MEDIA[cell[1]]
    row: Row = {"id": name(cell)}
    if medium.items:
        row[medium.kind] = shown_as(medium.items)
    if len(medium.items) == 1 and "#t=" in medium.items[0]:
        path, _, span = medium.items[0].partition("#t=")
        row[medium.kind] = path
        sides = zip(("start", "end"), span.split(","), strict=False)
        row |= {side: float(value) for side, value in sides if value}
    turns = shape.said or (CAPTION_PROMPTS[medium.kind], shape.caption)
    behind = "after the text" in cell[0] and len(medium.items) > 1  # where several clips stay
    turns = (f"{turns[0]}\n{medium.tokens}".rstrip() if behind else medium.tokens + turns[0], *turns[1:])
    if shape.is_pair and len(turns) == 1:
        row["prompt"] = turns[0]
    else:
        roles = ("human", "gpt")
        row["conversations"] = [{"from": roles[n % 2], "value": text} for n, text in enumerate(turns)]
    more = {
        "chosen": shape.chosen, "rejected": shape.rejected, "system": shape.system, "label": shape.label,
        "caption": shape.caption if shape.said else "", "reference": shape.reference, "options": list(shape.options),
    }  # fmt: skip
    return row | {key: value for key, value in more.items() if value not in (None, "", [])}


def shown_as(items: tuple[Any, ...]) -> Any:
    return list(items) if len(items) > 1 else items[0]


def convertible() -> list[Cell]:
    return [c for c in CELLS if SHAPES[c[0]].is_pair or SHAPES[c[0]].is_answered or not SHAPES[c[0]].said]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Row]]:
    """The rows of a first conversion, and those of a second one of these."""
    folder = tmp_path_factory.mktemp("convert")
    files = [folder / f"{number}.jsonl" for number in range(3)]
    files[0].write_text("".join(json.dumps(row_of(cell)) + "\n" for cell in convertible()))
    for source, target in itertools.pairwise(files):
        assert not convert(source, target).bad
    texts = [file.read_text().splitlines() for file in files[1:]]
    return [{row["id"]: row for row in map(json.loads, lines)} for lines in texts]


@pytest.mark.parametrize("cell", convertible(), ids=name)
def test_convert_writes_what_the_row_says(cell: Cell, converted: list[dict[str, Row]]) -> None:
    first, second = (rows[name(cell)] for rows in converted)
    expected = converted_row(cell)
    kept = {key: value for key, value in row_of(cell).items() if key in ("score", "chosen_score", "source")}
    kept |= {"source": "web"} if "origin_dataset" in row_of(cell) else {}
    kept |= {"video_id": row_of(cell)["video_id"]} if "id of" in name(cell) and cell[1] != "id of a clip" else {}
    kept |= {"label": "gait"} if "words" in cell[0] else {}
    assert first == {**kept, **expected}
    assert second == first


# --- validate, for every reader


@pytest.mark.parametrize("consumer", [*KINDS, "captions"])
def test_validate_says_who_can_read_which_row(consumer: str, tmp_path: Path) -> None:
    file, report = tmp_path / "rows.jsonl", tmp_path / "bad.jsonl"
    file.write_text("".join(json.dumps(row_of(cell)) + "\n" for cell in CELLS))
    media = media_folder(tmp_path / "media")
    kind: Any = KINDS.get(consumer, consumer)
    findings = validate(file, Options(media_dir=str(media), kind=kind, report=report))
    found: dict[str, set[str]] = {name(cell): set() for cell in CELLS}
    for entry in map(json.loads, report.read_text().splitlines()):
        found[entry["id"]].add(entry["problem"])
    assert found == {name(cell): verdict(cell, consumer) for cell in CELLS}
    assert findings.bad == sum(map(bool, found.values()))
    ids = f"fields that nothing reads, by rows: `idx` ({len(MEDIA)})"
    assert [remark for remark in findings.remarks if "nothing reads" in remark] == [f"{file}: {ids}"]


def test_the_table_is_large_and_every_shape_has_a_reader() -> None:
    assert len(READERS) >= 200
    read = {cell for consumer in (*STAGES, "questions") for cell in good(consumer)}
    assert {shape for shape, _ in read} | {"sft, a caption alone"} == set(SHAPES)
