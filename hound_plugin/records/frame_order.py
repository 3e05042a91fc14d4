"""The order of frames in a folder: every number in a name by its value, so that ``frame_2`` precedes ``frame_10``."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from hound_plugin.errors import EmptyMediaError, MediaDecodeError
from hound_plugin.records.media_paths import IMAGE_SUFFIXES, VIDEO_SUFFIXES

# A single dot between two numbers is a decimal point: `2024.05.01` holds three numbers. `.mp4` stands for itself.
_EXPONENT = r"e[+-]\d{1,4}(?!\d)"
_PLAIN = (
    r"(?<=\.mp)4(?=\.)|(?<!\d)(?:(?<!\d\.)|(?<=\.mp4\.))"
    rf"(?P<decimal>\d+\.\d+(?:{_EXPONENT})?)(?!\.?\d)|\d+"
)
_NUMBER = re.compile(_PLAIN, re.IGNORECASE)
# What else may be one number; names where this makes another order are refused. `S01E02` has a letter before it.
_OTHER_READINGS = {
    "an exponent": re.compile(
        rf"(?P<other>(?:(?<![^\W_])|(?=[\d.]+e[+-]))(?<![\d.])\d+(?:\.\d+)?e[+-]?\d{{1,4}}(?!\.?\d|[a-z]))|{_PLAIN}",
        re.IGNORECASE,
    ),
    "a decimal comma": re.compile(
        rf"(?P<other>(?<![\d.,٫])\d+[,٫]\d+(?:{_EXPONENT})?(?![.,٫]?\d))|{_PLAIN}", re.IGNORECASE
    ),
}
_WHOLE = re.compile(r"\d+")
_MAY_BE_ONE_NUMBER = re.compile(r"\de[+-]?\d|\d,\d", re.IGNORECASE)  # in ASCII; what is none of them costs no more
_SIGNS = ("No", "Nl")  # numbers that are not written in digits: superscripts, fractions, circled and Roman numerals


@dataclass(frozen=True)
class _Name:
    """A file name taken apart.

    Attributes:
        name: unchanged.
        pattern: which of its numbers are decimals, and the texts around them, file suffix left out; empty for a name
            without numbers.
        key: its numbers; the text itself without numbers.
    """

    name: str
    pattern: tuple[str, ...]
    key: tuple[Decimal, ...] | str


def order_frames(names: Iterable[str], folder: str | None = None) -> list[str]:
    """File names of one clip's frames in order of time.

    Every run of digits counts by its value, from left to right; ``1.5`` is one number and sorts after ``1.25``.
    ``1.5e+01`` is 15. Names without numbers are ordered as text. File suffixes may differ.

    Args:
        names: without their folder.
        folder: for the message.

    Raises:
        MediaDecodeError: the names follow two patterns (``frame_1.jpg``, ``img_2.jpg``), two of them have the same
            numbers (``f_1.jpg``, ``f_01.jpg``), or numbers can be read in two ways (``0,5`` and ``0,25``; ``1e3`` and
            ``2e2``; ``shot1.9`` and ``shot1.10``) or are other characters than digits (``f².jpg``): their order is then
            unknown.
    """
    names = sorted(names)
    parsed = [_parse_name(name) for name in names]
    kinds = Counter(name.pattern for name in parsed)
    if len(kinds) > 1:
        (usual, _), (other, _) = kinds.most_common(2)
        first, second = (next(name.name for name in parsed if name.pattern == kind) for kind in (usual, other))
        raise _refusal(
            folder,
            f"names of one pattern, such as frame_1.jpg, frame_2.jpg, got {len(kinds)} patterns, as in {first!r} and "
            f"{second!r}",
            "Remove files that are not frames of the clip, or rename the frames.",
        )
    ordered = sorted(parsed, key=lambda name: name.key)
    _check_decimals(ordered, folder)
    _check_one_reading(ordered, folder)
    for before, after in itertools.pairwise(ordered):
        if before.key == after.key:
            raise _refusal(
                folder,
                f"one name for each frame, got {before.name!r} and {after.name!r}, which have the same numbers",
                "Remove one of them, or rename the frames.",
            )
    return [name.name for name in ordered]


def list_frames(folder: str) -> list[str]:
    """Paths of the image files of a folder, in the order of :func:`order_frames`; hidden and other files are ignored.

    Raises:
        EmptyMediaError: the folder has no image file.
        MediaDecodeError: the folder cannot be listed, the names leave the order open, or other files look like the
            clip itself or like frames of it that would be left out.
    """
    try:
        with os.scandir(folder) as entries:
            in_folder = list(entries)
    except OSError as error:
        raise MediaDecodeError(f"Cannot list the folder of frames {folder}: {error}.", folder) from error
    frames = [entry.name for entry in in_folder if _is_frame(entry)]
    if not frames:
        raise EmptyMediaError(
            f"No frame in the folder {folder}: expected visible files ending in {', '.join(IMAGE_SUFFIXES)} directly "
            f"in it, found none among {len(in_folder)} entries. Extract the frames again or point to the video file.",
            folder,
        )
    others = [entry.name for entry in in_folder if entry.name not in frames and not entry.name.startswith(".")]
    ordered = order_frames(frames, folder)
    if others:
        _check_others(folder, frames, others)
    return [os.path.join(folder, name) for name in ordered]


def _check_others(folder: str, frames: list[str], others: list[str]) -> None:
    """Refuse a folder of which leaving out the other files would make another clip."""
    video = next((name for name in sorted(others) if name.lower().endswith(VIDEO_SUFFIXES)), None)
    if video is not None:
        raise MediaDecodeError(
            f"Expected the frames of one clip in the folder {folder}, got {frames[0]!r} and the video {video!r}: which "
            "of them is the clip? Name the video itself, or move it elsewhere.",
            folder,
        )
    parsed = [_parse_name(name) for name in frames]
    pattern, keys = parsed[0].pattern, {name.key for name in parsed}
    for name in sorted(others):
        other = _parse_name(_without_suffixes(name))
        if pattern and other.pattern == pattern and other.key not in keys:  # a note beside each frame has its number
            raise MediaDecodeError(
                f"Expected all frames in the folder {folder} as {', '.join(IMAGE_SUFFIXES)}; {name!r} has the name of "
                f"one, as {frames[0]!r} has, and would be left out. Finish or convert it, or move it elsewhere.",
                folder,
            )


def _without_suffixes(name: str) -> str:
    """``f_1`` with a harmless suffix for ``f_1.tif``, ``f_1`` and an unfinished ``f_1.jpg.part``."""
    stem, suffix = os.path.splitext(name)
    stem = name if suffix[1:].isdigit() else stem
    inner, suffix = os.path.splitext(stem)
    return f"{inner if suffix.lower() in IMAGE_SUFFIXES else stem}.jpg"


def _is_frame(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.name.lower().endswith(IMAGE_SUFFIXES):
        return False
    # only a link needs another look at the disk
    return not (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False))


def _check_decimals(ordered: list[_Name], folder: str | None) -> None:
    """Refuse ``shot1.9.jpg`` and ``shot1.10.jpg``, whose order is another one where the dot separates two numbers.

    A program that writes decimals of several lengths writes no 0 at their end.
    """
    decimals = [number.partition(".")[2] for name in ordered for number in _decimals_of(name.name)]
    if len({*map(len, decimals)}) < 2 or not any(len(digits) > 1 and digits.endswith("0") for digits in decimals):
        return
    keys = [list(map(int, _WHOLE.findall(os.path.splitext(name.name)[0]))) for name in ordered]
    for (before, key), (after, next_key) in itertools.pairwise(zip(ordered, keys, strict=True)):
        if key >= next_key:
            raise _refusal(
                folder,
                f"numbers that can be read in one way, got {before.name!r} and {after.name!r}, where the dot may be a "
                "decimal point or separate two numbers",
                "Rename the frames: write all decimals with as many digits, or another sign between the numbers.",
            )


def _decimals_of(name: str) -> list[str]:
    return [match["decimal"] for match in _NUMBER.finditer(os.path.splitext(name)[0]) if match["decimal"]]


def _check_one_reading(ordered: list[_Name], folder: str | None) -> None:
    """Refuse names whose order depends on how their numbers are read."""
    text = "\n".join(name.name for name in ordered)
    if text.isascii() and not _MAY_BE_ONE_NUMBER.search(text):
        return
    signs = [character for name in ordered for character in name.name if unicodedata.category(character) in _SIGNS]
    if len(ordered) > 1 and signs and not ordered[0].pattern:
        raise _refusal(
            folder,
            f"numbers of digits, such as frame_1.jpg, frame_2.jpg, got {signs[0]!r} in {ordered[0].name!r}",
            "Rename the frames.",
        )
    for what, pattern in _OTHER_READINGS.items():
        others = [_parse_name(name.name, pattern) for name in ordered]
        if all(other.pattern == name.pattern for other, name in zip(others, ordered, strict=True)):
            continue  # there is nothing else to read
        if len({other.pattern for other in others}) > 1:
            continue  # only some names would have it
        for before, after in itertools.pairwise(others):
            if before.key >= after.key:  # type: ignore[operator]
                raise _refusal(
                    folder,
                    f"numbers that can be read in one way, got {before.name!r} and {after.name!r}, which may or may "
                    f"not have {what}",
                    "Rename the frames: write such numbers as 15.0 or 0.25, or without the sign between them.",
                )


def _parse_name(name: str, pattern: re.Pattern[str] = _NUMBER) -> _Name:
    stem = os.path.splitext(name)[0]
    numbers = list(pattern.finditer(stem))
    if not numbers:
        return _Name(name, (), stem)
    edges = [0, *(edge for match in numbers for edge in match.span()), len(stem)]
    texts = tuple(stem[left:right] for left, right in zip(edges[::2], edges[1::2], strict=True))
    kinds = "".join(_kind(match) for match in numbers)
    values = (re.sub("[,٫]", ".", match.group()) for match in numbers)
    return _Name(name, (kinds, *texts), tuple(map(Decimal, values)))


def _kind(number: re.Match[str]) -> str:
    if number.groupdict().get("other"):
        return ","
    decimal = number["decimal"]
    return "1" if not decimal else "e" if "e" in decimal.lower() else "."


def _refusal(folder: str | None, expected: str, advice: str) -> MediaDecodeError:
    where = f"the folder {folder}" if folder else "a folder of frames"
    return MediaDecodeError(f"Cannot tell the order of the frames in {where}: expected {expected}. {advice}", folder)
