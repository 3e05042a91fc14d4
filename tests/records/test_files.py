"""Files are whole or not there, appended rows stay, and locks end with their process; kills come at known places."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from safetensors.torch import save_file

from hound_plugin.errors import DataError, DiskFullError, HoundError, InUseError, SettingsError
from hound_plugin.records import files
from hound_plugin.records.files import (
    append_rows,
    hold,
    locked,
    publish,
    whole_file,
    whole_path,
    write_json,
    write_rows,
    write_whole,
)
from hound_plugin.records.jsonl import read_objects
from tests.full_disk import longest_file

REPO = Path(__file__).resolve().parents[2]


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has run ``script`` up to its first ``tell``; it is killed with -9 at the end of the block."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom hound_plugin.records import files\n"
        "def tell(text): print(text, flush=True)\npath = Path(sys.argv[1])\n" + script
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPO))))
    environment = {**os.environ, "PYTHONPATH": paths, "HOUND_PLUGIN_DISABLE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=REPO, env=environment, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)


# --- whole files


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.txt"
    with whole_file(path) as file:
        file.write("Übung\n")
        assert not path.exists()
    assert path.read_bytes() == "Übung\n".encode()
    with pytest.raises(TypeError), whole_file(path, "wb") as binary:
        binary.writelines([b"half", "a text"])
    assert os.listdir(path.parent) == ["rows.txt"]
    assert path.read_bytes() == "Übung\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Übung", "n": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Übung", "n": [1, 2]}
    write_whole(tmp_path / "a.txt", "half \ud83d")
    assert (tmp_path / "a.txt").read_text() == "half ?"
    rows = [{"id": 1, "text": "two\nlines\u2028and\x85more"}, {"id": 2}]
    write_rows(tmp_path / "a.jsonl", iter(rows))
    assert list(read_objects(tmp_path / "a.jsonl", complete=True)) == rows
    with pytest.raises(DataError, match="finite numbers in a row to write"):
        write_rows(tmp_path / "a.jsonl", [{"id": 3, "score": float("nan")}])
    assert list(read_objects(tmp_path / "a.jsonl")) == rows


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    with whole_path(target) as part:
        (part / "deep").mkdir(parents=True)
        (part / "deep" / "weights").write_bytes(b"1")
        assert not any(target.iterdir())
    assert (target / "deep" / "weights").read_bytes() == b"1"
    with pytest.raises(OSError, match="not empty"), whole_path(target) as part:
        part.mkdir()
    with pytest.raises(ZeroDivisionError), whole_path(tmp_path / "other") as part:
        _half_a_folder(part)
    assert os.listdir(tmp_path) == ["model"]


def _half_a_folder(part: Path) -> None:
    part.mkdir()
    (part / "file").write_text("half")
    raise ZeroDivisionError


def test_what_cannot_be_replaced_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "a device or a pipe"), (tmp_path, "is a folder")):
        with pytest.raises(SettingsError, match=words), whole_file(path):
            raise AssertionError("not reached")
    assert os.listdir(tmp_path) == ["pipe"]


WRITERS = {
    "text": "with files.whole_file(path) as file: file.write('new ' * 9); file.flush(); {stop}; file.write('new')",
    "path": "with files.whole_path(path) as part: part.write_text('new ' * 9); {stop}",
    "rows": "files.os.replace = lambda *_: ({stop}); files.write_rows(path, [dict(id=1)])",
    "disk": "files.os.fsync = lambda *_: ({stop}); files.write_whole(path, 'new')",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with child(WRITERS[writer].format(stop="tell('ready'), sys.stdin.read()"), path) as process:
        kill(process)
    assert path.read_text() == "old"
    assert all(name.endswith(".part") for name in os.listdir(tmp_path) if name != "file")
    write_whole(path, "next")
    assert path.read_text() == "next"


def test_kills_at_any_moment_leave_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = {str(number) * 200_000 for number in range(10)}
    write_whole(path, "0" * 200_000)
    script = "tell('ready')\nfor number in range(10**9): files.write_whole(path, str(number % 10) * 200_000); tell('x')"
    for writes in range(1, 8):
        with child(script, path) as process:
            assert process.stdout is not None
            for _ in range(writes):
                process.stdout.readline()
            kill(process)
        assert path.read_text() in texts


def test_a_finished_file_is_published(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    (tmp_path / "file").write_text("old")
    publish(tmp_path / "part", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


# --- appending


@pytest.mark.parametrize("tail", [b'{"id": 3, "text": "cut of', '{"id": 3, "text": "Ü'.encode()[:-1], b"{", b"\0\0"])
def test_an_append_after_a_torn_line_cuts_it_off(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append_rows(path, [{"id": 1}, {"id": 2}])
    path.write_bytes(path.read_bytes() + tail)
    assert list(read_objects(path)) == [{"id": 1}, {"id": 2}]
    append_rows(path, [{"id": 4}])
    assert path.read_bytes() == b'{"id": 1}\n{"id": 2}\n{"id": 4}\n'


def test_a_torn_line_may_be_long_or_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for before in (b"", b'{"id": 1}\n', b'{"id": 1}\n' * 9_000):
        for length in (3, 200_000):
            path.write_bytes(before + b'{"text": "' + b"x" * length)
            append_rows(path, [{"id": 2}])
            assert path.read_bytes() == before + b'{"id": 2}\n'


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    """As an editor leaves it: the reader takes that row, so the next append must not lose it."""
    path = tmp_path / "excluded.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b"}')
    append_rows(path, [{"id": "c"}])
    assert [row["id"] for row in read_objects(path, complete=True)] == ["a", "b", "c"]


def test_an_append_that_fails_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    append_rows(path, [{"id": 1}])
    append_rows(path, [])
    with pytest.raises(DataError, match="finite numbers"):
        append_rows(path, [{"id": 2}, {"score": float("inf")}])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        append_rows(path, [{"id": 2}])
    assert path.read_bytes() == b'{"id": 1}\n'


LARGE_WRITES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_whole(path, "new " * 5_000),
    "json": lambda path: write_json(path, list(range(5_000))),
    "rows": lambda path: write_rows(path, ({"id": number} for number in range(5_000))),
    "appended": lambda path: append_rows(path, [{"id": number} for number in range(5_000)]),
    "a library's": lambda path: write_by_path(path),
}


def write_by_path(path: Path) -> None:
    with files.whole_path(path) as part:
        part.write_bytes(bytes(20_000))


@pytest.mark.parametrize("writer", LARGE_WRITES)
def test_a_full_disk_keeps_what_was_there_and_says_so(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    append_rows(path, [{"id": "old"}])
    before = path.read_bytes()
    with longest_file(8_000), pytest.raises(DiskFullError) as caught:
        LARGE_WRITES[writer](path)
    assert str(caught.value).startswith(f"Cannot write {path}: [Errno 27] File too large")
    assert "What was there before is unchanged. Free some space" in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    LARGE_WRITES[writer](path)
    assert path.stat().st_size > 8_000


def test_what_libraries_in_rust_say_of_a_full_disk(tmp_path: Path) -> None:
    """Their errors are not OSErrors; any other error of theirs stays as it is."""
    tensors = {"a": torch.ones(5_000)}
    with longest_file(8_000), pytest.raises(DiskFullError, match=r"Cannot write .*os error 27"):
        save_whole(tensors, tmp_path / "a.safetensors")
    with pytest.raises(Exception, match=r"(?i)sparse"):
        save_whole({"a": torch.ones(3).to_sparse()}, tmp_path / "b.safetensors")
    assert list(tmp_path.iterdir()) == []


def save_whole(tensors: dict[str, torch.Tensor], path: Path) -> None:
    with files.whole_path(path) as part:
        save_file(tensors, part)


def test_rows_that_were_added_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    script = (
        "tell('ready')\n"
        "for number in range(int(sys.argv[2]), 10**9):\n    files.append_rows(path, [dict(id=number)]); tell(number)"
    )
    first = 0
    for writes in (1, 5, 3):
        with child(script, path, first) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(writes)]
            kill(process)
        numbers = [row["id"] for row in read_objects(path)]
        assert numbers == list(range(len(numbers)))
        assert numbers[-1] >= told[-1]
        first = len(numbers)


# --- locks


def test_a_lock_is_refused_until_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / ".run.lock"
    with child("lock = files.hold(path); tell('ready'); sys.stdin.read()", path) as process:
        for _ in range(2):
            with pytest.raises(InUseError, match=r"\.run\.lock is locked by another process\. Wait for it"):
                hold(path)
        with pytest.raises(BlockingIOError, match="in use: a"):
            hold(path, busy="in use: a")
        kill(process)
        with hold(path):
            pass
    assert issubclass(InUseError, HoundError)


def test_waiting_ends_when_the_holder_ends(tmp_path: Path) -> None:
    path, said = tmp_path / "new" / "a.lock", []
    with child("with files.locked(path): tell('ready'); sys.stdin.read()", path) as process:

        def waiting() -> None:
            said.append("waiting")
            assert process.stdin is not None
            process.stdin.close()

        with locked(path, waiting):
            assert said == ["waiting"]
            assert process.wait(timeout=60) == 0
    with locked(path, waiting):
        pass
    assert said == ["waiting"]


def test_two_processes_never_hold_a_lock_at_once(tmp_path: Path) -> None:
    """Even where each removes the file of the lock when it is done."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    script = """
