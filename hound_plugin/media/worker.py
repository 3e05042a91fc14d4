"""Decoding in child processes that can be killed, for ``timeout`` and for clients that hang up.

Children are started when first needed and reused; as many run as clips are read at a time, up to
:data:`MOST_CHILDREN`. Requests and replies are length-prefixed pickles on a child's pipes (both ends are ours), the
frames follow as raw bytes. ``subprocess`` instead of ``multiprocessing``: loader
workers are daemons, which may not have ``multiprocessing`` children, and a spawned child would run the user's script
again. A decoder that crashes the child is reported like any other damaged file.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import util
from typing import Any

import numpy as np

from hound_plugin.errors import DecodeTimeoutError, EnvironmentMismatchError, HoundError, MediaDecodeError
from hound_plugin.media.backends import choose
from hound_plugin.media.cancellation import wait_while_connected
from hound_plugin.media.clip import Clip, Frames
from hound_plugin.media.in_process import describe_video, read_here

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from hound_plugin.media.worker import serve; serve()"
_START_LIMIT = 120.0  # seconds; the child's imports do not count against the caller's limit
_LENGTH = struct.Struct("<Q")
MOST_CHILDREN = 4
"""Children of one process, unless :func:`allow_children` says otherwise."""


class _Child:
    """One decoding process and its pipes."""

    def __init__(self) -> None:
        path = json.dumps([entry or os.getcwd() for entry in sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.owner = os.getpid()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._input, False)
        try:
            self.receive(time.monotonic() + _START_LIMIT)
        except BaseException as error:
            self.stop()
            if not isinstance(error, TimeoutError | EOFError):
                raise
            raise EnvironmentMismatchError(
                f"The decoding process of `decode_timeout` did not start ({error!r}); see its own message above. "
                "Unset `decode_timeout` to decode in the main process."
            ) from error

    def send(self, message: Any, deadline: float) -> None:
        data = memoryview(pickle.dumps(message, protocol=5))
        for part in (memoryview(_LENGTH.pack(len(data))), data):
            while part:
                _wait([], [self._input], deadline)
                try:
                    part = part[os.write(self._input, part[: 1 << 16]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError as error:
                    raise EOFError from error

    def receive(self, deadline: float) -> Any:
        return pickle.loads(self.receive_bytes(deadline))

    def receive_bytes(self, deadline: float) -> bytearray:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))
        return self._exactly(length, deadline)

    def _exactly(self, length: int, deadline: float) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            _wait([self._output], [], deadline)
            count = os.readv(self._output, [view])
            if not count:
                raise EOFError
            view = view[count:]
        return data

    def stop(self) -> int:
        """Kill the process and wait for it, so that no zombie is left; returns its exit status."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self.owner != os.getpid():  # inherited by fork: it belongs to the parent
            self.process.returncode = 0
            return 0
        self.process.kill()
        return self.process.wait()


def _wait(read: list[int], write: list[int], deadline: float) -> None:
    poll = select.poll()
    for descriptor in read:
        poll.register(descriptor, select.POLLIN)
    for descriptor in write:
        poll.register(descriptor, select.POLLOUT)
    wait_while_connected(lambda seconds: bool(poll.poll(seconds * 1000)), deadline)


