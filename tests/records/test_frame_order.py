from __future__ import annotations

import random
from pathlib import Path

import pytest

from hound_plugin.errors import EmptyMediaError, MediaDecodeError
from hound_plugin.records.frame_order import list_frames, order_frames


@pytest.mark.parametrize(
    "names",
    [
        ["shot_8.jpg", "shot_9.jpg", "shot_10.jpg", "shot_100.jpg"],
        ["0.png", "7.png", "12.png"],
        ["img-2.bmp", "img-11.bmp"],
        ["c01_0002.jpg", "c01_0010.jpg", "c02_0001.jpg"],
        ["s02e01_9.png", "s02e01_10.png", "s02e02_1.png", "s10e01_1.png"],
        ["take (1).webp", "take (2).webp", "take (10).webp"],
        ["at_0.5.jpg", "at_1.0.jpg", "at_1.25.jpg", "at_1.5.jpg", "at_10.0.jpg"],
        ["t_1.10.jpg", "t_1.50.jpg", "t_2.00.jpg"],
        ["t_0.0.jpg", "t_0.125.jpg", "t_0.25.jpg", "t_0.5.jpg", "t_10.0.jpg"],
        ["shot1.008.jpg", "shot1.010.jpg", "shot1.100.jpg"],
        ["shot1.10.jpg", "shot1.110.jpg", "shot2.5.jpg"],
        ["2023.12.9.jpg", "2024.1.9.jpg", "2024.1.10.jpg"],
        ["clip.mp4.2.jpg", "clip.mp4.10.jpg"],
        ["clip.mp4.1.25.jpg", "clip.mp4.1.5.jpg"],
        ["frame.9.jpg", "frame.10.jpg"],
        ["frame_1.png", "frame_2.jpeg", "frame_3.JPG"],
        ["begin.jpg", "end.jpg", "middle.jpg"],
        ["٩.png", "١٠.png"],
        ["only.png"],
        [],
    ],
)
def test_numbers_count_by_their_value(names: list[str]) -> None:
    shuffled = names[:]
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert order_frames(shuffled) == names


@pytest.mark.parametrize(
    "form", ["f_{:04d}.jpg", "c01_{:06d}.png", "s02e{:03d}_10.jpg", "{:05d}.webp", "at_{:09.3f}.jpg"]
)
def test_padded_names_keep_the_order_of_plain_text(form: str) -> None:
    names = [form.format(number) for number in range(0, 999, 7)]
    assert order_frames(names[::-1]) == sorted(names)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["shot_1.jpg", "pic_2.jpg"], "'pic_2.jpg' and 'shot_1.jpg'"),
        (["cover.jpg", "shot_1.jpg", "shot_2.jpg"], "'shot_1.jpg' and 'cover.jpg'"),
        (["shot_1.jpg", "shot_1_2.jpg"], "'shot_1.jpg' and 'shot_1_2.jpg'"),
        (["Shot_1.jpg", "shot_2.jpg"], "'Shot_1.jpg' and 'shot_2.jpg'"),
        (["t_1.jpg", "t_1.5.jpg"], r"'t_1.5.jpg' and 't_1.jpg'"),
        (["1.5.jpg", "1.5.3.jpg"], r"'1.5.3.jpg' and '1.5.jpg'"),
    ],
)
def test_two_patterns_are_refused(names: list[str], shown: str) -> None:
    with pytest.raises(MediaDecodeError, match=f"got 2 patterns, as in {shown}. Remove files that are not frames"):
        order_frames(names)


@pytest.mark.parametrize(
    "names",
    [["f_01.jpg", "f_1.jpg"], ["f_1.jpg", "f_1.png"], ["t_1.10.jpg", "t_1.1.jpg"], ["begin.jpeg", "begin.jpg"]],
)
def test_two_names_of_one_moment_are_refused(names: list[str]) -> None:
    first, second = sorted(names)
    with pytest.raises(MediaDecodeError, match=f"{first}' and '{second}', which have the same number") as caught:
        order_frames(names, "/clips/a")
    assert "the folder /clips/a" in str(caught.value)
    assert caught.value.path == "/clips/a"


@pytest.mark.parametrize(
    "names",
    [
        ["shot1.9.jpg", "shot1.10.jpg", "shot1.11.jpg"],
        [f"render_v2.{number}.png" for number in range(24, 150, 24)],
        ["t_1.5.jpg", "t_1.10.jpg"],
    ],
)
def test_a_dot_that_may_separate_two_numbers_is_refused(names: list[str]) -> None:
    with pytest.raises(MediaDecodeError, match=r"may be a decimal point or separate two numbers\. Rename the frames"):
        order_frames(names)


