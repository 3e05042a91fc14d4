from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hound_plugin.errors import SettingsError
from hound_plugin.media.cache import FrameCache


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"12345")
    return path


def test_round_trip(cache: FrameCache, clip: Path) -> None:
    key = cache.key_for(clip, num_frames=8)
    assert cache.get(key) is None
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    cache.put(key, array.transpose(1, 0, 2, 3))
    kept = cache.get(key)
    assert kept.dtype == np.float32
    assert np.array_equal(kept, array.transpose(1, 0, 2, 3))
    kept[:] = 0  # a copy of its own: torch wants to write to it


def test_key_follows_the_media_and_every_parameter(cache: FrameCache, clip: Path, monkeypatch) -> None:
    keys = [cache.key_for(clip, num_frames=8, mean=[0.5]), cache.key_for(clip, num_frames=9, mean=[0.5])]
    keys.append(cache.key_for(clip, num_frames=8, mean=[0.25]))
    os.utime(clip, ns=(1, 1))
    keys.append(cache.key_for(clip, num_frames=8, mean=[0.5]))
    clip.write_bytes(b"123456")
    os.utime(clip, ns=(1, 1))
    keys.append(cache.key_for(clip, num_frames=8, mean=[0.5]))
    assert len(set(keys)) == len(keys)
    monkeypatch.chdir(clip.parent)
    assert cache.key_for("clip.mp4", mean=[0.5], num_frames=8) == keys[-1]


def test_key_of_a_folder_follows_its_listing(cache: FrameCache, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    keys = []
    for name in ("1.png", "2.png"):
        (folder / name).write_text("x")
        keys.append(cache.key_for(folder))
    os.utime(folder / "1.png", ns=(1, 1))
    keys.append(cache.key_for(folder))
    (folder / "2.png").rename(folder / "3.png")
    keys.append(cache.key_for(folder))
    assert len(set(keys)) == 4
    (folder / "notes.txt").write_text("x")
    assert cache.key_for(folder) == keys[-1]
    paths = [folder / "1.png", folder / "3.png"]
    assert cache.key_for(paths) not in {None, cache.key_for(paths[::-1])}


def test_media_in_memory_have_no_key(cache: FrameCache, clip: Path) -> None:
    for video in (b"12345", np.zeros((1, 2, 2, 3), np.uint8), [], [np.zeros((2, 2, 3))], clip.open("rb")):
        assert cache.key_for(video) is None
    assert cache.key_for(clip.parent / "missing.mp4") is None


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array at all", "half", "wrong type"])
def test_a_damaged_entry_is_removed_and_made_anew(cache: FrameCache, clip: Path, damage) -> None:
    key = cache.key_for(clip)
    array = np.ones((8, 3, 16, 16), np.float32)
    cache.put(key, array)
    (entry,) = cache.folder.rglob("*.npy")
    if damage == "half":
        entry.write_bytes(entry.read_bytes()[:5000])
    elif damage == "wrong type":
        np.save(entry, array.astype(np.float64))
    else:
        entry.write_bytes(damage)
    assert cache.get(key) is None
    assert not entry.exists()
    cache.put(key, array)
    assert np.array_equal(cache.get(key), array)


def test_a_writer_that_fails_leaves_nothing(cache: FrameCache, clip: Path, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.put(cache.key_for(clip), np.ones(3, np.float32))
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_a_writer_that_is_killed_leaves_no_entry(cache: FrameCache, clip: Path) -> None:
    code = (
        "import os, sys, numpy as np; from hound_plugin.media.cache import FrameCache; "
        "os.fsync = lambda _: os._exit(9); FrameCache(sys.argv[1]).put(sys.argv[2], np.ones(3, np.float32))"
    )
    key = cache.key_for(clip)
    assert subprocess.run([sys.executable, "-c", code, str(cache.folder), key]).returncode == 9
    assert cache.get(key) is None


def _write_and_read(folder: str, key: str, value: int, wrong: multiprocessing.Queue) -> None:
    cache = FrameCache(folder)
    for _ in range(60):
        cache.put(key, np.full((64, 64), value, np.float32))
        kept = cache.get(key)
        if kept is None or len(np.unique(kept)) != 1:
            wrong.put(json.dumps(None if kept is None else kept[0, 0].item()))


def test_many_writers_of_one_key(cache: FrameCache, clip: Path) -> None:
    context = multiprocessing.get_context("fork")
    wrong = context.Queue()
    key = cache.key_for(clip)
    writers = [context.Process(target=_write_and_read, args=(str(cache.folder), key, n, wrong)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert wrong.empty()
    assert len([path for path in cache.folder.rglob("*") if path.is_file()]) == 1


def test_a_folder_that_cannot_be_made(clip: Path) -> None:
    with pytest.raises(SettingsError, match="frame_cache"):
        FrameCache(clip / "below a file")
