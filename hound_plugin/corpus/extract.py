"""``hound corpus extract``: archives to folders of frames, several at a time, over any number of interrupted runs.

An archive is unpacked into ``<target>/.hound/<archive>.partial``, which is renamed to ``.ready`` when every member has
passed; then its content is moved to ``<target>`` by renaming, and a marker is written last. A killed run therefore
leaves only complete files in the target; the next one discards ``.partial``, resumes moving ``.ready``, and skips
archives whose marker matches. A refused archive leaves nothing. The names of an archive's files are kept, so that those
which a newer archive of the same name no longer has are removed: they would pass for frames of its clips.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hound_plugin.child_processes import follow_parent
from hound_plugin.corpus.archive import STATE, Limits, unpack
from hound_plugin.corpus.files import readable_size
from hound_plugin.corpus.schema import Corpus
from hound_plugin.errors import ArchiveError
from hound_plugin.records.files import locked, rename, write_json, write_whole

DEFAULT_LIMITS = Limits()
_REPORT_EVERY = 4 << 20  # bytes between two reports of progress
_counter: Any = None  # shared number of bytes read, in the processes that unpack


@dataclass(frozen=True)
class Job:
    """One archive to unpack.

    Attributes:
        archive: the file.
        target: the folder that its content goes into.
        flatten: whether the archive's own folders are dropped.
        limits: see :class:`hound_plugin.corpus.archive.Limits`.
    """

    archive: Path
    target: Path
    flatten: bool = False
    limits: Limits = DEFAULT_LIMITS

    @property
    def state(self) -> Path:
        """The common prefix of the paths of marker, lock and unfinished content."""
        return self.target / STATE / _key(self.archive)


def _key(archive: Path) -> str:
    """Includes the folder: ``chunk_0.tar.gz`` of two folders must not share a marker."""
    return f"{archive.parent.name}-{archive.name}"


def jobs(folder: Path, corpora: Sequence[Corpus], limits: Limits = DEFAULT_LIMITS) -> list[Job]:
    """The archives of ``corpora`` that are in ``folder``."""
    return [
        Job(folder / path, folder / corpus.target, corpus.flatten, limits)
        for corpus in corpora
        if corpus.target
        for path in corpus.paths()
        if (folder / path).is_file()
    ]


def is_extracted(folder: Path, corpus: Corpus, archive: Path) -> bool:
    """Whether an archive was fully unpacked and is unchanged; it may have been removed since.

    Of what was unpacked, only two folders are looked for.
    """
    job = Job(archive, folder / (corpus.target or ""), corpus.flatten)
    names = sorted(_names(job, ".files"))
    return _is_marked(job) and all((job.target / name).parent.is_dir() for name in {*names[:1], *names[-1:]})


def extract(work: Sequence[Job], processes: int | None = None) -> int:
    """Unpack the archives that are not unpacked yet; refused archives do not stop the others.

    Args:
        work: see :func:`jobs`.
        processes: number of archives unpacked at a time; by default the number of cores, at most 8.

    Returns:
        The number of archives unpacked in this run.

    Raises:
        ArchiveError: archives were refused or damaged, or there is too little space; all are named.
    """
    todo = [job for job in work if not _is_done(job)]
    if not todo:
        return 0
    _check_space(todo)
    count = max(1, min(processes or min(os.cpu_count() or 1, 8), len(todo)))
    problems = _run(todo, count)
    if problems:
        raise ArchiveError(f"{len(problems)} of {len(todo)} archives were not extracted: {' | '.join(problems)}")
    return len(todo)


def _check_space(todo: Sequence[Job]) -> None:
    """Require at least the archives' sizes: frames are JPEG, which gzip hardly compresses."""
    for device in {os.stat(_created(job.target)).st_dev for job in todo}:
        group = [job for job in todo if os.stat(job.target).st_dev == device]
        needed = sum(job.archive.stat().st_size for job in group)
        free = shutil.disk_usage(group[0].target).free
        if needed > free:
            raise ArchiveError(
                f"Expected at least {readable_size(needed)} of free space under {group[0].target} for {len(group)} "
                f"archives; there is {readable_size(free)}. Free some, or extract fewer with --only."
            )


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- processes


