"""Captions: which clips, which requests, resumed after a kill, and rows that the other commands read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from hound_plugin import cli
from hound_plugin.errors import DataError, LedgerError, MediaNotFoundError, SettingsError
from hound_plugin.evaluation.caption_clips import list_clips
from hound_plugin.evaluation.caption_requests import read_instructions
from hound_plugin.evaluation.captions import EMPTY, CaptionResult, bad_list, caption_clips, run_folder
from hound_plugin.evaluation.items import Prediction, Question
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.evaluation.shards import Shard
from hound_plugin.records.consumers import check
from hound_plugin.records.files import _HOST
from hound_plugin.records.parse import CUT, parse
from hound_plugin.records.run_folders import read_run
from tests.evaluation.stand_ins import rows, write_rows
from tests.goldens import ROOT, SFT
from tests.llm.conftest import FaultServer
from tests.llm.conftest import server as server
from tests.media.clips import encode
from tests.reward.test_host_server import host as host

POOL = read_instructions("detailed")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.mp4``, ``b.mp4``, ``sub/c.mp4``, ``sub/frames/`` with three pictures, ``picture.png`` elsewhere."""
    folder = tmp_path_factory.mktemp("clips")
    encode(str(folder / "a.mp4"), 8, 64, 48)
    (folder / "sub" / "frames").mkdir(parents=True)
    for target in ("b.mp4", "sub/c.mp4"):
        (folder / target).write_bytes((folder / "a.mp4").read_bytes())
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (64, 48), (number * 80, 0, 0)).save(folder / "sub" / "frames" / f"{number}.png")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder


class Echo:
    """Answers with what it is asked, without a model; one id has no answer, one an empty one."""

    identity: dict[str, Any] = {"model": "echo"}  # noqa: RUF012

    def __init__(self, stop_after: int | None = None) -> None:
        self.finishes: dict[str, str] = {}
        self.asked: list[str] = []
        self.stop_after = stop_after

    def __call__(self, settings: EvaluationSettings, shard: Shard) -> Echo:
        return self

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [question.id for question in questions]
        return [self._one(question) for question in questions]

    def _one(self, question: Question) -> Prediction:
        if question.id.endswith("broken.mp4"):
            return Prediction(question.id, None, "broken.mp4: it ends early")
        text = "" if question.id.endswith("silent.mp4") else f"It says: {question.question}"
        return Prediction(question.id, text, finish=self.finishes.get(question.id, ""))


def describe(
    out: Path, names: Sequence[str], media_dir: Path | None = None, model: Echo | None = None, **settings: Any
) -> CaptionResult:
    listed, _ = list_clips(names, str(media_dir) if media_dir else None)
    chosen = EvaluationSettings(model="echo", predict={"batch_size": 2}, **settings)
    return caption_clips(listed, out, chosen, POOL, model or Echo(), Shard(), lambda _: None)


# --- which clips


def test_files_folders_and_parts(clips: Path) -> None:
    found, _ = list_clips([".", "a.mp4#t=0,0.2"], str(clips))
    assert [clip.id for clip in found] == ["a.mp4", "b.mp4", "sub/c.mp4", "sub/frames", "a.mp4#t=0,0.2"]
    assert [clip.kind for clip in found] == ["video"] * 5
    assert found[3].paths == (str(clips / "sub" / "frames"),)
    assert (found[4].media.path, found[4].media.end) == ("a.mp4", 0.2)
    (image,), _ = list_clips([str(clips / "sub" / "frames" / "1.png")], None)
    assert image.kind == "image"