class _Children:
    """The decoding processes of this process: those that wait for a clip, and those that read one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.idle: list[_Child] = []
        self.busy: set[_Child] = set()
        self._places = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._is_registered = False

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[_Child]:
        """A child for one clip. One that did not finish its clip is killed, and the next clip has another.

        Raises:
            ClientDisconnectedError: nobody waits for the clip any more.
        """
        places = self._places
        wait_while_connected(lambda seconds: places.acquire(timeout=seconds))
        try:
            child = self._idle_child() or self._started()
            finished = False
            try:
                yield child
                finished = True
            finally:
                with self._lock:
                    self.busy.discard(child)
                    if finished:
                        self.idle.append(child)
                if not finished:
                    child.stop()
        finally:
            places.release()

    def _idle_child(self) -> _Child | None:
        with self._lock:
            while self.idle:
                child = self.idle.pop()
                if child.process.poll() is None:
                    self.busy.add(child)
                    return child
                child.stop()
        return None

    def _started(self) -> _Child:
        child = _Child()
        with self._lock:
            self.busy.add(child)
            is_registered, self._is_registered = self._is_registered, True
        if not is_registered:
            util.Finalize(None, _stop, exitpriority=0)  # runs in the main process and in multiprocessing's own children
        return child

    def allow(self, most: int) -> None:
        """See :func:`allow_children`."""
        self.most, self._places = most, threading.Semaphore(most)

    def stop(self) -> None:
        """End them all."""
        for child in [*self.idle, *self.busy]:
            child.stop()
        self.idle.clear()
        self.busy.clear()


_children = _Children(MOST_CHILDREN)


def allow_children(most: int) -> None:
    """Set how many clips may be read at a time in child processes, from the next one on."""
    _children.allow(most)


def _stop() -> None:
    _children.stop()


def _after_fork() -> None:
    """In a forked process: leave the children to the parent."""
    global _children
    inherited, _children = _children, _Children(_children.most)
    inherited.stop()


os.register_at_fork(after_in_child=_after_fork)


def read_in_child(video: Any, num_frames: int, sampling: str, decoder: str, timeout: float, frames: Frames) -> Clip:
    """Read a clip in a child process. The wait for one that is free does not count.

    Args:
        video: path, bytes or list of frames.
        num_frames, sampling, decoder: as in :func:`hound_plugin.media.decode.read_clip`, checked.
        timeout: seconds for this clip.
        frames: receives the frames as they arrive.

    Raises:
        DecodeTimeoutError: reading took longer than the limit; the child was killed.
        ClientDisconnectedError: nobody waits for the clip any more
            (:data:`hound_plugin.media.cancellation.client_disconnected`); the child was killed.
        HoundError: the error that reading the clip raised.
    """
    status: int | None = None
    try:
        with _children.borrowed() as child:
            deadline = time.monotonic() + timeout
            try:
                child.send((video, num_frames, sampling, decoder), deadline)
                reply = _receive_clip(child, frames, deadline)
            except EOFError:
                status = child.process.wait(timeout=5)
                raise
    except TimeoutError:
        raise DecodeTimeoutError(
            f"Reading {describe_video(video)} took longer than decode_timeout ({timeout:g} s) and was stopped. The "
            "file is damaged or its disk hangs: copy it again, raise `decode_timeout`, or leave its record out.",
            video if isinstance(video, str) else None,
        ) from None
    except EOFError:
        raise MediaDecodeError(
            f"Cannot decode {describe_video(video)}: the decoder crashed on it (exit status {status}). The file is "
            "damaged; copy or encode it again, or leave its record out.",
            video if isinstance(video, str) else None,
        ) from None
    if isinstance(reply, Exception):
        raise reply
    return Clip(frames.finished(), **reply)


def _receive_clip(child: _Child, frames: Frames, deadline: float) -> dict[str, Any] | Exception:
    """Receive frames until the child reports the clip's properties, or what is wrong with it.

    Raises:
        MediaDecodeError: frames differ in size; the pipe is then read to its end.
    """
    problem: Exception | None = None
    while True:
        kind, *content = child.receive(deadline)
        if kind == "start":
            problem = None
            frames.start(*content)
        elif kind == "frame":
            index, shape, name = content
            frame = np.frombuffer(child.receive_bytes(deadline), dtype=np.uint8).reshape(shape)
            try:
                if problem is None:
                    frames.put(index, frame, name)
            except MediaDecodeError as error:
                problem = error
        else:
            (reply,) = content
            return problem or reply


def serve() -> None:
    """The child: answer requests from standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not get between the replies

    _reply(replies, pickle.dumps("ready"))
    while header := requests.read(_LENGTH.size):
        video, num_frames, sampling, decoder = pickle.loads(requests.read(_LENGTH.unpack(header)[0]))
        frames = _FrameSender(describe_video(video), replies)
        try:
            clip = read_here(video, num_frames, sampling, choose(decoder), frames, special_files=True)
        except HoundError as error:
            _reply(replies, pickle.dumps(("end", error)))
            continue
        except Exception as error:
            _reply(
                replies, pickle.dumps(("end", MediaDecodeError(f"Cannot decode {describe_video(video)}: {error!r}.")))
            )
            continue
        properties = {name: value for name, value in vars(clip).items() if name != "frames"}
        _reply(replies, pickle.dumps(("end", properties)))


class _FrameSender(Frames):
    """The child's side: every frame goes into the pipe at once."""

    def __init__(self, source: str, pipe: Any) -> None:
        super().__init__(source)
        self._pipe = pipe

    def start(self, indices: list[int]) -> None:
        _reply(self._pipe, pickle.dumps(("start", indices)))

    def put(self, index: int, frame: np.ndarray, name: str | None = None) -> None:
        frame = np.ascontiguousarray(frame)
        _reply(self._pipe, pickle.dumps(("frame", index, frame.shape, name)), frame.data.cast("B"))

    def finished(self) -> np.ndarray:
        return np.empty(0, np.uint8)


def _reply(pipe: Any, *parts: Any) -> None:
    for part in parts:
        pipe.write(_LENGTH.pack(len(part)))
        pipe.write(part)
    pipe.flush()


def _watch_parent(parent: int) -> None:
    """End with the parent even while a decoder hangs (its pipe may be held open by other forked processes)."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
