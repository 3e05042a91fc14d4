"""An address that asks for a part of what is fetched is refused, however the part is written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from hound_plugin.errors import MediaDecodeError, MediaError, MediaNotFoundError
from hound_plugin.records.media_paths import split_part
from hound_plugin.records.served_media import allowed_media, check_whole, split_file_url

FRAGMENTS = ["id=intro&t=3", "t=npt:10,20", "%74=5", "xyn=1&t=2", "xywh=percent:25,25,50,50", "clip1", "t", "/t=1"]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_no_fragment_of_an_address_is_ignored(fragment: str) -> None:
    with pytest.raises(MediaDecodeError, match="the address of a whole video"):
        check_whole(f"https://example.org/a.mp4?token=x#{fragment}", "video")


@pytest.mark.parametrize("url", ["https://example.org/a.mp4", "https://example.org/a%23t=5.mp4?t=5", "http://h/a.mp4#"])
def test_an_address_without_a_fragment_is_whole(url: str) -> None:
    check_whole(url, "video")


@pytest.mark.parametrize("url", ["file:///clips/b\r.mp4", "file:///clips/\tb.mp4", "\nfile:///clips/b.mp4"])
def test_no_character_of_a_file_address_is_dropped(url: str) -> None:
    with pytest.raises(MediaDecodeError, match="no control characters"):
        split_file_url(url)
    assert split_file_url("file:///clips/b%0A.mp4") == ("/clips/b\n.mp4", "")


def test_escapes_that_are_not_utf_8() -> None:
    """They would become a replacement character, which may be another file's name."""
    with pytest.raises(MediaDecodeError, match=r"Expected file:///ABSOLUTE/PATH, got .*%FF"):
        split_file_url("file:///clips/caf%FF.mp4")


def _served(url: str, folder: Path, kind: str = "video") -> str | list[str]:
    path, fragment = split_file_url(url)
    return allowed_media(path, kind, str(folder), "MEDIA", fragment=fragment)


@pytest.mark.parametrize("escaped", ["%23t=0,0.4", "%23t%3D1", "%23%74=1,2"])
def test_an_escaped_number_sign_belongs_to_the_name(escaped: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"whole")
    with pytest.raises(MediaNotFoundError, match="there is none here"):
        _served(f"file://{tmp_path}/a.mp4{escaped}", tmp_path)
    named = tmp_path / unquote(f"a.mp4{escaped}")
    named.touch()
    assert _served(f"file://{tmp_path}/a.mp4{escaped}", tmp_path) == str(named)
    assert _served(f"file://{tmp_path}/a.mp4{escaped}#t=2,3.5", tmp_path) == f"{named}#t=2,3.5"
    assert split_part(f"{named}#t=2,3.5") == (str(named), 2.0, 3.5)


def test_a_fragment_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"whole")
    url = f"file://{tmp_path}/a.mp4"
    assert _served(f"{url}#t=0,1.0", tmp_path) == f"{tmp_path}/a.mp4#t=0,1"
    assert _served(f"{url}#", tmp_path) == f"{tmp_path}/a.mp4"
    for fragment in ("xywh=0,0,8,8", "t=npt:1,2", "T=1", "t", "t=0%2C1"):
        with pytest.raises(MediaError, match=r"Expected a part of a clip as #t=START,END"):
            _served(f"{url}#{fragment}", tmp_path)
    (tmp_path / "a.mp4#t=0,1").touch()
    with pytest.raises(MediaDecodeError, match="the name of a file, and a part of another one"):
        _served(f"{url}#t=0,1.0", tmp_path)
    for kind, name in (("image", "a.mp4"), ("video", "")):
        with pytest.raises(MediaDecodeError, match=r"has no timestamps\. Remove .#t=0,2"):
            _served(f"file://{tmp_path}/{name}#t=0,2", tmp_path, kind)