def test_folders_of_file_servers_are_no_clips(clips: Path, tmp_path: Path) -> None:
    for path in (
        "a.mp4",
        "@eaDir/a.mp4/SCREENSHOT.jpg",
        "$RECYCLE.BIN/$R1.MP4",
        "sub/#recycle/b.mp4",
        "__MACOSX/c.mp4",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((clips / "a.mp4").read_bytes())
    found, remarks = list_clips([str(tmp_path)], None)
    assert [Path(clip.id).name for clip in found] == ["a.mp4"]
    assert "4 hidden" in remarks[0]


def test_what_a_folder_has_besides_clips_is_named(clips: Path, tmp_path: Path) -> None:
    names = ("one.m2ts", "two.OGM", "three.vob", "four.mxf", "five.asf", "six.h264")
    folder = tmp_path / "in"
    for path in (*names, "log.txt", "deep/er.bak", "deep/two.bak", "README", ".DS_Store", "frames/label.json", "a.mp3"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes((clips / "a.mp4").read_bytes())
    (folder / "frames" / "1.png").write_bytes((clips / "sub" / "frames" / "1.png").read_bytes())
    found, remarks = list_clips([str(folder)], None)
    assert sorted(Path(clip.id).name for clip in found) == sorted([*names, "frames"])
    assert remarks == [
        f"{folder}: not taken as clips: 2 .bak (er.bak), 1 .json (label.json), 1 .mp3 (a.mp3), 1 .txt (log.txt), "
        "1 hidden (.DS_Store), 1 without a suffix (README); name those that are clips themselves"
    ]
    assert list_clips([str(folder / "one.m2ts"), str(folder / "README")], None)[1] == []
    (tmp_path / "no" / "clips").mkdir(parents=True)
    (tmp_path / "no" / "clips" / "x.mp4.part").touch()
    with pytest.raises(DataError, match=r"only 1 \.part \(x\.mp4\.part\)"):
        list_clips([str(tmp_path / "no")], None)
    (folder / "deep" / "gone.mkv").symlink_to("/nowhere/gone.mkv")
    with pytest.raises(MediaNotFoundError, match=r"gone\.mkv is a link to /nowhere"):
        list_clips([str(folder)], None)


def test_each_clip_once(clips: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.mp4"
    link.symlink_to(clips / "a.mp4")
    found, remarks = list_clips([str(clips / "a.mp4"), str(clips / "a.mp4"), str(link), str(clips / "b.mp4")], None)
    assert [Path(clip.id).name for clip in found] == ["a.mp4", "b.mp4"]
    assert remarks == ["4 names or rows are about 2 clips; each is described once"]


def test_rows(clips: Path, tmp_path: Path) -> None:
    values = [
        {"id": "q1", "video": "a.mp4", "prompt": "<video>\nWhat?", "source": "web"},
        {"id": "q2", "video": "a.mp4", "prompt": "<video>\nWhere?"},
        {"id": "q3", "video": ["sub/frames/0.png", "sub/frames/1.png"]},
        {"id": "q4", "video": "b.mp4", "start": 0, "end": 0.2},
        {"image": "sub/frames/2.png"},
    ]
    found, remarks = list_clips([str(write_rows(tmp_path / "rows.jsonl", values))], str(clips))
    assert [clip.id for clip in found] == ["q1", "q3", "q4", "sub/frames/2.png"]
    assert [len(clip.paths) for clip in found] == [1, 2, 1, 1]
    assert found[0].source == "web"
    assert found[2].paths[0].endswith("b.mp4#t=0,0.2")
    assert any("each is described once" in remark for remark in remarks)


def test_what_is_not_there_is_named_before_anything_starts(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"x\.mp4, y\.mp4"):
        list_clips([str(clips / "a.mp4"), "x.mp4", "y.mp4"], None)
    absent = write_rows(tmp_path / "rows.jsonl", [{"id": "1", "video": "gone.mp4"}])
    with pytest.raises(MediaNotFoundError, match=r"gone\.mp4"):
        list_clips([str(absent)], str(clips))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"id": "1", "prompt": "What?"}, "one clip or image to describe"),
        ({"id": "1", "video": [["a.mp4"], ["b.mp4"]]}, "cannot be used"),
        ({"id": "1", "video": "a.mp4", "start": 3, "end": 1}, "cannot be used"),
    ],
)
def test_bad_rows_are_refused(value: dict[str, Any], reason: str, clips: Path, tmp_path: Path) -> None:
    with pytest.raises((DataError, MediaNotFoundError), match=reason):
        list_clips([str(write_rows(tmp_path / "rows.jsonl", [value]))], str(clips))


