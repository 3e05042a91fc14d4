"""Find clips and images by name under any layout, for records whose paths come from another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hound_plugin.corpus.archive import STATE
from hound_plugin.corpus.checking import media_of
from hound_plugin.records.fields import IMAGES, VIDEOS
from hound_plugin.records.media_paths import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    bare_name,
    cut_part,
    find_media,
    is_hidden,
    is_image_path,
)  # fmt: skip

_MEDIA = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


@dataclass
class PathIndex:
    """Paths of media by name.

    Attributes:
        root: the folder that was walked.
        paths: name -> paths relative to ``root``; a folder of frames or a file.
        claims: path relative to ``root`` -> the names under which records mean it, where one of them is not there.
    """

    root: Path
    paths: dict[str, list[str]] = field(default_factory=dict)
    claims: dict[str, set[str]] = field(default_factory=dict)

    def other_claim(self, path: str, name: str) -> str:
        """Another clip's name that would be this path as well, in a folder of another name; empty if there is none."""
        folder = PurePosixPath(name).parent.name
        others = (other for other in self.claims.get(path, ()) if PurePosixPath(other).parent.name not in ("", folder))
        return min(others, default="") if folder else ""

    def locate(self, name: str, is_picture: bool = False) -> list[str]:
        """The best matches of a record's path, relative to ``root``: one, none, or several equally good ones.

        The last part of the path must be the same, preferably with its suffix; of several matches, the one that shares
        the most trailing folders with the record's path wins.

        Args:
            name: the record's path.
            is_picture: it is an image or a frame, and no picture stands for a clip.
        """
        return _closest(self._matches(name, is_picture), name)

    def locate_frames(self, names: Sequence[str]) -> list[list[str]]:
        """The best folders for frames of one folder: all paths of the frames in each; none has less than all."""
        matches = [self._matches(name, True) for name in names]
        common = set.intersection(*({str(PurePosixPath(path).parent) for path in paths} for paths in matches))
        found = []
        for folder in sorted(common):
            inside = [[path for path in paths if str(PurePosixPath(path).parent) == folder] for paths in matches]
            if all(len(paths) == 1 for paths in inside):
                found.append([paths[0] for paths in inside])
        best = _closest([paths[0] for paths in found], names[0])
        return [paths for paths in found if paths[0] in best]

    def _matches(self, name: str, is_picture: bool) -> list[str]:
        last = PurePosixPath(name).name
        candidates = self.paths.get(last) or [
            path
            for stem in _stems(last)
            for path in self.paths.get(stem, ())
            if bare_name(path) == bare_name(last) and is_image_path(path) == is_picture
        ]
        return [path for path in candidates if PurePosixPath(path).name == last] or candidates


def missing_names(records: Iterable[dict[str, Any]], media_dir: str) -> set[str]:
    """Names of media that are not where the records say, without the parts of clips; all frames if one is missing."""
    names: set[str] = set()
    for record in records:
        for item in media_of(record)[0]:
            paths = [item] if isinstance(item, str) else item
            if any(find_media(path, media_dir) is None for path in paths):
                names.update(cut_part(path)[0] for path in paths)
    return names


def index_paths(root: Path, names: Iterable[str]) -> PathIndex:
    """Walk ``root`` once and collect the paths of the wanted names; memory grows with ``names``, not with the tree.

    Links to folders are not followed; hidden folders and those of file servers and systems are skipped.
    """
    wanted = {PurePosixPath(name).name for name in names}
    stems = {stem for name in wanted for stem in _stems(name)}
    index = PathIndex(root)
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != STATE and not is_hidden(name))
        media = (name for name in files if os.path.splitext(name)[1].lower() in _MEDIA)
        for name in (*folders, *media):
            for key in ({name} & wanted) | ({bare_name(name)} & stems):
                relative = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
                index.paths.setdefault(key, []).append(relative)
    return index


def note_claims(index: PathIndex, records: Callable[[], Iterable[dict[str, Any]]], media_dir: str) -> None:
    """Note what records mean by each path that a missing name would become, so that no two clips become one.

    Args:
        index: takes the notes.
        records: yields all records from the start, each time it is called.
        media_dir: folder that their paths are relative to.
    """
    claims: dict[str, set[str]] = {}
    for record in records():
        for name, target in zip(_names(record), _names(corrected(record, index, media_dir)[0]), strict=False):
            if name != target:
                claims.setdefault(target, set()).add(name)
    for record in records() if claims else ():
        for name in _names(record):
            found = find_media(name, media_dir)
            path = os.path.relpath(found, index.root).replace(os.sep, "/") if found else ""
            if path in claims:
                claims[path].add(name)
    index.claims = claims


