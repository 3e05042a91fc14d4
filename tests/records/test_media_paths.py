from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import hound_plugin
from hound_plugin.corpus.media_check import check_media
from hound_plugin.errors import DataError, MediaError, MediaNotFoundError
from hound_plugin.media.decode import probe
from hound_plugin.records.media_paths import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    bare_name,
    clip_key,
    find_media,
    is_image_path,
    media_exists,
    split_part,
    why_absent,
    with_part,
)
from hound_plugin.records.parse import parse


def test_suffixes_have_one_home() -> None:
    root = Path(hound_plugin.__file__).parent
    homes = [path for path in root.rglob("*.py") if '".webp"' in path.read_text() or '".mkv"' in path.read_text()]
    assert [path.relative_to(root).as_posix() for path in homes] == ["records/media_paths.py"]
    assert not set(IMAGE_SUFFIXES) & set(VIDEO_SUFFIXES)


def test_image_paths() -> None:
    assert all(map(is_image_path, ("a.jpg", "b.c/D.JPEG", Path("x.webp"), "a.png#t=1,2")))
    assert not any(map(is_image_path, ("a.mp4", "a.jpg/b", "jpg", ".png", 3, None, b"a.jpg", ["a.jpg"])))


def test_media_are_found_under_the_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "media"
    (folder / "inner").mkdir(parents=True)
    for path in (folder / "both.mp4", tmp_path / "both.mp4", tmp_path / "outer.mp4"):
        path.touch()
    monkeypatch.chdir(tmp_path)
    assert find_media("both.mp4", str(folder)) == str(folder / "both.mp4")
    assert find_media("outer.mp4", str(folder)) == "outer.mp4"
    assert find_media("both.mp4", None) == "both.mp4"
    assert find_media("inner/../../outer.mp4", "media") == "media/inner/../../outer.mp4"
    assert find_media(str(tmp_path / "outer.mp4"), str(folder)) == str(tmp_path / "outer.mp4")
    assert find_media("/both.mp4", str(folder)) is None, "an absolute path is not sought under the folder"
    for absent in ("gone.mp4", "", "a\0b.mp4", "outer.mp4/x"):
        assert find_media(absent, str(folder)) is None


def test_a_part_stays_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert find_media("a.mp4#t=1,2", str(tmp_path)) == str(tmp_path / "a.mp4#t=1,2")
    assert find_media("b.mp4#t=1,2", str(tmp_path)) is None
    assert media_exists(str(tmp_path / "a.mp4#t=,3"))
    assert not media_exists("")


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("#t=0.5,1.0", 0.5, 1.0),
        ("#t=5", 5.0, None),
        ("#t=5,", 5.0, None),
        ("#t=,10", None, 10.0),
        ("#t=.25,1.", 0.25, 1.0),
    ],
)
def test_parts_are_read(text: str, start: float | None, end: float | None) -> None:
    assert split_part(f"a#1/b c.mp4{text}") == ("a#1/b c.mp4", start, end)


@pytest.mark.parametrize("path", ["a.mp4", "a#t=1/b.mp4", "a.mp4#x=1", "take#2.mp4", "#t=1,2", "a.mp4#t=1#2"])
def test_paths_without_a_part(path: str) -> None:
    assert split_part(path) == (path, None, None)


def test_a_file_of_the_literal_name_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4#t=1,2").touch()
    path = str(tmp_path / "a.mp4#t=1,2")
    assert split_part(path) == (path, None, None)
    assert split_part(with_part(path, 3, 4)) == (path, 3.0, 4.0)
    (tmp_path / "odd#t=x.png").touch()
    assert split_part(str(tmp_path / "odd#t=x.png"))[1:] == (None, None)


@pytest.mark.parametrize(
    "text", ["", ",", "2,1", "1,1", ",0", "nan", "1,inf", "-1,2", "1:30", "1e3", "1,2,3", "1s", " 1", "٣"]
)
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MediaError, match=r"as #t=START,END in seconds") as caught:
        split_part(f"a.mp4#t={text}")
    assert repr(f"#t={text}") in str(caught.value)
    assert caught.value.path == f"a.mp4#t={text}"


