"""An address that asks for a part of what is fetched is refused, however the part is written."""

from __future__ import annotations

import pytest

from hound_plugin.errors import MediaDecodeError
from hound_plugin.records.served_media import check_whole, path_of_file_url

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
        path_of_file_url(url)
    assert path_of_file_url("file:///clips/b%0A.mp4") == "/clips/b\n.mp4"