def _names(record: dict[str, Any]) -> list[str]:
    paths = [path for item in media_of(record)[0] for path in ([item] if isinstance(item, str) else item)]
    return [cut_part(path)[0] for path in paths]


def corrected(record: dict[str, Any], index: PathIndex, media_dir: str) -> tuple[dict[str, Any], list[str]]:
    """A copy of the record with missing paths replaced by existing ones, and ambiguous names with their matches.

    Frames of one clip that were in one folder are in one folder again, all of them.
    """
    ambiguous: list[str] = []

    def relocated(path: Any, is_picture: bool) -> Any:
        if isinstance(path, list):
            frames = [_path_of(item) for item in path]
            if path and not is_picture and all(is_image_path(frame) for frame in frames):
                moved = _relocated_frames([str(frame) for frame in frames], index, media_dir, ambiguous)
                return [_with_path(item, moved[str(frame)]) for item, frame in zip(path, frames, strict=True)]
            return [relocated(item, is_picture) for item in path]
        given = _path_of(path)
        if given is None or find_media(given, media_dir) is not None:
            return path
        name, part = cut_part(given)
        matches = index.locate(name, is_picture or is_image_path(name))
        if len(matches) > 1:
            ambiguous.append(f"{given}: {_some(matches)}")
        if len(matches) == 1 and (other := index.other_claim(matches[0], name)):
            ambiguous.append(f"{given}: {matches[0]}, which would be {other} too")
            return path
        return _with_path(path, matches[0] + part) if len(matches) == 1 else path

    changes = {name: relocated(record[name], name in IMAGES) for name in (*VIDEOS, *IMAGES) if record.get(name)}
    return {**record, **changes}, ambiguous


def _relocated_frames(frames: Sequence[str], index: PathIndex, media_dir: str, ambiguous: list[str]) -> dict[str, str]:
    """Where the frames of a clip are, by their paths; unchanged where that is unknown."""
    moved: dict[str, str] = {}
    for folder in dict.fromkeys(PurePosixPath(frame).parent for frame in frames):
        group = [frame for frame in dict.fromkeys(frames) if PurePosixPath(frame).parent == folder]
        moved |= {frame: frame for frame in group}
        if all(find_media(frame, media_dir) is not None for frame in group):
            continue
        folders = index.locate_frames(group)
        others = [index.other_claim(path, frame) for paths in folders for frame, path in zip(group, paths, strict=True)]
        if len(folders) == 1 and any(others):
            ambiguous.append(f"{group[0]} and others: {folders[0][0]}, which would be {max(others)} too")
        elif len(folders) == 1:
            moved |= dict(zip(group, folders[0], strict=True))
        elif folders or any(index.locate(frame, True) for frame in group):
            there = _some([str(PurePosixPath(paths[0]).parent) for paths in folders]) or "no folder"
            ambiguous.append(f"expected the {len(group)} frames of {folder} in one folder, found all in {there}")
    if len(set(moved.values())) < len(moved):
        ambiguous.append(f"{frames[0]} and others: frames of several folders would become the same ones")
        return {frame: frame for frame in frames}
    return moved


def _path_of(item: Any) -> str | None:
    path = item.get("path") if isinstance(item, dict) else item
    return path if isinstance(path, str) else None


def _with_path(item: Any, path: str) -> Any:
    return {**item, "path": path} if isinstance(item, dict) else path


def _some(paths: Sequence[str]) -> str:
    return f"{', '.join(paths[:3])}{' and others' if paths[3:] else ''}"


def _closest(paths: Iterable[str], name: str) -> list[str]:
    """Those that share the most trailing folders with a record's path."""
    shared = {path: _shared(path, name) for path in paths}
    best = max(shared.values(), default=0)
    return sorted(path for path, count in shared.items() if count == best)


def _stems(name: str) -> tuple[str, ...]:
    """Names to look up: a clip may be a folder ``x`` where the record says ``x.mp4``, or vice versa."""
    return (name, bare_name(name)) if bare_name(name) != name else (name,)


def _shared(first: str, second: str) -> int:
    pairs = zip(reversed(PurePosixPath(first).parts[:-1]), reversed(PurePosixPath(second).parts[:-1]), strict=False)
    count = 0
    for left, right in pairs:
        if left != right:
            break
        count += 1
    return count