@pytest.mark.parametrize(
    ("start", "end", "written"),
    [
        (0.5, 1, "a.mp4#t=0.5,1"),
        (None, 10.0, "a.mp4#t=,10"),
        (3, None, "a.mp4#t=3"),
        (0, None, "a.mp4#t=0"),
        (None, None, "a.mp4"),
        (1e-7, 1e22, "a.mp4#t=0.0000001,10000000000000000000000"),
        (1 / 3, 2 / 3, "a.mp4#t=0.3333333333333333,0.6666666666666666"),
    ],
)
def test_parts_are_written_and_read_back(start: float | None, end: float | None, written: str) -> None:
    path = with_part("a.mp4", start, end)
    assert path == written
    assert split_part(path) == ("a.mp4", start, end)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (-1, None, "got -1 and None"),
        (2, 1.5, "got 2 and 1.5"),
        (1, 1, "got 1 and 1"),
        (math.nan, 2, "got nan and 2"),
        (0, math.inf, "got 0 and inf"),
        (math.inf, None, "got inf and None"),
        ("1", 2, "numbers of seconds, got '1'"),
        (True, None, "numbers of seconds, got True"),
    ],
)
def test_a_part_that_cannot_be_is_not_written(start: Any, end: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_part("a.mp4", start, end)
    with pytest.raises(DataError, match="already names a part"):
        with_part("a.mp4#t=1", 2, 3)


def test_one_clip_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "v1.5").mkdir(parents=True)
    (tmp_path / "real" / "b.webm").touch()
    (tmp_path / "link.webm").symlink_to(tmp_path / "real" / "b.webm")
    (tmp_path / "folder").symlink_to("real")
    alike = [
        ["real/b.webm", "./real/b.webm", "real//b.webm", "real/../real/b.webm", "link.webm", "folder/b.webm",
         str(tmp_path / "real" / "b.webm"), "real/b.webm#t=0"],
        ["real/b.webm#t=1,2", "./link.webm#t=1.0,2.00", f"{tmp_path}/folder/./b.webm#t=1.,2"],
        ["real/b.webm#t=,2.5", "real/b.webm#t=0,2.5"],
        ["real/v1.5", "real/v1.5/", "real/./v1.5/.", "folder/v1.5"],
        ["gone.mp4", "./gone.mp4", "x/../gone.mp4"],
    ]  # fmt: skip
    keys = [{clip_key([path]) for path in paths} for paths in alike]
    assert [len(group) for group in keys] == [1] * len(alike)
    assert len(set.union(*keys)) == len(alike)
    assert clip_key(["a/1.jpg", "./a/2.jpg"]) == clip_key(["./a//1.jpg", "a/2.jpg"]) != clip_key(["a/2.jpg", "a/1.jpg"])
    assert clip_key(["a.mp4#t=2,1"]) == clip_key(["./a.mp4#t=2,1"]), "whoever reads it refuses it"
    assert {bare_name(path) for path in ("x/v.1", "x/v.1/", "x/v.1/.", "./x//v.1//", "y/../v.1", "v.1.mts")} == {"v.1"}


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").symlink_to("/gone/clip.mp4")
    (tmp_path / "whole.mp4").write_bytes(b"x")
    told = f"{tmp_path}/clip.mp4 is a link to /gone/clip.mp4, which does not exist"
    assert why_absent("clip.mp4", str(tmp_path)) == why_absent(str(tmp_path / "clip.mp4")) == told
    assert why_absent("whole.mp4", str(tmp_path)) == why_absent("", str(tmp_path)) == why_absent("none") == ""
    with pytest.raises(MediaNotFoundError, match="is a link to /gone"):
        probe(str(tmp_path / "clip.mp4"))
    (problem,) = check_media(["clip.mp4"], True, str(tmp_path), "exists")
    assert "is a link to /gone" in problem.detail


@pytest.mark.parametrize(
    ("path", "name", "same"),
    [
        ("run/day/a.mp4", "day/a.mp4", True),
        ("run/day/a.mp4", "/srv/run/day/a.mp4", True),
        ("run/day/a.mp4", "./day/a", True),
        ("a.mp4", "/srv/night/a.mp4", True),
        ("run/day/a.mp4", "night/a.mp4", False),
        ("run/day/a.mp4", "ay/a.mp4", False),
        ("run/day/a.mp4", "/day/a.mp4", False),
        ("/mnt/day/a.mp4", "/srv/day/a.mp4", False),
        ("day/a.mp4", "run/night/a", False),
        ("day/a", "day/a.mp4", False),
    ],
)
def test_a_second_path_is_the_end_of_the_first_or_another_clip(path: str, name: str, same: bool) -> None:
    parsed = parse({"id": "1", "video": path, "video_path": name, "question": "Q?", "answer": "A."})
    assert [problem.name for problem in parsed.problems] == ([] if same else ["media twice"])
