from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hound_plugin.errors import (
    ClientDisconnectedError,
    DecodeTimeoutError,
    EmptyMediaError,
    MediaDecodeError,
    MediaNotFoundError,
)
from hound_plugin.media import worker
from hound_plugin.media.cancellation import client_disconnected
from hound_plugin.media.decode import read_clip


@pytest.fixture(autouse=True)
def _stopped():
    yield
    worker._stop()
    worker.allow_children(worker.MOST_CHILDREN)


def alive(pid: int) -> bool:
    """Running, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_child_reads_the_same_and_is_kept(clips) -> None:
    for video in (clips["plain"], clips["plain"].read_bytes()):
        here, there = read_clip(video), read_clip(video, timeout=60)
        assert np.array_equal(here.frames, there.frames)
        assert (here.indices, here.fps, here.source) == (there.indices, there.fps, there.source)
        there.frames[0] = 0  # it can be written to, like any other
    (first,) = worker._children.idle
    read_clip(clips["short"], timeout=60)
    assert worker._children.idle == [first]


def test_large_bytes_pass_the_pipe(clips) -> None:
    padded = clips["plain"].read_bytes() + b"\0" * (3 << 20)  # more than a pipe holds
    assert np.array_equal(read_clip(padded, timeout=60).frames, read_clip(clips["plain"]).frames)


def test_a_hang_is_ended_and_the_next_clip_is_read(clips, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs.mp4")  # opening it blocks until somebody writes
    read_clip(clips["short"], timeout=60)
    hung = worker._children.idle[0].process.pid
    started = time.monotonic()
    with pytest.raises(DecodeTimeoutError, match=r"hangs\.mp4 took longer than decode_timeout \(0\.5 s\)") as caught:
        read_clip(tmp_path / "hangs.mp4", timeout=0.5)
    assert 0.4 < time.monotonic() - started < 10
    assert caught.value.path == str(tmp_path / "hangs.mp4")
    assert not Path(f"/proc/{hung}").exists(), "the child still runs, or is a zombie"
    assert read_clip(clips["short"], timeout=60).total_frames == 3


def test_errors_come_back_as_they_are(broken, tmp_path: Path) -> None:
    with pytest.raises(MediaDecodeError, match="no video stream") as caught:
        read_clip(broken["sound"], timeout=60)
    assert caught.value.path == str(broken["sound"])
    with pytest.raises(MediaNotFoundError):
        read_clip(tmp_path / "missing.mp4", timeout=60)
    with pytest.raises(EmptyMediaError):
        read_clip(tmp_path, timeout=60)
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    assert read_clip(tmp_path, timeout=60).frames.shape == (8, 8, 8, 3)


def test_a_crash_of_the_decoder_is_an_error_of_the_file(clips, tmp_path: Path) -> None:
    read_clip(clips["short"], timeout=60)
    os.mkfifo(tmp_path / "crashes.mp4")
    threading.Timer(0.5, os.kill, (worker._children.idle[0].process.pid, signal.SIGSEGV)).start()
    with pytest.raises(MediaDecodeError, match=r"crashes\.mp4: the decoder crashed.*exit status -11"):
        read_clip(tmp_path / "crashes.mp4", timeout=60)
    assert read_clip(clips["short"], timeout=60).total_frames == 3


def test_threads_share_the_children(clips) -> None:
    results: list[bool] = []
    expected = {name: read_clip(clips[name]).frames for name in ("plain", "tall", "vfr")}
    worker.allow_children(2)

    def work(name: str) -> None:
        results.extend(np.array_equal(read_clip(clips[name], timeout=60).frames, expected[name]) for _ in range(5))

    threads = [threading.Thread(target=work, args=(name,)) for name in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 15
    assert 1 <= len(worker._children.idle) <= 2
    assert not worker._children.busy


def test_a_clip_that_hangs_does_not_hold_up_others(clips, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs.mp4")
    caught: list[type[Exception]] = []

    def hang() -> None:
        try:
            read_clip(tmp_path / "hangs.mp4", timeout=4)
        except Exception as error:
            caught.append(type(error))

    hanging = threading.Thread(target=hang)
    hanging.start()
    for _ in range(2):
        assert read_clip(clips["short"], timeout=60).total_frames == 3
    assert hanging.is_alive(), "the clip waited for the one that hangs"
    hanging.join()
    assert caught == [DecodeTimeoutError]


@pytest.mark.parametrize("at", ["reading", "waiting"])
def test_nothing_is_read_for_who_hung_up(clips, tmp_path: Path, at: str) -> None:
    """Neither does the child read on, nor does a clip that waits for a child take one."""
    os.mkfifo(tmp_path / "hangs.mp4")
    worker.allow_children(1)
    gone = threading.Event()
    caught: list[type[Exception]] = []
    stays = threading.Event()

    def ask(event: threading.Event) -> None:
        client_disconnected.set(event)
        try:
            read_clip(tmp_path / "hangs.mp4", timeout=60)
        except Exception as error:
            caught.append(type(error))

    threads = [threading.Thread(target=ask, args=(event,)) for event in ([gone] if at == "reading" else [stays, gone])]
    for thread in threads:
        thread.start()
        while not worker._children.busy:
            time.sleep(0.02)
    (child,) = worker._children.busy
    gone.set()
    threads[-1].join(10)
    assert caught == [ClientDisconnectedError]
    assert alive(child.process.pid) == (at == "waiting")
    stays.set()
    for thread in threads:
        thread.join(10)
    assert not worker._children.busy
    assert read_clip(clips["short"], timeout=60).total_frames == 3


def test_media_in_memory_need_no_child() -> None:
    worker._stop()
    read_clip(np.zeros((3, 4, 4, 3), np.uint8), timeout=1e-6)
    assert not worker._children.idle


_FORKED = """
import os, sys
from hound_plugin.media import decode, worker
with worker._children._lock:  # as another thread that reads a clip would hold it
    child = os.fork()
    if child == 0:
        decode.read_clip(sys.argv[1], timeout=60)
        worker._stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_fork_while_another_thread_reads(clips) -> None:
    subprocess.run([sys.executable, "-c", _FORKED, str(clips["short"])], timeout=60, check=True)


_PARENT = """
import os, sys
from hound_plugin.media import decode, worker
decode.read_clip(sys.argv[1], timeout=60)
first = worker._children.idle[0]
print(first.process.pid, flush=True)
if sys.argv[2] == "fork" and os.fork() == 0:
    decode.read_clip(sys.argv[1], timeout=60)
    assert [child.owner for child in worker._children.idle] == [os.getpid()]
    worker._stop()
    os._exit(0)
if sys.argv[2] == "fork":
    assert os.wait()[1] == 0
    decode.read_clip(sys.argv[1], timeout=60)
    assert worker._children.idle == [first], "the fork ended its parent's child"
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("ending", ["exit", "fork", "killed"])
def test_no_child_outlives_its_parent(clips, ending: str) -> None:
    command = [sys.executable, "-W", "error", "-c", _PARENT, str(clips["short"]), ending]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == (-9 if ending == "killed" else 0), result.stderr
    assert result.stderr == ""
    deadline = time.monotonic() + 10
    while alive(int(result.stdout)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(int(result.stdout))
