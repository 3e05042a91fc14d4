"""Find clips and images by name under any layout, for records whose paths were made on another machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hound_plugin.corpus.archive import STATE
from hound_plugin.corpus.checking import media_of
from hound_plugin.records.fields import IMAGES, VIDEOS
from hound_plugin.records.media_paths import IMAGE_SUFFIXES, VIDEO_SUFFIXES, cut_part, find_media

_MEDIA = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


@dataclass
class Places:
    """Where wanted names lie.

    Attributes:
        root: the folder that was walked.
        found: name -> paths relative to ``root``; a folder of frames or a file.
    """

    root: Path
    found: dict[str, list[str]] = field(default_factory=dict)

    def locate(self, name: str) -> list[str]:
        """Paths that fit a record's path best, relative to ``root``: one, none, or several that are equally good.

        The same last part counts, with its ending first and without it second; of several places the one that shares
        most folders at its end with the record's path.
        """
        last = PurePosixPath(name).name
        candidates = self.found.get(last) or [
            place for stem in _stems(last) for place in self.found.get(stem, ()) if _stem(place) == _stem(last)
        ]
        exact = [place for place in candidates if PurePosixPath(place).name == last]
        shared = {place: _shared(place, name) for place in exact or candidates}
        best = max(shared.values(), default=0)
        return sorted(place for place, count in shared.items() if count == best)


def missing_names(records: Iterable[dict[str, Any]], media_dir: str) -> set[str]:
    """Names of media that are not where the records say, without the parts of clips."""
    names = set()
    for record in records:
        for item in media_of(record)[0]:
            for path in [item] if isinstance(item, str) else item:
                if find_media(path, media_dir) is None:
                    names.add(cut_part(path)[0])
    return names


def find_places(root: Path, names: Iterable[str]) -> Places:
    """Walk ``root`` once and note where the wanted names lie; memory grows with ``names``, not with the tree.

    Links to folders are not followed; hidden folders are left out.
    """
    wanted = {PurePosixPath(name).name for name in names}
    stems = {stem for name in wanted for stem in _stems(name)}
    places = Places(root)
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != STATE and not name.startswith("."))
        media = (name for name in files if os.path.splitext(name)[1].lower() in _MEDIA)
        for name in (*folders, *media):
            for key in ({name} & wanted) | ({_stem(name)} & stems):
                relative = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
                places.found.setdefault(key, []).append(relative)
    return places


def corrected(record: dict[str, Any], places: Places, media_dir: str) -> tuple[dict[str, Any], list[str]]:
    """A copy of the record with found paths in place of missing ones, and the ambiguous names with their places."""
    ambiguous: list[str] = []

    def place(path: Any) -> Any:
        if isinstance(path, list):
            return [place(part) for part in path]
        if isinstance(path, dict) and isinstance(path.get("path"), str):
            return {**path, "path": place(path["path"])}
        if not isinstance(path, str) or find_media(path, media_dir) is not None:
            return path
        name, part = cut_part(path)
        found = places.locate(name)
        if len(found) > 1:
            ambiguous.append(f"{path}: {', '.join(found[:3])}{' and others' if found[3:] else ''}")
        return found[0] + part if len(found) == 1 else path

    changes = {name: place(record[name]) for name in (*VIDEOS, *IMAGES) if record.get(name)}
    return {**record, **changes}, ambiguous


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _stems(name: str) -> tuple[str, ...]:
    """A clip may be a folder ``x`` where the record says ``x.mp4``, or the reverse; both are tried."""
    return (name, _stem(name)) if _stem(name) != name else (name,)


def _shared(first: str, second: str) -> int:
    pairs = zip(reversed(PurePosixPath(first).parts[:-1]), reversed(PurePosixPath(second).parts[:-1]), strict=False)
    count = 0
    for left, right in pairs:
        if left != right:
            break
        count += 1
    return count
