"""Check that the media of a record exist, are readable, and have at least one frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from multiprocessing import get_context
from typing import Literal, TypeVar

from hound_plugin.child_processes import follow_parent
from hound_plugin.engines.work import LOCAL, Engine, Work
from hound_plugin.errors import EmptyMediaError, MediaError, MediaNotFoundError
from hound_plugin.records.bad_rows import MISSING
from hound_plugin.records.media_paths import find_media, refuse_part, split_part, why_absent
from hound_plugin.records.record import Problem

Depth = Literal["none", "exists", "open"]
Media = Sequence[str | list[str]]
Key = TypeVar("Key")
_Work = list[tuple[Media, bool]]
_BATCH = 64  # records per task of a process
_WINDOW = 50_000  # records that are with an engine at a time


def check_media(media: Media, is_video: bool, media_dir: str | None, depth: Depth) -> list[Problem]:
    """Check that media exist; with ``open`` also read the header of each file or first frame, and its stated sizes.

    Args:
        media: as in a record.
        is_video: folders count as clips; an image must be a file.
        media_dir: the folder that paths are relative to.
        depth: ``none`` checks nothing.
    """
    problems = []
    for item in media if depth != "none" else ():
        names = [item] if isinstance(item, str) else item
        paths = [find_media(name, media_dir) for name in names]
        if None in paths:
            absent = names[paths.index(None)]
            problems.append(Problem(MISSING, _field(is_video), why_absent(absent, media_dir) or absent))
            continue
        parts = [problem for path in paths if (problem := _part(path or "", is_video, item)) is not None]
        if parts:
            problems += parts[:1]
        elif depth == "open":
            problem = _open(tuple(path or "" for path in paths), is_video, isinstance(item, str))
            problems += [problem] if problem else []
    return problems


def _part(path: str, is_video: bool, item: str | list[str]) -> Problem | None:
    """What is wrong with the part in the path of a clip or image, if anything."""
    try:
        bare = split_part(path)[0]
        if bare != path and not (is_video and isinstance(item, str)):
            raise refuse_part(path, "an image" if isinstance(item, str) else "a list of frames")
        if bare != path and os.path.isdir(bare):
            raise refuse_part(path, "a folder of frames")
    except MediaError as error:
        return Problem("part of a clip", "start", str(error))
    return None


@lru_cache(maxsize=4096)  # questions about the same clip are usually adjacent
def _open(paths: tuple[str, ...], is_video: bool, is_single: bool) -> Problem | None:
    from hound_plugin.media.decode import probe
    from hound_plugin.media.frames import probe_frames

    try:
        _ = probe(paths[0]) if is_video and is_single else probe_frames(list(paths))
    except EmptyMediaError:
        return Problem("no frame", _field(is_video), paths[0])
    except MediaNotFoundError as error:
        return Problem(MISSING, _field(is_video), error.path or paths[0])
    except MediaError as error:
        return Problem("media damaged", _field(is_video), str(error))
    return None


def _field(is_video: bool) -> str:
    return "video" if is_video else "image"


def check_many(
    records: Iterable[tuple[Key, Media, bool]],
    media_dir: str | None,
    depth: Depth,
    processes: int,
    engine: Engine = LOCAL,
) -> Iterator[tuple[Key, list[Problem]]]:
    """:func:`check_media` for a stream of records, in order, in constant memory.

    Args:
        records: key, media and whether they are clips.
        media_dir: the folder that paths are relative to.
        depth: what is checked.
        processes: that open media, if the engine is this process.
        engine: where media are checked.
    """
    if engine is LOCAL and (processes <= 1 or depth != "open"):
        for key, media, is_video in records:
            yield key, check_media(media, is_video, media_dir, depth)
        return
    check = partial(_check_batch, media_dir=media_dir, depth=depth)
    if engine is not LOCAL:
        yield from _with_engine(records, check, engine)
        return
    stream = iter(records)
    waiting: list[tuple[list[Key], Future[list[list[Problem]]]]] = []
    with ProcessPoolExecutor(processes, get_context("spawn"), follow_parent) as pool:
        while True:
            while len(waiting) < 4 * processes and (batch := list(islice(stream, _BATCH))):
                future = pool.submit(check, [(media, is_video) for _, media, is_video in batch])
                waiting.append(([key for key, _, _ in batch], future))
            if not waiting:
                return
            keys, future = waiting.pop(0)
            yield from zip(keys, future.result(), strict=True)


def _with_engine(
    records: Iterable[tuple[Key, Media, bool]], check: Callable[[_Work], list[list[Problem]]], engine: Engine
) -> Iterator[tuple[Key, list[Problem]]]:
    """A window of records after the other, so that neither records nor results pile up."""
    stream = iter(records)
    while window := list(islice(stream, _WINDOW)):
        starts = range(0, len(window), _BATCH)
        tasks = [[(media, is_video) for _, media, is_video in window[start : start + _BATCH]] for start in starts]
        done = dict(engine.run(Work(check), tasks))
        problems = [found for number in range(len(tasks)) for found in done[number]]
        yield from zip((key for key, _, _ in window), problems, strict=True)


def _check_batch(work: _Work, media_dir: str | None, depth: Depth) -> list[list[Problem]]:
    return [check_media(media, is_video, media_dir, depth) for media, is_video in work]