def _run(todo: Sequence[Job], processes: int) -> list[str]:
    from tqdm import tqdm

    context = get_context("spawn")
    counter = context.Value("Q", 0)
    total = sum(job.archive.stat().st_size for job in todo)
    problems: list[str] = []
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="extract", disable=None) as bar,
        ProcessPoolExecutor(processes, context, _start_worker, (counter,)) as pool,
    ):
        running: dict[Future[None], Job] = {pool.submit(_extract_one, job): job for job in todo}
        try:
            while running:
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(min(counter.value, total) - bar.n)
                problems += filter(None, (_problem(future, running.pop(future)) for future in done))
        except BaseException:  # Ctrl-C: running workers end by the same signal
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return problems


def _problem(future: Future[None], job: Job) -> str | None:
    try:
        future.result()
    except ArchiveError as error:
        return str(error)
    except BrokenProcessPool:
        return f"The process that unpacked {job.archive} was killed (out of memory?); run the command again."
    except OSError as error:
        return f"Cannot unpack {job.archive}: {error}. Free space or correct the folder, and run the command again."
    return None


def _start_worker(counter: Any) -> None:
    """Let this process add to ``counter``."""
    global _counter
    follow_parent()
    _counter = counter


class _Progress:
    """Adds to the shared counter in large steps."""

    def __init__(self) -> None:
        self.pending = 0

    def __call__(self, size: int) -> None:
        self.pending += size
        if self.pending >= _REPORT_EVERY:
            self.flush()

    def flush(self) -> None:
        if _counter is not None:
            with _counter.get_lock():
                _counter.value += self.pending
        self.pending = 0


# --- one archive


def _extract_one(job: Job) -> None:
    with locked(_with_suffix(job, ".lock")):  # wait until no other process is working on this archive
        if _is_done(job):  # another run was faster
            return
        stamp = _stamp(job.archive)
        ready = _with_suffix(job, ".ready")
        if not _matches(_with_suffix(job, ".ready.json"), stamp):
            _discard(ready)
            _keep_names(job)
            _unpack(job, ready, stamp)
        with locked(job.target / STATE / "merge.lock"):  # two archives may have a file of one name
            own = _names(job, ".files")
            if own or not _with_suffix(job, ".json").exists():  # earlier versions of this package kept no names
                _check_others(ready, job.target, job.archive, own)
            _merge(ready, job.target)
            _remove_old(job, own)
        os.sync()  # content before marker: a power cut must not leave a marker without its content
        rename(_with_suffix(job, ".ready.json"), _with_suffix(job, ".json"))
        _discard(ready)


def _unpack(job: Job, ready: Path, stamp: dict[str, Any]) -> None:
    partial = _with_suffix(job, ".partial")
    _discard(partial)
    progress = _Progress()
    try:
        counts = unpack(job.archive, partial, job.limits, job.flatten, progress)
    except BaseException:
        _discard(partial)
        raise
    finally:
        progress.flush()
    if _stamp(job.archive) != stamp:
        _discard(partial)
        raise ArchiveError(
            f"{job.archive} changed while it was being unpacked; wait until it is complete and run the command again."
        )
    rename(partial, ready)
    names = [os.path.relpath(path, ready) for path in _files_below(ready)]
    write_whole(_with_suffix(job, ".ready.files"), json.dumps(names))
    write_json(_with_suffix(job, ".ready.json"), {**stamp, "files": counts.files, "bytes": counts.size})


def _files_below(folder: Path) -> Iterator[str]:
    for path, _, files in os.walk(folder):
        yield from (os.path.join(path, name) for name in files)


def _names(job: Job, suffix: str) -> set[str]:
    """Paths of an archive's files below its target; empty where no list was kept."""
    try:
        return set(json.loads(_with_suffix(job, suffix).read_text()))
    except (OSError, ValueError):
        return set()


def _keep_names(job: Job) -> None:
    """Before another version is unpacked: what the last one may have left in the target, even if it was killed."""
    names = _names(job, ".files") | _names(job, ".ready.files")
    if names:
        write_whole(_with_suffix(job, ".files"), json.dumps(sorted(names)))