tell('ready')
sys.stdin.readline()
for _ in range(40):
    while True:
        try:
            lock = files.hold(path)
            break
        except files.InUseError:
            pass
    number = int(Path(sys.argv[2]).read_text())
    Path(sys.argv[2]).write_text(str(number + 1))
    lock.release(remove=True)
tell('done')
"""
    path = tmp_path / "a.lock"
    with child(script, path, counter) as one, child(script, path, counter) as two:
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, two):
            assert process.communicate(timeout=120)[0] == "done\n"
    assert counter.read_text() == "80"
    assert os.listdir(tmp_path) == ["counter"]


def test_a_lock_counts_within_a_process_too(tmp_path: Path) -> None:
    path, order = tmp_path / "a.lock", []
    lock = hold(path)
    with pytest.raises(InUseError):
        hold(path)
    waits = threading.Event()

    def other() -> None:
        with locked(path, waits.set):
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    assert waits.wait(60)
    order.append("first")
    lock.release()
    lock.release()
    thread.join(60)
    assert order == ["first", "other"]
    assert not hold(path).release()
    hold(path)  # nothing refers to it: freed again
    hold(path).release()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lock_file_that_is_removed_while_it_is_opened_is_opened_again(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tries = tmp_path / "a.lock", []

    class Raced(filelock.FileLock):  # type: ignore[misc, valid-type]
        def acquire(self, *arguments: Any, **options: Any) -> Any:
            tries.append(self)
            if len(tries) == 1 and when == "before":
                raise FileNotFoundError(2, "No such file or directory", str(path))
            taken = super().acquire(*arguments, **options)
            if len(tries) == 1:
                path.unlink()
                path.touch()
            return taken

    monkeypatch.setattr(files.filelock, "FileLock", Raced)
    with hold(path), pytest.raises(InUseError):
        hold(path)
    assert len(tries) == 3


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (NotImplementedError("use SoftFileLock"), OSError(38, "Function not implemented")):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(files.filelock.FileLock, "acquire", refuse)
        with pytest.raises(SettingsError, match=r"file system that supports locks at .* Choose a local disk"):
            hold(tmp_path / "a.lock")


FORKED = """
lock = files.hold(path)
if os.fork() == 0:
    {inside}
    tell('ready')
    sys.stdin.read()
    os._exit(0)
sys.stdin.read() if {stays} else os.kill(os.getpid(), 9)
"""


def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with child(FORKED.format(inside="pass", stays=False), path) as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
        with hold(path):  # the child still waits for its standard input
            pass


@pytest.mark.parametrize("inside", ["lock.release()", "lock.__exit__(None, None, None)", "del lock; os.sync()"])
def test_a_forked_child_does_not_free_the_lock_of_its_parent(inside: str, tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    script = FORKED.format(inside=inside + "\n    import gc; gc.collect()", stays=True)
    with child(script, path), pytest.raises(InUseError):
        hold(path)


def test_a_forked_child_can_lock_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    inside = f"mine = files.hold({str(tmp_path / 'b.lock')!r})"
    with child(FORKED.format(inside=inside, stays=True), path):
        for name in ("a.lock", "b.lock"):
            with pytest.raises(InUseError):
                hold(tmp_path / name)