def test_ambiguous_folders_are_refused(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    for name in ("a.mp4", "cover.png"):
        (tmp_path / "mixed" / name).write_bytes(b"x")
    with pytest.raises(DataError, match="pictures next to videos"):
        list_clips([str(tmp_path / "mixed")], None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither videos"):
        list_clips([str(tmp_path / "empty")], None)
    two = [{"id": "1", "video": "a.mp4"}, {"id": "1", "video": "b.mp4"}]
    with pytest.raises(DataError, match="a different id"):
        list_clips([str(write_rows(tmp_path / "two.jsonl", two))], str(clips))


# --- which request


def test_requests_are_drawn_by_seed_and_id() -> None:
    draws = [POOL.draw("video", 0, f"clip{n}") for n in range(600)]
    assert draws == [POOL.draw("video", 0, f"clip{n}") for n in range(600)]
    counts = Counter(draws)
    assert set(counts) == set(POOL.requests["video"])
    assert min(counts.values()) > 600 / len(counts) / 2
    assert draws != [POOL.draw("video", 1, f"clip{n}") for n in range(600)]
    assert POOL.draw("image", 0, "clip1") in POOL.requests["image"]


def test_the_pool_is_versioned() -> None:
    """Another word, another version: then write the new digest here."""
    assert POOL.id == "detailed/1/436dfabe84bc"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"video": []}, "video"), ({"video": ["<video> Describe."]}, "without a placeholder"),
        ({"image": [" "]}, "words"), ({"more": 1}, "more"), ({"version": ""}, "version"),
    ],
)  # fmt: skip
def test_a_pool_of_ones_own(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    values = {"name": "mine", "version": "2", "video": ["Describe it."], "image": ["Describe that."]}
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump(values))
    assert read_instructions(str(path)).id.startswith("mine/2/")
    path.write_text(yaml.safe_dump({**values, **change}))
    with pytest.raises(SettingsError, match=reason):
        read_instructions(str(path))
    with pytest.raises(SettingsError, match="expected detailed or a YAML file"):
        read_instructions("no/such.yaml")


# --- what is written


