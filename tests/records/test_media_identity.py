from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hound_plugin.records.media_identity import content_digest, media_digest, media_identity


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"12345")
    os.utime(path, ns=(7, 7))
    return path


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_on_disk_is_its_size_time_and_content_wherever_it_lies(clip: Path, tmp_path: Path) -> None:
    """The form is part of the keys of caches that people have."""
    assert json.dumps(media_identity(clip)) == json.dumps([5, 7, digest(b"12345")])
    assert json.dumps(media_identity([clip, clip])) == json.dumps([[5, 7, digest(b"12345")]] * 2)
    copied = Path(shutil.copytree(clip.parent, tmp_path / "elsewhere")) / clip.name
    assert media_identity(copied) == media_identity(clip)
    os.utime(copied, ns=(8, 8))
    assert media_identity(copied) != media_identity(clip)


@pytest.mark.parametrize("size", [10, 3 << 16, 1 << 20])
def test_content_of_the_same_size_and_time_is_another(tmp_path: Path, size: int) -> None:
    """The head, the middle and the tail; of a small file every byte."""
    path, found = tmp_path / "clip.mp4", set()
    for place in (None, 0, size // 2, size - 1):
        content = bytearray(size)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        os.utime(path, ns=(7, 7))
        found.add(media_identity(path))
    assert len(found) == 4
    assert None not in found


def test_within_a_process_a_replaced_file_is_another(clip: Path) -> None:
    before, lasting = media_identity(clip, in_process=True), media_identity(clip)
    copy = clip.with_name("copy.mp4")
    copy.write_bytes(b"54321")
    os.utime(copy, ns=(7, 7))
    copy.rename(clip)
    assert media_identity(clip) != lasting
    assert media_identity(clip, in_process=True) != before


def test_a_folder_is_its_frames_in_their_order(tmp_path: Path) -> None:
    for name in ("f_9.png", "f_10.png"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, ns=(7, 7))
    content = digest(b"x")
    expected = [["f_9.png", 1, 7, content], ["f_10.png", 1, 7, content]]
    assert json.dumps(media_identity(tmp_path)) == json.dumps(expected)
    before = media_identity(tmp_path)
    for stray in ("notes.txt", ".f_1.png"):
        (tmp_path / stray).write_text("x")
    assert media_identity(tmp_path) == before
    (tmp_path / "cover.png").write_text("x")
    assert media_identity(tmp_path) is None, "who reads it says why"


def test_parts_of_a_clip_are_not_the_clip(clip: Path) -> None:
    for in_process in (False, True):
        kinds = {media_identity(f"{clip}{part}", in_process) for part in ("", "#t=1", "#t=1,2", "#t=,2", "#t=2")}
        assert len(kinds) == 5
        assert None not in kinds
        assert media_identity(f"{clip}#t=1.0,2", in_process) == media_identity(f"{clip}#t=1,2.00", in_process)
        assert media_identity(f"{clip}#t=2,1", in_process) is None
    whole = media_identity(clip)
    clip.with_name("clip.mp4#t=1,2").write_bytes(b"12345")
    assert media_identity(f"{clip}#t=1,2") not in {whole, None}


def test_media_in_memory_are_known_within_a_process_alone() -> None:
    zeros = np.zeros((1, 2, 2, 3), np.uint8)
    kinds = [media_identity(item, in_process=True) for item in (b"123", b"124", zeros, zeros[0], zeros.astype(np.int8))]
    assert len({*kinds, None}) == 6
    assert media_identity(bytearray(b"123"), in_process=True) == kinds[0]
    assert media_identity(zeros[:, ::-1], in_process=True) == kinds[2]
    for item in (b"123", zeros, [], [zeros], object(), np.array([object()]), "/gone.mp4", "a\0b"):
        assert media_identity(item) is None
    assert media_identity(np.array([object()]), in_process=True) is None


def test_the_digest_is_of_the_content_and_the_part(clip: Path) -> None:
    assert media_digest(str(clip)) == hashlib.sha256(b"clip.mp4\x005\x0012345").hexdigest()
    parts = [media_digest(f"{clip}{part}") for part in ("", "#t=1", "#t=1,2", "#t=2,1")]
    assert len(set(parts)) == 4
    assert media_digest(f"{clip}#t=1.0,2") == parts[2]
    assert media_digest(["/gone.mp4", None]) == hashlib.sha256().hexdigest()


def test_the_digest_of_a_folder_follows_its_frames(tmp_path: Path) -> None:
    for name in ("f_9.png", "f_10.png"):
        (tmp_path / name).write_text(name)
    before = media_digest(str(tmp_path))
    assert before == media_digest([str(tmp_path / "f_9.png"), str(tmp_path / "f_10.png")])
    (tmp_path / "notes.txt").write_text("x")
    assert media_digest(str(tmp_path)) == before
    (tmp_path / "f_9.png").write_text("F_9.png")
    assert media_digest(str(tmp_path)) != before


def test_content_counts_whatever_its_name_and_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            (tmp_path / folder / f"{number}.png").write_bytes(b"frame %d" % number)
    (tmp_path / "a.mp4").write_bytes(b"x" * 300_000)
    (tmp_path / "copy.mp4").write_bytes(b"x" * 300_000)
    (tmp_path / "other.mp4").write_bytes(b"x" * 150_000 + b"y" + b"x" * 149_999)
    os.utime(tmp_path / "copy.mp4", (5, 5))
    (tmp_path / "b" / "2.png").rename(tmp_path / "b" / "009.png")

    def digest(*names: str) -> str | None:
        paths = [str(tmp_path / name) for name in names]
        return content_digest(paths if len(paths) > 1 else paths[0])

    assert digest("a.mp4") == digest("copy.mp4") == digest("a.mp4#t=0") != digest("other.mp4")
    assert digest("a.mp4#t=1,2") == digest("copy.mp4#t=1.0,2") != digest("a.mp4#t=1,3")
    assert digest("a") == digest("b") != digest("a/0.png", "a/1.png", "a/2.png") != digest("a/1.png", "a/0.png")
    (tmp_path / "b" / "1.png").write_bytes(b"frame 9")
    assert digest("a") != digest("b")
    assert digest("gone.mp4") is digest("a.mp4#t=2,1") is None
    assert len({digest("a"), digest("b"), digest("a.mp4"), digest("other.mp4"), digest("a.mp4#t=1,2")}) == 5
