from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hound_plugin.errors import SettingsError
from hound_plugin.media.array_folder import _seen
from hound_plugin.media.frame_cache import FrameCache
from hound_plugin.records import files


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
    for content in (b"123456", b"654321"):  # the second one of the same size and time
        clip.write_bytes(content)
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


def test_a_copied_folder_is_known(cache: FrameCache, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for number in range(3):
        (tmp_path / "here" / f"{number}.png").write_text(str(number))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert cache.key_for(tmp_path / "here") == cache.key_for(tmp_path / "there")
    assert cache.key_for(tmp_path / "here" / "1.png") == cache.key_for(tmp_path / "there" / "1.png")
    cache.put(cache.key_for(tmp_path / "here"), np.ones(3, np.float32))
    moved = FrameCache(shutil.copytree(cache.folder, tmp_path / "moved"))
    assert np.array_equal(moved.get(moved.key_for(tmp_path / "there")), [1, 1, 1])


DAMAGES = [
    b"",
    b"\x93NUMPY",
    b"no array at all",
    "half",
    "wrong type",
    "a bit",
    "a bit of the shape",
    "numpy's own",
    "renamed",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_removed_and_made_anew(cache: FrameCache, clip: Path, damage) -> None:
    key = cache.key_for(clip)
    array = np.ones((8, 3, 16, 16), np.float32)
    cache.put(key, array)
    (entry,) = cache.folder.rglob("*.npy")
    if damage == "half":
        entry.write_bytes(entry.read_bytes()[:5000])
    elif damage in ("wrong type", "numpy's own"):
        np.save(entry, array.astype(np.float64 if damage == "wrong type" else np.float32))
    elif damage in ("a bit", "a bit of the shape"):
        content = bytearray(entry.read_bytes())
        content[content.index(b"8, 3") if "shape" in damage else 5000] ^= 1
        entry.write_bytes(content)
    elif damage == "renamed":  # an entry of another clip, of the same shape
        cache.put("0" * 64, array * 2)
        (cache.folder / "00" / f"{'0' * 64}.npy").rename(entry)
    else:
        entry.write_bytes(damage)
    assert cache.get(key) is None
    assert not entry.exists()
    cache.put(key, array)
    assert np.array_equal(cache.get(key), array)


def test_an_entry_of_another_shape_is_not_returned(cache: FrameCache) -> None:
    cache.put("0" * 64, np.ones((4, 3, 8, 8)))
    assert cache.get("0" * 64, (4, 3, 8, 8)) is not None
    assert cache.get("0" * 64, (8, 3, 8, 8)) is None
    assert cache.get("0" * 64) is None, "it was removed"


def test_a_writer_that_fails_leaves_nothing(cache: FrameCache, clip: Path, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.put(cache.key_for(clip), np.ones(3, np.float32))
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_a_writer_that_is_killed_leaves_no_entry(cache: FrameCache, clip: Path) -> None:
    code = (
        "import os, sys, numpy as np; from hound_plugin.media.frame_cache import FrameCache; "
        "os.fsync = lambda _: os._exit(9); FrameCache(sys.argv[1]).put(sys.argv[2], np.ones(3, np.float32))"
    )
    key = cache.key_for(clip)
    assert subprocess.run([sys.executable, "-c", code, str(cache.folder), key]).returncode == 9
    assert cache.get(key) is None
    (left,) = [path for path in cache.folder.rglob("*") if path.is_file()]
    assert left.name.endswith(".part")
    _seen.clear()
    FrameCache(cache.folder)
    assert not left.exists(), "the next process clears it"


def test_what_others_are_writing_is_left_alone(cache: FrameCache) -> None:
    mine = cache.folder / "ab" / f".ab.npy.{files._HOST}-{os.getpid()}-00000000.part"
    theirs, abandoned = (mine.with_name(f".ab.npy.ffffff-{number}-00000000.part") for number in (1, 2))
    earlier = mine.with_name(f".ab.npy.{2**22 + 1}-00000000.part")  # above the largest number of a process
    mine.parent.mkdir()
    for path in (mine, theirs, abandoned, earlier):
        path.touch()
    os.utime(abandoned, (1, 1))
    assert files.clear_leftovers(cache.folder) == 2
    assert sorted(mine.parent.iterdir()) == sorted([mine, theirs])


def _compute_twice(cache: FrameCache, compute) -> None:
    for _ in range(2):
        found = cache.get_or_compute("0" * 64, (3,), compute, lambda: True)
        assert np.array_equal(found, [1, 1, 1])


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "EACCES"])
def test_a_folder_that_is_full_or_read_only_warns_once(tmp_path: Path, monkeypatch, caplog, code: str) -> None:
    def refuse(*_, **__):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    calls = []

    def compute() -> np.ndarray:
        calls.append(1)
        return np.ones(3, np.float32)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        for _ in range(2):
            _compute_twice(FrameCache(tmp_path / "none"), compute)
    assert len(calls) == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "frame_cache" in caplog.text
    assert os.strerror(getattr(errno, code)) in caplog.text
    _compute_twice(FrameCache(tmp_path / "none"), compute)
    assert len(calls) == 5, "there is place again"


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A real limit on the size of files stands for the disk; what was kept before is still read."""
    code = (
        "import logging, resource, sys, numpy as np; logging.basicConfig(level='WARNING')\n"
        "from hound_plugin.media.frame_cache import FrameCache\n"
        "cache = FrameCache(sys.argv[1]); small = np.ones(3, np.float32); large = np.ones(1 << 20, np.float32)\n"
        "cache.put('0' * 64, small); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "for key in 'ab':\n"
        "    assert (cache.get_or_compute(key * 64, large.shape, lambda: large, lambda: True) == 1).all()\n"
        "assert (cache.get('0' * 64) == 1).all()\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("WARNING") == 1
    assert "File too large" in result.stderr
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_media_that_change_while_they_are_read_are_not_kept(cache: FrameCache) -> None:
    cache.get_or_compute("0" * 64, (3,), lambda: np.ones(3, np.float32), lambda: False)
    assert cache.get("0" * 64) is None


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


ENTRY = np.ones((1 << 14) - 48, np.float32)  # with header and checksum not much above 64 KiB


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.npy"))


def test_the_least_recently_used_entries_are_evicted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = FrameCache(tmp_path, limit=10 << 16)
    keys = [f"{number:02x}" * 32 for number in range(30)]
    for number, key in enumerate(keys):
        cache.put(key, ENTRY)
        os.utime(cache._path(key), (number, number))
        assert cache.get(keys[0]) is not None, "it is in use"
        assert _size(tmp_path) <= cache.limit
    kept = [key for key in keys if cache.get(key) is not None]
    assert kept[0] == keys[0]
    assert kept[1:] == keys[-len(kept) + 1 :]
    assert len(kept) >= 8
    assert caplog.text.count("frame_cache_limit") == 1


def _fill(folder: str, first: int) -> None:
    cache = FrameCache(folder, limit=10 << 16)
    for number in range(first, first + 40):
        cache.put(f"{number:02x}" * 32, ENTRY)
        cache.get(f"{number:02x}" * 32)


def test_the_limit_holds_for_several_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_fill, args=(str(tmp_path), first)) for first in (0, 80, 160)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert 0 < _size(tmp_path) <= (10 << 16) + len(writers) * (1 << 16)
    cache = FrameCache(tmp_path)
    assert all(cache.get(path.stem) is not None for path in tmp_path.rglob("*.npy"))


def test_without_a_limit_everything_stays(cache: FrameCache) -> None:
    for number in range(30):
        cache.put(f"{number:02x}" * 32, ENTRY)
    assert len(list(cache.entries())) == 30
    assert cache.describe() == f"{cache.folder} has 30 entries, 0.00 GiB"