def test_rows_are_read_by_the_others(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.jsonl"
    result = describe(out, ["a.mp4", "b.mp4#t=0,0.2", "sub/frames/1.png", "sub/frames"], clips)
    assert (result.captions, result.broken, result.added) == (4, {}, 4)
    written = rows(out)
    assert [row["id"] for row in written] == ["a.mp4", "b.mp4#t=0,0.2", "sub/frames/1.png", "sub/frames"]
    assert written[1]["video"] == "b.mp4"
    assert written[1]["end"] == 0.2
    assert written[2]["image"] == "sub/frames/1.png"
    for row in written:
        parsed = parse(row)
        assert parsed.unknown == ()
        assert parsed.record is not None
        for consumer in ("captions", "questions", "sft"):
            assert check(parsed.record, consumer) == ()  # type: ignore[arg-type]
        assert parsed.record.caption == parsed.record.turns[-1].text == f"It says: {parsed.record.questions[0][8:]}"
        assert row["protocol"] == POOL.id
    assert not bad_list(out).exists()
    record = read_run(run_folder(out))
    assert record["counts"]["caption"] == {"clips": 4, "captions": 4, "cut": 0, "broken": 0, "added": 4}
    assert record["instructions"] == POOL.id


def test_clips_without_a_caption_are_listed(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    for name in ("broken.mp4", "good.mp4", "silent.mp4"):
        (folder / name).write_bytes((clips / "a.mp4").read_bytes() + name.encode())
    out = tmp_path / "out.jsonl"
    result = describe(out, [str(folder)])
    assert result.captions == 1
    listed = {Path(row["id"]).name: row["problem"] for row in rows(bad_list(out))}
    assert listed == {"broken.mp4": "broken.mp4: it ends early", "silent.mp4": EMPTY}


def test_clips_may_be_added_and_others_are_not_asked_again(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    describe(out, ["b.mp4"], clips)
    model = Echo()
    result = describe(out, ["a.mp4", "b.mp4", "sub/c.mp4"], clips, model)
    assert sorted(model.asked) == ["a.mp4", "sub/c.mp4"]
    assert [row["id"] for row in rows(out)] == ["a.mp4", "b.mp4", "sub/c.mp4"]
    assert result.added == 2
    for change in ({"names": ["a.mp4"]}, {"names": ["a.mp4", "b.mp4", "sub/c.mp4"], "seed": 5}):
        with pytest.raises(LedgerError, match="Choose another --out"):
            describe(out, media_dir=clips, **change)  # type: ignore[arg-type]
    other = Echo()
    other.identity = {"model": "another"}
    with pytest.raises(LedgerError, match="another model"):
        describe(out, ["a.mp4", "b.mp4", "sub/c.mp4"], clips, other)
    assert [row["id"] for row in rows(out)] == ["a.mp4", "b.mp4", "sub/c.mp4"]


@pytest.fixture
def own_clips(clips: Path, tmp_path: Path) -> Path:
    """A copy of the clips, to replace some; with a list of frames and an image in ``rows.jsonl``."""
    import shutil

    folder = tmp_path / "own"
    shutil.copytree(clips, folder)
    shutil.copy(folder / "sub" / "frames" / "0.png", tmp_path / "picture.png")
    frames = {"id": "list", "video": [str(folder / "sub" / "frames" / f"{number}.png") for number in range(2)]}
    write_rows(tmp_path / "rows.jsonl", [frames, {"id": "image", "image": str(tmp_path / "picture.png")}])
    return folder


@pytest.mark.parametrize(
    ("replaced", "ids"),
    [
        ("b.mp4", ["b.mp4"]), ("sub/c.mp4", ["sub/c.mp4"]), ("sub/frames/1.png", ["sub/frames", "list"]),
        ("sub/frames/2.png", ["sub/frames"]), ("../picture.png", ["image"]), ("new frame", ["sub/frames"]),
    ],
)  # fmt: skip
def test_a_clip_that_was_replaced_is_another_one(
    replaced: str, ids: list[str], own_clips: Path, tmp_path: Path
) -> None:
    from PIL import Image

    out, names = tmp_path / "captions.jsonl", [str(own_clips), str(tmp_path / "rows.jsonl")]
    assert describe(out, names).captions == 6
    before = out.read_bytes()
    frames = own_clips / "sub" / "frames"
    if replaced == "new frame":
        (frames / "3.png").write_bytes((frames / "0.png").read_bytes())
    elif replaced.endswith(".png"):
        Image.new("RGB", (64, 48), (0, 80, 0)).save(own_clips / replaced)
    else:
        encode(str(own_clips / replaced), 9, 64, 48)
    model = Echo()
    with pytest.raises(LedgerError, match=rf"answers to {len(ids)} questions .* choose another --out") as caught:
        describe(out, names, model=model)
    assert all(f"{name}' (another clip)" in str(caught.value) for name in ids)
    assert not model.asked
    assert out.read_bytes() == before
    assert describe(tmp_path / "new.jsonl", names).captions == 6


def test_a_clip_that_was_touched_copied_renamed_or_repaired_is_the_same(own_clips: Path, tmp_path: Path) -> None:
    import os

    out = tmp_path / "captions.jsonl"
    (own_clips / "broken.mp4").write_bytes((own_clips / "a.mp4").read_bytes()[:-9])
    first = describe(out, [str(own_clips)])
    assert (first.captions, list(first.broken)) == (4, [str(own_clips / "broken.mp4")])
    before = {path: path.read_bytes() for path in (out, *run_folder(out).glob("*.jsonl"))}
    os.utime(own_clips / "a.mp4", (1, 1))
    (own_clips / "sub" / "frames" / "2.png").rename(own_clips / "sub" / "frames" / "07.png")
    content = (own_clips / "b.mp4").read_bytes()
    (own_clips / "b.mp4").unlink()
    (own_clips / "b.mp4").write_bytes(content)
    assert describe(out, [str(own_clips)]).added == 0
    assert {path: path.read_bytes() for path in before} == before
    (own_clips / "broken.mp4").write_bytes((own_clips / "a.mp4").read_bytes())
    assert describe(out, [str(own_clips)]).captions == 4, "without an answer there is nothing to confuse"


def test_captions_of_an_earlier_version_stay_usable(own_clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.jsonl"
    describe(out, [str(own_clips)])
    (run_folder(out) / "asked.jsonl").unlink()
    said: list[str] = []
    listed, _ = list_clips([str(own_clips)], None)
    settings = EvaluationSettings(model="echo", predict={"batch_size": 2})
    for _ in range(2):
        assert caption_clips(listed, out, settings, POOL, Echo(), Shard(), said.append).added == 0
    assert sum("did not note what was asked" in line for line in said) == 1
    encode(str(own_clips / "a.mp4"), 9, 64, 48)
    with pytest.raises(LedgerError, match=r"a\.mp4' \(another clip\)"):
        describe(out, [str(own_clips)])


def test_a_stopped_run_writes_nothing_and_goes_on(clips: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out.jsonl", ["a.mp4", "b.mp4", "sub/c.mp4", "sub/frames"]
    first = Echo(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        describe(out, names, clips, first)
    assert not out.exists()
    second = Echo()
    describe(out, names, clips, second)
    assert sorted(first.asked + second.asked) == sorted(names)
    whole = tmp_path / "whole.jsonl"
    describe(whole, names, clips)
    assert out.read_bytes() == whole.read_bytes()


def test_rows_that_parquet_does_not_have_are_refused_before_anything_is_asked(clips: Path, tmp_path: Path) -> None:
    frames = [f"sub/frames/{number}.png" for number in range(3)]
    values = [{"id": "a", "video": "a.mp4"}, {"id": "f", "video": frames}]
    write_rows(tmp_path / "rows.jsonl", values)
    model = Echo()
    with pytest.raises(DataError, match=r"out\.parquet: a column.*'video'.*ends in \.jsonl"):
        describe(tmp_path / "out.parquet", [str(tmp_path / "rows.jsonl")], clips, model)
    assert model.asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert describe(tmp_path / "out.jsonl", [str(tmp_path / "rows.jsonl")], clips, model).captions == 2


def test_what_a_killed_command_left_of_its_file_is_removed(clips: Path, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = tmp_path / f".out.parquet.{_HOST}-{ended.pid}-01234567.part"
    left.write_bytes(b"PAR1")
    describe(tmp_path / "out.parquet", ["a.mp4"], clips)
    assert not left.exists()


def test_the_command_with_a_model_and_a_kill(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recorded model; killed after its first batch, then continued: the same file as without a kill."""
    (tmp_path / "bad.mp4").write_bytes((clips / "a.mp4").read_bytes()[:700])
    names = [str(clips / "a.mp4"), str(tmp_path / "bad.mp4"), str(clips / "b.mp4"), str(clips / "sub")]
    base = [*names, "--model", str(SFT), "--device", "cpu", "--max-new-tokens", "4", "--batch-size", "1"]
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "hound_plugin.cli", "caption", *base, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        predictions = run_folder(out) / "predictions.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not predictions.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert predictions.exists()
    before = len(rows(predictions))
    assert cli.main(["caption", *base, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert f"{5 - before} in this run" in said.out or before == 5
    assert "1 of 5 clips have no caption" in said.err
    assert cli.main(["caption", *base, "--out", str(tmp_path / "whole.jsonl")]) == 1
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(rows(out)) == 4
    assert [Path(row["id"]).name for row in rows(bad_list(out))] == ["bad.mp4"]


def test_cut_captions_are_marked(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the row, in the log, in run.json, and to whoever reads the rows."""
    out = tmp_path / "out.jsonl"
    model = Echo()
    model.finishes = {"a.mp4": "length", "b.mp4": "stop"}
    result = describe(out, ["a.mp4", "b.mp4", "sub/frames"], clips, model)
    assert [row.get("finish") for row in rows(out)] == ["length", "stop", None]
    assert result.cut == read_run(run_folder(out))["counts"]["caption"]["cut"] == 1
    notes = [[note.text for note in parse(row).notes] for row in rows(out)]
    assert [CUT in texts for texts in notes] == [True, False, False]
    assert cli.main(["corpus", "validate", str(out), "--kind", "captions", "--media-dir", str(clips)]) == 0
    assert f"{CUT} (1 rows)" in capsys.readouterr().out


# --- by a server


def test_a_server_describes_as_the_model_does(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    names = [str(ROOT / "media" / name) for name in ("clip_short.mp4", "clip_long.mp4")]
    common = ["caption", *names, "--max-new-tokens", "6"]
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    assert cli.main([*common, "--model", str(SFT), "--device", "cpu", "--dtype", "float32", "--out", str(ours)]) == 0
    capsys.readouterr()
    assert cli.main([*common, "--model", "tiny", "--base-url", host, "--out", str(theirs)]) == 0
    assert [{**row, "model": ""} for row in rows(ours)] == [{**row, "model": ""} for row in rows(theirs)]
    cut = sum(row["finish"] == "length" for row in rows(theirs))
    assert cut > 0
    assert f"warning: {cut} of 2 captions were cut at --max-new-tokens 6" in capsys.readouterr().err
    counts = read_run(run_folder(theirs))["counts"]["caption"]
    assert (counts["usage"]["answers"], counts["missing"]) == (2, 0)
    frames = ["--set", "predict.show=frames", "--out", str(tmp_path / "frames.jsonl")]
    assert cli.main([*common, "--model", "tiny", "--base-url", host, *frames]) == 0
    assert (
        cli.main([*common, "--model", "tiny", "--base-url", host, "--set", "predict.show=frames", "--out", str(theirs)])
        == 2
    )
    assert "show was 'video_url' and is 'frames'" in capsys.readouterr().err


def server_command(server: FaultServer, folder: Path, number: int = 9) -> tuple[list[str], dict[str, list[str]]]:
    """Clips for the fault server, and which of them are asked for with request `[item-0]`, `[item-1]`, `[item-2]`."""
    pool = folder / "pool.yaml"
    requests = [f"Describe it. [item-{item}]" for item in range(3)]
    pool.write_text(yaml.safe_dump({"name": "p", "version": "1", "video": requests, "image": requests}))
    drawn: dict[str, list[str]] = {str(item): [] for item in range(3)}
    for n in range(number):
        (folder / f"clip{n}").mkdir()
        (folder / f"clip{n}" / "0.jpg").write_bytes(b"\xff\xd8\xff")
        drawn[read_instructions(str(pool)).draw("video", 0, f"clip{n}")[-2]].append(f"clip{n}")
    command = [
        "caption", *(f"clip{n}" for n in range(number)), "--media-dir", str(folder), "--instructions", str(pool),
        "--model", "tiny",
        "--base-url", server.base_url, "--set", "predict.tries=1", "--set", "predict.pilot=0",
        "--set", "predict.concurrency=1", "--out", str(folder / "out.jsonl"),
    ]  # fmt: skip
    return command, drawn


def test_a_server_that_fails_leaves_the_rest_for_the_next_run(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written before every clip is settled, what was answered is not asked for again, and the rest is."""
    (command, drawn), out = server_command(server, tmp_path), tmp_path / "out.jsonl"
    assert all(drawn.values())
    server.control(items={"1": "500", "2": "bad"})
    assert cli.main(command) == 1
    assert not out.exists()
    assert f"{len(drawn['1'])} of 9 clips have no reply yet" in capsys.readouterr().err
    server.control(items={})
    asked = server.stats()["counts"]["requests"]
    for _ in range(2):
        assert cli.main(command) == 1  # some were refused for good
        assert server.stats()["counts"]["requests"] == asked + len(drawn["1"])
        assert [row["id"] for row in rows(out)] == sorted(drawn["0"] + drawn["1"])
        assert [row["id"] for row in rows(bad_list(out))] == sorted(drawn["2"])


def test_killed_while_a_server_answers(server: FaultServer, tmp_path: Path) -> None:
    """No answer is asked for twice, but for the one on its way."""
    (command, _), out = server_command(server, tmp_path, 8), tmp_path / "out.jsonl"
    server.control(latency=0.2)
    with subprocess.Popen([sys.executable, "-m", "hound_plugin.cli", *command], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and server.stats()["counts"].get("requests", 0) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    server.control(latency=0.0)
    assert cli.main(command) == 0
    assert len(rows(out)) == 8
    assert server.stats()["counts"]["requests"] <= 9


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            [
                "a.mp4",
                "--model",
                "m",
                "--out",
                "o.jsonl",
                "--set",
                "predict.backend=given",
                "--set",
                "predict.answers=x",
            ],
            "a model or a server",
        ),
        (["a.mp4", "--model", "m", "--out", "o.jsonl", "--set", "predict.shwo=frames"], "shwo"),
        (["a.mp4", "--model", "m", "--out", "o.jsonl", "--backend", "openai", "--set", "max_cost=1"], "no price for m"),
        (["a.mp4", "--model", "m", "--out", "o.jsonl", "--base-url", "not a url"], "base_url"),
        (["gone.mp4", "--model", "m", "--out", "o.jsonl"], "gone.mp4"),
        (["a.mp4", "--model", "m", "--out", "."], "--out"),
        (["a.mp4", "--model", "m", "--out", "o.jsonl", "--temperature", "-1"], "temperature"),
        (["a.mp4", "--out", "o.jsonl"], "--model"),
        (["--model", "m", "--out", "o.jsonl"], "CLIPS"),
    ],
)
def test_bad_usage(
    arguments: list[str], reason: str, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clips)
    assert cli.main(["caption", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not (clips / "o.jsonl.run").exists()