def test_a_folder_lists_visible_images_alone(tmp_path: Path) -> None:
    for name in ("f_10.PNG", "f_9.jpg", ".f_1.jpg", "notes_3.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "other.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "other.png")
    assert list_frames(str(tmp_path)) == [str(tmp_path / "f_9.jpg"), str(tmp_path / "f_10.PNG")]
    (tmp_path / "thumbnail.jpg").touch()
    with pytest.raises(MediaDecodeError, match=r"'f_10.PNG' and 'thumbnail.jpg'") as caught:
        list_frames(str(tmp_path))
    assert caught.value.path == str(tmp_path)


@pytest.mark.parametrize("video", ["a.mp4", "f_3.MKV", "f_1.gif"])
def test_a_folder_with_frames_and_a_video_is_refused(video: str, tmp_path: Path) -> None:
    """A folder of clips with a thumbnail was taken for a clip of one frame."""
    for name in ("f_1.png", "f_2.png", video):
        (tmp_path / name).touch()
    with pytest.raises(MediaDecodeError, match=f"got 'f_.*png' and the video '{video}': which of them"):
        list_frames(str(tmp_path))


@pytest.mark.parametrize("other", ["f_3.tif", "f_10.heic", "f_03.jpg.part", "f_3.jpg.crdownload", "f_3"])
def test_frames_of_other_formats_are_not_left_out(other: str, tmp_path: Path) -> None:
    for name in ("f_1.png", "f_2.png", other):
        (tmp_path / name).touch()
    with pytest.raises(MediaDecodeError, match=f"'{other}' has the name of one, .* would be left out"):
        list_frames(str(tmp_path))


@pytest.mark.parametrize("other", ["f_1.json", "f_2.png.md5", "f.json", "notes_3.txt", "3.txt", "README", "f_1"])
def test_notes_beside_frames_are_ignored(other: str, tmp_path: Path) -> None:
    for name in ("f_1.png", "f_2.png", other):
        (tmp_path / name).touch()
    assert list_frames(str(tmp_path)) == [str(tmp_path / "f_1.png"), str(tmp_path / "f_2.png")]


def test_a_folder_without_frames(tmp_path: Path) -> None:
    with pytest.raises(EmptyMediaError, match="No frame in the folder"):
        list_frames(str(tmp_path))
    with pytest.raises(MediaDecodeError, match="Cannot list the folder"):
        list_frames(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    "names",
    [
        ["t_2.50e-01.jpg", "t_5.00e-01.jpg", "t_1.00e+00.jpg", "t_1.25e+01.jpg", "t_1.20e+02.jpg"],
        ["9.9E+00s.png", "1.0E+01s.png"],
        ["1e-05.jpg", "2e-05.jpg"],
        ["s01e10_1.jpg", "s02e01_1.jpg", "s02e01_2.jpg"],
        ["Show.S1E2.jpg", "Show.S1E10.jpg", "Show.S2E1.jpg"],
        ["0,25.jpg", "0,50.jpg", "1,00.jpg"],
        ["1,000.jpg", "2,000.jpg", "10,500.jpg"],
        ["1,2,9.jpg", "1,2,10.jpg", "1,3,1.jpg"],
        ["91e5-1.jpg", "91e5-2.jpg", "91e5-10.jpg"],
        ["10m²_1.jpg", "10m²_2.jpg", "10m²_10.jpg"],
    ],
)
def test_numbers_with_exponents_and_commas_that_leave_no_doubt(names: list[str]) -> None:
    for seed in range(3):
        assert order_frames(random.Random(seed).sample(names, len(names))) == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["t0,5.jpg", "t0,25.jpg", "t0,75.jpg"], "may or may not have a decimal comma"),
        (["9,5.png", "9,12.png"], "may or may not have a decimal comma"),
        (["0,5.png", "0,50.png"], "may or may not have a decimal comma"),
        (["1e3.jpg", "2e2.jpg"], "may or may not have an exponent"),
        (["at_1e-2.jpg", "at_1e-3.jpg"], "may or may not have an exponent"),
        (["x3e-1.jpg", "x1e+1.jpg", "x2e+0.jpg"], "got . patterns"),
        (["1.5e3.jpg", "2.5e1.jpg"], "may or may not have an exponent"),
        (["f⁹.jpg", "f¹⁰.jpg"], "numbers of digits, .* got '[¹⁹⁰]'"),
        (["①.jpg", "②.jpg", "⑩.jpg"], "numbers of digits"),
        (["shotⅨ.jpg", "shotⅤ.jpg"], "numbers of digits"),
        (["½.png", "¼.png"], "numbers of digits"),
        (["f1².jpg", "f1³.jpg"], "got 2 patterns"),
    ],
)
def test_numbers_that_can_be_read_in_two_ways_are_refused(names: list[str], message: str) -> None:
    for order in (names, names[::-1]):
        with pytest.raises(MediaDecodeError, match=message):
            order_frames(order)


def test_one_frame_needs_no_order() -> None:
    assert order_frames(["½.png"]) == ["½.png"]
    assert order_frames(["0,5.png"]) == ["0,5.png"]
