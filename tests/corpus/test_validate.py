"""``hound corpus validate``: the same rules as the dataset format, media, corrected paths, constant memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from hound_plugin import cli
from hound_plugin.corpus.records import check_record
from hound_plugin.corpus.relocate import corrected, index_paths, missing_names
from hound_plugin.corpus.validate import Options, validate
from hound_plugin.errors import SettingsError
from tests.corpus.conftest import PEAK, environment
from tests.corpus.hub import clips, conversation, frame, lines, preference
from tests.goldens import ROOT
from tests.media.zoo import Sound, add_sound
from tests.media.zoo import write as write_clip

REPO = Path(__file__).resolve().parents[2]
Rows = list[dict[str, Any]]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def pair(**changes: Any) -> dict[str, Any]:
    record = {**preference("clip_a", 0), **changes}
    return {name: value for name, value in record.items() if value is not None}


GOOD: Rows = [
    conversation("clip_a", 0),
    {"id": 1, "image": "one.jpg", "conversations": turns("<image>\nWhat?", "A.", "And?", "B.")},
    {"id": 2, "conversations": turns("What is a clip?", "Many pictures.")},
    {"id": 3, "video": ["clip_a"], "conversations": turns("What <video> is it?", "A.")},
    {"id": 4, "video": ["clip_a/c01_0000.jpeg", "clip_a/c01_0001.jpeg"], "conversations": turns("<video> A?", "A.")},
    {"id": 5, "videos": ["clip_a", "clip_b"], "conversations": turns("<video> A?", "A.", "<video> B?", "B.")},
    {"id": 6, "video": "clip_a", "conversations": [{"from": "gpt", "value": "Hello."}, *turns("<video> A?", "A.")]},
    {
        "id": 7,
        "video": "clip_a",
        "conversations": [{"role": "user", "content": "<video> A?"}, {"role": "assistant", "content": "A."}],
    },
    pair(),
    pair(prompt="What moves?"),
    pair(prompt=None, question="What moves?"),
    pair(prompt=None, conversations=turns("<video>\nWhat moves?")),
    pair(prompt=None, conversations=turns("<video>\nWhat moves?"), chosen={"from": "gpt", "value": "A."}),
    pair(chosen={"role": "assistant", "content": "A."}, rejected=[{"role": "assistant", "content": "B."}]),
    pair(prompt=[{"role": "user", "content": "<video> What moves?"}]),
    pair(video=None, prompt="What is a clip?"),
    pair(prompt=7),
    pair(prompt=None, conversations=turns("<video>\nA?", "A.", "B?")),
    {"id": 8, "conversations": [{"from": "system", "value": "Be kind."}, *turns("A?", "A.")]},
    {"id": 9, "video": "clip_a", "conversations": turns("<image> A?", "A.")},
]
GPT = turns("", "A.")[1]
Bad = tuple[str, str, dict[str, Any]]
# name and field of the one problem, row
BAD: list[Bad] = [
    ("no conversation", "conversations", {"id": 0, "video": "clip_a"}),
    ("no conversation", "conversations", {"id": 0, "video": "clip_a", "conversations": []}),
    ("conversation", "conversations", {"id": 0, "video": "clip_a", "conversations": "hello"}),
    ("conversation", "messages", {"id": 0, "messages": {"user": "A?"}, "question": "A?", "answer": "A."}),
    ("turn", "conversations[0]", {"id": 0, "video": "clip_a", "conversations": ["hello"]}),
    ("turn", "conversations[0]", {"id": 0, "conversations": [{"from": "human"}, {"from": "gpt", "value": "A."}]}),
    ("turn", "messages[0].role", {"id": 0, "messages": [{"from": "human", "role": "gpt", "value": "A?"}, GPT]}),
    ("role", "conversations[0]", {"id": 0, "conversations": [{"from": ["human"], "value": "A?"}, GPT]}),
    ("role", "conversations[1]", {"id": 0, "conversations": [*turns("A?"), {"from": "tool", "value": "A."}]}),
    ("system", "conversations[2]", {"id": 0, "conversations": [*turns("A?", "A."), {"from": "system", "value": "B."}]}),
    ("no answer", "conversations", {"id": 0, "conversations": turns("A?")}),
    ("roles", "conversations", {"id": 0, "conversations": [*turns("A?", "A."), {"from": "gpt", "value": "B."}]}),
    ("no conversation", "conversations", {"id": 0, "conversations": [{"from": "gpt", "value": "A."}]}),
    ("blank answer", "conversations", {"id": 0, "video": "clip_a", "conversations": turns("<video> A?", "")}),
    ("blank answer", "conversations", {"id": 0, "conversations": turns("A?", " \n", "B?", "B.")}),
    ("placeholders", "conversations", {"id": 0, "video": "clip_a", "conversations": turns("A?", "A.")}),
    ("placeholders", "conversations", {"video": "clip_a", "conversations": turns("<video>", "A.", "<video> B?", "B.")}),
    ("placeholders", "conversations", {"id": 0, "image": "one.jpg", "conversations": turns("A?", "A.")}),
    ("placeholders", "video", {"id": 0, "conversations": turns("<image> A?", "A.")}),
    ("clip and image", "video", {"video": "clip_a", "image": "one.jpg", "conversations": turns("<video> A?", "A.")}),
    ("no question", "prompt", pair(prompt=None)),
    ("question", "prompt", pair(prompt=True)),
    ("no chosen", "chosen", pair(chosen=None)),
    ("no rejected", "rejected", pair(rejected=None)),
    ("blank answer", "chosen", pair(chosen="")),
    ("turn", "rejected[0]", pair(rejected={"from": "gpt"})),
    ("answer", "rejected", pair(rejected=[])),
    ("equal answers", "rejected", pair(rejected="A dog 0.")),
    ("placeholders", "conversations", pair(video=["clip_a", "clip_b"])),
]  # fmt: skip


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    for name, content in {**clips(["clip_a", "clip_b"]), "one.jpg": frame(1)}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_media_that_are_not_whole_or_no_clip(media: Path, tmp_path: Path) -> None:
    """Cut, only a cover, without a decoder, a pipe among frames, an image of 16 bits."""
    for name, settings in (("half.mkv", {}), ("half.avi", {"codec": "mpeg4"}), ("odd.mp4", {})):
        write_clip(media / name, **settings)
        content = (media / name).read_bytes()
        content = content[: len(content) // 2] if "half" in name else content.replace(b"avc1", b"zzz1")
        (media / name).write_bytes(content)
    with av.open(str(media / "cover.mkv"), "w") as output:
        output.add_attachment("cover.jpeg", "image/jpeg", frame(1))
        add_sound(output, Sound())(None)
    os.mkfifo(media / "clip_b" / "c01_9999.jpeg")
    Image.new("I;16", (9, 9)).save(media / "deep.png")
    names = ["half.mkv", "half.avi", "odd.mp4", "cover.mkv", "clip_b", ["clip_a/c01_0000.jpeg", "clip_b/c01_9999.jpeg"]]
    rows = [{**conversation("clip_a", index), "video": name} for index, name in enumerate(names)]
    path = write(tmp_path / "rows.jsonl", [*rows, conversation("deep.png", 9, "image"), conversation("clip_a", 10)])
    report = tmp_path / "bad.jsonl"
    assert validate(path, Options(str(media), "open", report=report)).problems == {"media damaged": 7}
    found = [json.loads(line) for line in report.read_text().splitlines()]
    assert [entry["row"] for entry in found] == [1, 2, 3, 4, 5, 6, 7]
    expected = ["cut short", "cut short", "no decoder", "only a cover", "a pipe", "a pipe", "8 bits per channel"]
    for entry, message in zip(found, expected, strict=True):
        assert message in entry["detail"]


def write(path: Path, rows: Rows) -> Path:
    path.write_bytes(lines(rows))
    return path


def test_usable_records(media: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "good.jsonl", GOOD)
    findings = validate(path, Options(str(media), "open"))
    assert (findings.rows, findings.bad, findings.problems) == (len(GOOD), 0, {})


@pytest.mark.parametrize(("name", "field", "record"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_problems_of_records(name: str, field: str, record: dict[str, Any]) -> None:
    assert [(problem.name, problem.field) for problem in check_record(record).problems] == [(name, field)]


def test_the_dataset_format_finds_the_same(media: Path) -> None:
    """Both call one parser; each asks it for what its reader needs, and tells all that it says."""
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.hparams import DataArguments

    from hound_plugin.host.converter import HoundDatasetConverter

    arguments = DataArguments(media_dir=str(media))
    for record in (*GOOD, *(record for _, _, record in BAD)):
        attributes = DatasetAttr("script", dataset_name="x", formatting="hound")
        attributes.ranking = "chosen" in record or "rejected" in record
        aligned, parsed, _ = HoundDatasetConverter(dataset_attr=attributes, data_args=arguments).aligned(record)
        assert list(parsed.problems) == check_record(record).problems
        assert bool(aligned["_response"]) != bool(parsed.problems)


def run_cli(*arguments: object) -> int:
    return cli.main(["corpus", "validate", *map(str, arguments)])


@pytest.mark.parametrize(("asked", "there"), [("scene.1", "scene.2"), ("clip.mp4", "clip.v2"), ("a.b.mp4", "a.c.mkv")])
def test_a_clip_whose_name_begins_alike_is_another_one(asked: str, there: str, tmp_path: Path) -> None:
    folder = tmp_path / "media" / "deep" / there
    folder.mkdir(parents=True) if "mkv" not in there else folder.parent.mkdir(parents=True)
    (folder / "1.jpg" if folder.is_dir() else folder).write_bytes(b"x")
    index = index_paths(tmp_path / "media", [f"old/{asked}"])
    assert index.locate(f"old/{asked}") == []


def test_the_table_and_the_bad_rows(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    missing = conversation("clip_gone", 3)
    twice = b'{"id": "a", "video": "clip_a", "video": "clip_b"}\n'
    path.write_bytes(lines([conversation("clip_a", 1)]) + b"\n{oops\n[1]\n" + lines([missing, pair(chosen="")]) + twice)
    assert run_cli(path, "--media-dir", media) == 1
    out = capsys.readouterr().out
    table = out.splitlines()[:-1]
    assert "2  no object" in table[0]
    assert "row 3: not valid JSON" in table[0], "the first of its kind"
    assert all(any(f"row {number}" in line for line in table[1:]) for number in (5, 6, 7))
    assert out.splitlines()[-1] == "6 rows, 5 with problems"
    report = [json.loads(line) for line in (tmp_path / "rows.bad.jsonl").read_text().splitlines()]
    assert [(row["row"], row["id"], row["problem"], row["field"]) for row in report] == [
        (3, None, "no object", ""),
        (4, None, "no object", ""),
        (5, "clip_gone_3", "media missing", "video"),
        (6, "clip_a_0", "blank answer", "chosen"),
        (7, None, "key twice", ""),
    ]
    assert {row["file"] for row in report} == {str(path)}
    assert report[-1]["detail"] == "the key 'video' appears twice in one object; remove one of them"
    assert run_cli(path, "--media", "none", "--limit", 1) == 0
    assert not (tmp_path / "rows.bad.jsonl").exists() or "1 rows, 0 with" in capsys.readouterr().out


@pytest.mark.parametrize("processes", [1, 2])
def test_media_are_opened(processes: int, media: Path, tmp_path: Path) -> None:
    (media / "empty").mkdir()
    (media / "broken").mkdir()
    (media / "broken" / "c01.jpeg").write_bytes(b"no picture")
    (media / "text.mp4").write_text("no video")
    (media / "torn.jpg").write_bytes(b"torn")
    names = ["clip_a", "empty", "clip_b", "broken", "text.mp4", "gone"]
    rows = [conversation(name, index) for index, name in enumerate(names * 30)]
    rows += [
        conversation("one.jpg", 0, "image"),
        conversation("torn.jpg", 1, "image"),
        conversation("clip_a", 2, "image"),
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    report = tmp_path / "bad.jsonl"
    findings = validate(path, Options(str(media), "open", processes=processes, report=report))
    assert findings.problems == {"no frame": 30, "media damaged": 62, "media missing": 30}
    found = [json.loads(line) for line in report.read_text().splitlines()]
    numbers = [entry["row"] for entry in found]
    assert numbers == sorted(numbers)
    assert len(numbers) == 122
    assert numbers[:4] == [2, 4, 5, 6]
    assert [(entry["problem"], entry["field"]) for entry in found[-2:]] == [("media damaged", "image")] * 2
    assert validate(path, Options(str(media), "exists")).problems == {"media missing": 30}
    assert validate(path, Options(str(media), "none")).problems == {}


def test_paths_are_corrected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "disk"
    for name, content in {
        **clips(["deep/part_1/v_one", "deep/part_2/v_two", "msvd/same", "tgif/same", "x/twice", "y/twice", "v_here"]),
        "videos/clip.webm": b"",
        "images/7.jpeg": frame(7),
        "notes/v_text.txt": b"",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    names = {
        "/mnt/bn/frames/v_one": "deep/part_1/v_one",
        "v_two.mp4": "deep/part_2/v_two",
        "test/tgif/same": "tgif/same",
        "clip": "videos/clip.webm",
        "v_here": "v_here",
        "twice": "twice",
        "gone": "gone",
        "v_text": "v_text",
    }
    rows = [conversation(name, index) for index, name in enumerate(names)]
    rows.append(conversation("allava/7.jpeg", 0, "image"))
    path = write(tmp_path / "rows.jsonl", rows)
    before = path.read_bytes()
    assert run_cli(path, "--media-dir", root, "--fix-paths") == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "9 rows, 3 with problems, paths corrected in 5"
    fixed = [json.loads(line) for line in (tmp_path / "rows.fixed.jsonl").read_text().splitlines()]
    assert [row.get("video", row.get("image")) for row in fixed] == [*names.values(), "images/7.jpeg"]
    assert path.read_bytes() == before
    report = (tmp_path / "rows.bad.jsonl").read_text()
    assert "ambiguous name" in report
    assert "x/twice, y/twice" in report
    assert run_cli(path, "--media-dir", root, "--fix-paths") == 2  # it exists
    assert run_cli(path, "--media-dir", root, "--fix-paths", "--force", "--drop-bad") == 1
    assert len((tmp_path / "rows.fixed.jsonl").read_text().splitlines()) == 6
    assert run_cli(tmp_path / "rows.fixed.jsonl", "--media-dir", root, "--media", "exists") == 0


def test_parts_of_clips(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    for name, content in {
        **clips(["folder"]),
        "deep/clip.mp4": (ROOT / "media" / "clip_long.mp4").read_bytes(),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "one.jpg").write_bytes(frame(1))
    names = [
        "deep/clip.mp4#t=1,2.5",
        "clip.mp4#t=3",
        "deep/clip.mp4#t=2,1",
        "deep/clip.mp4#t=90",
        "folder#t=1",
        "gone#t=1",
    ]
    rows = [*(conversation(name, index) for index, name in enumerate(names)), conversation("one.jpg#t=1", 9, "image")]
    path = write(tmp_path / "rows.jsonl", rows)
    exists = {"part of a clip": 3, "media missing": 2}  # backwards, of a folder, of an image
    assert validate(path, Options(str(root), "exists")).problems == exists
    opened = {"part of a clip": 3, "media missing": 2, "no frame": 1}
    assert validate(path, Options(str(root), "open")).problems == opened
    assert run_cli(path, "--media-dir", root, "--fix-paths") == 1
    fixed = [json.loads(line) for line in (tmp_path / "rows.fixed.jsonl").read_text().splitlines()]
    assert fixed[1]["video"] == "deep/clip.mp4#t=3"
    assert [row.get("video") for row in (fixed[0], fixed[5])] == [names[0], names[5]]


def test_the_tree_is_walked_once(tmp_path: Path) -> None:
    for name in ("a/one", "b/.hidden/one", ".hound/one", "b/@eaDir/one", "#recycle/one", "$RECYCLE.BIN/one"):
        (tmp_path / name).mkdir(parents=True)
    index = index_paths(tmp_path, ["one", "two"])
    assert index.paths == {"one": ["a/one"]}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Options(media_dir="/no/such"), "Expected a folder as --media-dir"),
        (Options(limit=0), "Expected --limit of at least 1"),
        (Options(fixed=Path("out.jsonl")), "Expected --media-dir with --fix-paths"),
    ],
)
def test_bad_options(options: Options, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=reason):
        validate(write(tmp_path / "rows.jsonl", GOOD), options)


def test_the_input_is_never_an_output(media: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD)
    before = path.read_bytes()
    assert run_cli(path, "--media-dir", media, "--fix-paths", "--output", path, "--force") == 2
    assert run_cli(path, "--media-dir", media, "--report", path) == 2
    assert run_cli(path, "--drop-bad") == 2
    assert run_cli(tmp_path / "none.jsonl") == 2
    assert path.read_bytes() == before


MEASURE = f"""
import sys
from pathlib import Path
from hound_plugin.corpus.validate import Options, validate
findings = validate(Path(sys.argv[1]), Options(media_dir=sys.argv[2], report=Path(sys.argv[1] + ".bad")))
print(findings.rows, findings.bad, {PEAK})
"""


def measured(path: Path, media: Path) -> list[int]:
    command = [sys.executable, "-c", MEASURE, str(path), str(media)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    return [int(number) for number in done.stdout.split()]


def test_memory_does_not_grow_with_rows(media: Path, tmp_path: Path) -> None:
    """40 times the rows, half of them bad: less than 3 MB more, where the rows themselves have 25 MB."""
    peaks = []
    for count in (1_000, 40_000):
        path = tmp_path / f"{count}.jsonl"
        with path.open("wb") as file:
            for index in range(count):
                name = "clip_a" if index % 2 else f"gone_{index}"
                record = conversation(name, index) | {"pad": "x" * 400}
                file.write(lines([record]))
        rows, bad, peak = measured(path, media)
        assert (rows, bad) == (count, count // 2)
        peaks.append(peak)
    assert path.stat().st_size > 20_000_000
    assert peaks[1] - peaks[0] < 3_000, peaks


def fixed_row(folder: Path, files: Sequence[str], row: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return corrected(row, index_paths(folder, missing_names([row], str(folder))), str(folder))


@pytest.mark.parametrize(
    ("files", "video", "becomes"),
    [
        (["p/7.jpg", "q/7.jpg", "q/8.jpg"], ["old/7.jpg", "old/8.jpg"], ["q/7.jpg", "q/8.jpg"]),
        (["p/7.jpg", "q/8.jpg"], ["old/7.jpg", "old/8.jpg"], None),
        (["p/7.jpg", "p/8.jpg", "q/7.jpg", "q/8.jpg"], ["old/7.jpg", "old/8.jpg"], None),
        (["p/7.jpg", "p/8.jpg", "q/7.jpg", "q/8.jpg"], ["z/q/7.jpg", "z/q/8.jpg"], ["q/7.jpg", "q/8.jpg"]),
        (["old/7.jpg", "p/8.jpg"], ["old/7.jpg", "old/8.jpg"], None),
        (["old/7.jpg", "p/7.jpg", "p/8.jpg"], ["old/7.jpg", "old/8.jpg"], ["p/7.jpg", "p/8.jpg"]),
        (["p/7.png", "p/8.png"], [{"path": f"o/{n}.jpg"} for n in (7, 8)], [{"path": f"p/{n}.png"} for n in (7, 8)]),
        (["p/a/7.jpg", "p/b/7.jpg"], ["o/a/7.jpg", "o/b/7.jpg"], ["p/a/7.jpg", "p/b/7.jpg"]),
        (["p/7.jpg"], ["o/a/7.jpg", "o/b/7.jpg"], None),
    ],
)
def test_frames_of_one_clip_come_from_one_folder(
    files: list[str], video: list[Any], becomes: list[Any] | None, tmp_path: Path
) -> None:
    for given, expected in ((video, becomes), ([video], becomes and [becomes])):
        record, ambiguous = fixed_row(tmp_path, files, {"id": "1", "video": given, "prompt": "Q?"})
        assert record["video"] == (expected or given)
        assert bool(ambiguous) == (expected is None)


def test_frames_in_two_folders_are_a_bad_row(tmp_path: Path) -> None:
    for name in ("x/c01.jpg", "y/c02.jpg"):
        (tmp_path / "disk" / name).parent.mkdir(parents=True)
        (tmp_path / "disk" / name).write_bytes(frame(1))
    row = {**conversation("clip", 0), "video": ["gone/c01.jpg", "gone/c02.jpg"]}
    path = write(tmp_path / "rows.jsonl", [row])
    assert run_cli(path, "--media-dir", tmp_path / "disk", "--fix-paths", "--drop-bad") == 1
    assert "expected the 2 frames of gone in one folder" in (tmp_path / "rows.bad.jsonl").read_text()
    assert (tmp_path / "rows.fixed.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("field", "name", "there", "becomes"),
    [
        ("video", "run.mp4", "p/run.jpg", "run.mp4"),
        ("video", "run.mp4", "p/run.webm", "p/run.webm"),
        ("image", "run.jpg", "p/run.mp4", "run.jpg"),
        ("image", "run.jpg", "p/run.webp", "p/run.webp"),
    ],
)
def test_a_picture_does_not_stand_for_a_clip(field: str, name: str, there: str, becomes: str, tmp_path: Path) -> None:
    record, ambiguous = fixed_row(tmp_path, [there], {"id": "1", field: name, "prompt": "Q?"})
    assert (record[field], ambiguous) == (becomes, [])


CLAIMS = [
    (["u/7.mp4", "w/7.mp4"], ["disk/7.mp4"], ["u/7.mp4", "w/7.mp4"]),
    (["u/7.mp4", "w/7"], ["disk/7.mp4"], ["u/7.mp4", "w/7"]),
    (["disk/7.mp4", "w/7.mp4"], ["disk/7.mp4"], ["disk/7.mp4", "w/7.mp4"]),
    (["u/a.png", "w/a.png"], ["disk/a.png"], ["u/a.png", "w/a.png"]),
    (["/m/clips/7.mp4", "/n/clips/7.mp4", "7.mp4"], ["disk/7.mp4"], ["disk/7.mp4"] * 3),
    (["u/7.mp4", "w/7.mp4"], ["disk/u/7.mp4", "disk/w/7.mp4"], ["disk/u/7.mp4", "disk/w/7.mp4"]),
    (["u/7.mp4#t=0,1", "u/7.mp4#t=2,3"], ["disk/7.mp4"], ["disk/7.mp4#t=0,1", "disk/7.mp4#t=2,3"]),
    ([["u/1.jpg", "u/2.jpg"], ["w/1.jpg", "w/2.jpg"]], ["x/1.jpg", "x/2.jpg"],
     [["u/1.jpg", "u/2.jpg"], ["w/1.jpg", "w/2.jpg"]]),
    ([["u/1.jpg"], ["x/1.jpg"]], ["x/1.jpg"], [["u/1.jpg"], ["x/1.jpg"]]),
]  # fmt: skip
"""Names in rows, files that are there, and what becomes of the names."""


@pytest.mark.parametrize(("names", "files", "expected"), CLAIMS)
def test_two_clips_do_not_become_one(names: list[Any], files: list[str], expected: list[Any], tmp_path: Path) -> None:
    for file in files:
        (tmp_path / "media" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "media" / file).write_bytes(b"clip")
    field = "image" if str(names[0]).endswith(".png") else "video"
    path = write(tmp_path / "rows.jsonl", [
        {"id": str(number), field: name, "conversations": turns(f"<{field}> A?", "A.")}
        for number, name in enumerate(names)
    ])  # fmt: skip
    run_cli(path, "--media-dir", tmp_path / "media", "--fix-paths")
    fixed = [json.loads(line)[field] for line in (tmp_path / "rows.fixed.jsonl").read_text().splitlines()]
    assert fixed == expected
    bad = tmp_path / "rows.bad.jsonl"
    if names == expected:
        assert "too" in bad.read_text()
