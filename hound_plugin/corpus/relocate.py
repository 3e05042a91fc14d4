"""Find clips and images by name under any layout, for records whose paths come from another machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hound_plugin.corpus.archive import STATE
from hound_plugin.corpus.checking import media_of
from hound_plugin.records.fields import IMAGES, VIDEOS
from hound_plugin.records.media_paths import IMAGE_SUFFIXES, VIDEO_SUFFIXES, bare_name, cut_part, find_media

_MEDIA = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


@dataclass
class PathIndex:
    """Paths of media by name.

    Attributes:
        root: the folder that was walked.
        paths: name -> paths relative to ``root``; a folder of frames or a file.
    """

    root: Path
    paths: dict[str, list[str]] = field(default_factory=dict)

    def locate(self, name: str) -> list[str]:
        """The best matches of a record's path, relative to ``root``: one, none, or several equally good ones.

        The last part of the path must be the same, preferably with its suffix; of several matches, the one that shares
        the most trailing folders with the record's path wins.
        """
        last = PurePosixPath(name).name
        candidates = self.paths.get(last) or [
            path for stem in _stems(last) for path in self.paths.get(stem, ()) if bare_name(path) == bare_name(last)
        ]
        exact = [path for path in candidates if PurePosixPath(path).name == last]
        shared = {path: _shared(path, name) for path in exact or candidates}
        best = max(shared.values(), default=0)
        return sorted(path for path, count in shared.items() if count == best)


def missing_names(records: Iterable[dict[str, Any]], media_dir: str) -> set[str]:
    """Names of media that are not where the records say, without the parts of clips."""
    names = set()
    for record in records:
        for item in media_of(record)[0]:
            for path in [item] if isinstance(item, str) else item:
                if find_media(path, media_dir) is None:
                    names.add(cut_part(path)[0])
    return names


def index_paths(root: Path, names: Iterable[str]) -> PathIndex:
    """Walk ``root`` once and collect the paths of the wanted names; memory grows with ``names``, not with the tree.

    Links to folders are not followed; hidden folders are skipped.
    """
    wanted = {PurePosixPath(name).name for name in names}
    stems = {stem for name in wanted for stem in _stems(name)}
    index = PathIndex(root)
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != STATE and not name.startswith("."))
        media = (name for name in files if os.path.splitext(name)[1].lower() in _MEDIA)
        for name in (*folders, *media):
            for key in ({name} & wanted) | ({bare_name(name)} & stems):
                relative = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
                index.paths.setdefault(key, []).append(relative)
    return index


def corrected(record: dict[str, Any], index: PathIndex, media_dir: str) -> tuple[dict[str, Any], list[str]]:
    """A copy of the record with missing paths replaced by existing ones, and ambiguous names with their matches."""
    ambiguous: list[str] = []

    def relocated(path: Any) -> Any:
        if isinstance(path, list):
            return [relocated(part) for part in path]
        if isinstance(path, dict) and isinstance(path.get("path"), str):
            return {**path, "path": relocated(path["path"])}
        if not isinstance(path, str) or find_media(path, media_dir) is not None:
            return path
        name, part = cut_part(path)
        matches = index.locate(name)
        if len(matches) > 1:
            ambiguous.append(f"{path}: {', '.join(matches[:3])}{' and others' if matches[3:] else ''}")
        return matches[0] + part if len(matches) == 1 else path

    changes = {name: relocated(record[name]) for name in (*VIDEOS, *IMAGES) if record.get(name)}
    return {**record, **changes}, ambiguous


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
