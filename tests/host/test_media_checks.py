"""Media that cannot be read: all of them in one list, with the rows that name them as the user's file numbers them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from hound_plugin.errors import MediaDecodeError, MediaError, MediaNotFoundError
from tests.host.hosting import media_folder, write_dataset
from tests.host.test_alignment import BAD, GOOD, choose, host, listed  # noqa: F401
from tests.host.test_pipeline import Host, turns
from tests.media.zoo import write


def row(name: str, media: Any = "clip_short", kind: str = "video") -> dict[str, Any]:
    return {"id": name, kind: media, "conversations": turns(f"<{kind}>\nWhat moves?", "A ball.")}


@pytest.fixture
def mixed(host: Host) -> Host:  # noqa: F811
    """Rows 3, 5 and 7 name bad media, after two rows that are bad themselves; row 8 is an image of 16 bits."""
    media = media_folder(host.folder / "media")
    write(media / "half.mkv")
    (media / "half.mkv").write_bytes((media / "half.mkv").read_bytes()[:4000])
    Image.new("I;16", (40, 30)).save(media / "deep.png")
    (media / "empty").mkdir()
    rows = [*BAD[:2], row("half", "half.mkv"), row("good"), row("again", "half.mkv"), row("good 2")]
    rows += [row("frames", "empty"), row("deep", "deep.png", "image")]
    write_dataset(host.folder / "data", "mixed", rows)
    write_dataset(host.folder / "data", "other", [row("good"), row("gone", "gone.mp4")])
    return host


EXPECTED = [
    ("mixed.jsonl", 3, "half", "media damaged", "video"),
    ("mixed.jsonl", 5, "again", "media damaged", "video"),
    ("mixed.jsonl", 7, "frames", "no frame", "video"),
    ("mixed.jsonl", 8, "deep", "media damaged", "image"),
]


def found(host: Host) -> list[tuple[Any, ...]]:  # noqa: F811
    names = ("file", "row", "id", "problem", "field")
    return [tuple(entry[name] for name in names) for entry in listed(host)]


def test_every_bad_clip_is_listed_with_its_rows(mixed: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=0.5)
    with pytest.raises(MediaError) as caught:
        mixed.load("sft", "mixed", hound={"on_bad_rows": "skip", "max_bad_rows": 0.5})
    text = str(caught.value)
    assert "3 of 4 checked media cannot be used, in 4 rows" in text
    assert "row 8: Expected 8 bits per channel" in text, "the first one by its path"
    assert "row 3, id 'half': `video`: Cannot decode" in text
    assert "its header says 2.4 s, the data ends at" in text
    assert "on_bad_media: skip" in text
    assert [(file.split("'")[1], *rest) for file, *rest in found(mixed)][2:] == EXPECTED
    assert [entry[1:3] for entry in found(mixed)[:2]] == [(2 - 1, "blank"), (2, "lone")], "bad rows stay in the list"
    details = {entry["id"]: entry["detail"] for entry in listed(mixed)}
    assert str(mixed.folder / "media" / "half.mkv") in details["again"]


def test_they_are_left_out_when_asked_for(
    mixed: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=0.5, on_bad_media="skip")
    dataset = mixed.load("sft", "mixed,other", hound={})
    assert len(dataset) == 3
    names = [entry[2] for entry in found(mixed)]
    assert names == ["blank", "lone", "half", "again", "frames", "deep", "gone"]
    assert found(mixed)[-1][1:4] == (2, "gone", "media missing")
    assert "on_bad_media: skip: 5 of 8 rows of train_dataset are left out" in caplog.text


def test_a_run_without_bad_media_leaves_no_list(mixed: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, on_bad_rows="skip", max_bad_rows=0.5, on_bad_media="skip")
    mixed.load("sft", "other")
    write_dataset(mixed.folder / "data", "fine", [row("good")])
    mixed.load("sft", "fine")
    assert not (mixed.folder / "out" / "bad_rows.jsonl").exists()


def test_rows_of_an_earlier_tokenisation_are_named_as_such(host: Host) -> None:  # noqa: F811
    media = media_folder(host.folder / "media")
    write(media / "clip.mp4")
    write_dataset(host.folder / "data", "one", [GOOD, row("late", "clip.mp4")])
    host.load("sft", "one", tokenized_path=str(host.folder / "tokens"))
    (media / "clip.mp4").unlink()
    with pytest.raises(MediaNotFoundError, match=r"train_dataset as it was tokenised, row 2: No video at .*clip\.mp4"):
        host.load("sft", "one", tokenized_path=str(host.folder / "tokens"))


def test_nothing_is_left(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    media_folder(host.folder / "media")
    (host.folder / "media" / "text.mp4").write_text("no video")
    write_dataset(host.folder / "data", "bad", [row("a", "text.mp4")])
    choose(monkeypatch, on_bad_media="skip")
    with pytest.raises(MediaDecodeError, match="no row is left; all media are bad"):
        host.load("sft", "bad")
    assert json.loads((host.folder / "out" / "bad_rows.jsonl").read_text())["id"] == "a"


def test_a_decoder_that_is_not_exact_is_said_before_the_first_step(
    host: Host,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("decord")
    media = media_folder(host.folder / "media")
    write(media / "clip.ts", muxer="mpegts")
    write(media / "clip.mp4")
    write_dataset(host.folder / "data", "two", [row("stream", "clip.ts"), row("fine", "clip.mp4")])
    choose(monkeypatch, decoder="decord")
    with pytest.raises(MediaDecodeError, match=r"row 1: `decoder: decord` .*clip\.ts.*Set `decoder: auto`"):
        host.load("sft", "two")