def _remove_old(job: Job, old: set[str]) -> None:
    """Remove files of the version before that neither this one nor another archive has; then their empty folders."""
    new = _with_suffix(job, ".ready.files")
    gone = old - _names(job, ".ready.files") if new.exists() else set()
    others = [path for path in (job.target / STATE).glob("*.json") if path.name != job.state.name + ".json"]
    if gone and not all(path.with_suffix(".files").exists() for path in others):
        gone = set()  # of an earlier version of this package, which kept no names: they may be theirs
    if gone:
        for path in (job.target / STATE).glob("*.files"):
            if path.name != job.state.name + ".files":
                gone -= set(json.loads(path.read_text()))
    for name in gone:
        (job.target / name).unlink(missing_ok=True)
    for folder in sorted({Path(name).parent for name in gone}, reverse=True):
        while folder != Path() and (job.target / folder).is_dir() and not any(os.scandir(job.target / folder)):
            (job.target / folder).rmdir()
            folder = folder.parent
    if new.exists():
        rename(new, _with_suffix(job, ".files"))


def _merge(source: Path, target: Path) -> None:
    """Move everything in ``source`` to ``target`` by renaming; folders that both have are merged, files replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        path = target / entry.name
        if entry.is_dir(follow_symlinks=False) and os.path.lexists(path):
            if not path.is_dir():
                raise ArchiveError(f"Expected {path} to be a folder, as in the archive; it is a file. Remove it.")
            _merge(Path(entry.path), path)
            os.rmdir(entry.path)
        else:
            rename(entry.path, path)


def _check_others(source: Path, target: Path, archive: Path, own: set[str], below: str = "") -> None:
    """Refuse to replace a file of another archive by a different one: one of the two would be lost.

    ``own`` are files of an earlier version of this archive.
    """
    for entry in os.scandir(source):
        path = target / entry.name
        if not os.path.lexists(path):
            continue
        if entry.is_dir(follow_symlinks=False):
            if path.is_dir():
                _check_others(Path(entry.path), path, archive, own, os.path.join(below, entry.name))
        elif os.path.join(below, entry.name) in own:
            continue
        elif path.is_file() and not filecmp.cmp(entry.path, path, shallow=False):
            raise ArchiveError(
                f"{archive} has {path}, which is there already with other content: of another archive, or yours. "
                "Nothing of the archive was moved to its place. Remove the file if the archive's is the right one, "
                "and run the command again."
            )


def _is_done(job: Job) -> bool:
    """Whether an archive was fully unpacked, is unchanged, and none of its folders was removed or emptied since."""
    if not _is_marked(job):
        return False
    gone = _first_gone(job)
    if gone is not None:
        print(f"hound: {job.archive} was extracted, but {gone} is gone since; extracting it again", file=sys.stderr)
    return gone is None


def _is_marked(job: Job) -> bool:
    marker = _with_suffix(job, ".json")
    if not job.archive.exists():
        return marker.is_file()
    return _matches(marker, _stamp(job.archive))


def _first_gone(job: Job) -> Path | None:
    """The first folder of an archive (a clip) of which nothing is left.

    Single files may have been removed on purpose, in favour of those of another archive.
    """
    folders: dict[str, set[str]] = {}
    for name in _names(job, ".files"):
        parent, last = os.path.split(name)
        folders.setdefault(parent, set()).add(last)
    for parent, names in sorted(folders.items()):
        path = job.target / parent
        if not path.is_dir() or names.isdisjoint(os.listdir(path)):
            return path
    return None


def _matches(marker: Path, stamp: dict[str, Any]) -> bool:
    try:
        content = json.loads(marker.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(content.get(key) == value for key, value in stamp.items())


def _stamp(archive: Path) -> dict[str, Any]:
    """Name, size and time, by which a changed archive is recognised."""
    status = archive.stat()
    return {"archive": archive.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _with_suffix(job: Job, suffix: str) -> Path:
    return job.state.with_name(job.state.name + suffix)


def _discard(folder: Path) -> None:
    """Remove a folder, however deep: earlier versions unpacked what ``shutil.rmtree`` is too recursive for."""
    folders = [folder] if folder.is_dir() else []
    for path in folders:  # grows while subfolders are listed
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                folders.append(entry)
            else:
                entry.unlink()
    for path in reversed(folders):
        path.rmdir()
