"""Which media a request to a server may name: files and folders of frames inside one folder, and ``data:`` addresses.

A folder whose name merely begins like that of the allowed one is outside, links are followed before they are judged,
and every frame of a folder must itself be inside. Refusals do not reveal what exists outside the allowed folder.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from hound_plugin.errors import MediaDecodeError, MediaError, MediaNotFoundError
from hound_plugin.records.frame_order import list_frames
from hound_plugin.records.media_paths import refuse_part, split_part, with_part

# subtypes of media types, as clients write them for the files that are read here
SUBTYPES = {
    "image": ("png", "jpg", "jpeg", "gif", "bmp", "webp"),
    "video": (
        "mp4", "webm", "quicktime", "mov", "x-matroska", "matroska", "mkv", "x-msvideo", "msvideo", "avi", "gif",
        "x-m4v", "m4v", "mpeg", "mpg", "mp2t", "3gpp", "x-flv", "x-ms-wmv",
    ),
}  # fmt: skip
_DATA = {
    kind: re.compile(
        rf"data:{family}/(?:{'|'.join(SUBTYPES[kind])})(?:;[\w.+-]+=[^;,]*)*;base64,(.+)", re.DOTALL | re.IGNORECASE
    )
    for kind, family in (("image", "image"), ("video", "(?:video|image(?=/gif))"))
}

_LONGEST_PATH = 4096 + 64  # characters: Linux takes none beyond 4096, and looking at all the folders in it takes long


def decode_data_url(url: str, kind: str) -> bytes:
    """The file in ``data:video/mp4;base64,...``.

    Args:
        url: the address.
        kind: "image" or "video".

    Raises:
        MediaDecodeError: another type of media, or text that is not base64.
    """
    match = _DATA[kind].fullmatch(url)
    if match is None:
        raise MediaDecodeError(
            f"Expected a {kind} as data:{kind}/FORMAT;base64,... with FORMAT one of {', '.join(SUBTYPES[kind])}, got "
            f"{url[:40]!r}. Convert it, or name its format."
        )
    try:
        return base64.b64decode("".join(match.group(1).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaDecodeError(f"The base64 text of a {kind} cannot be decoded: {error}.") from error


def split_file_url(url: str) -> tuple[str, str]:
    """The path in a ``file://`` address of this machine, and its fragment (``t=5,10``), which may be empty.

    An escaped ``#`` (``%23``) belongs to the name, so the two stay apart.

    Raises:
        MediaDecodeError: it names another machine, has a query, is not absolute, is not UTF-8, or has control
            characters, which ``urlsplit`` would drop.
    """
    if any(ord(character) < ord(" ") for character in url):
        raise MediaDecodeError(
            f"Expected no control characters in an address, got {url[:200]!r}. Write %0A for the end of a line.", url
        )
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise MediaDecodeError(f"Expected file:///ABSOLUTE/PATH, got {url[:200]!r}: {error}.", url) from error
    if parts.netloc.lower() not in ("", "localhost") or not parts.path.startswith("/") or parts.query:
        raise MediaDecodeError(
            f"Expected file:///ABSOLUTE/PATH (or file://localhost/...) of this server, got {url[:200]!r}. Write ?, # "
            "and % in names as %3F, %23 and %25.",
            url,
        )
    return path, parts.fragment


def check_whole(url: str, kind: str) -> None:
    """Refuse a part of something that is fetched: any fragment (``#t=``, ``#track=v&t=1,2``, ``#xywh=``).

    Raises:
        MediaDecodeError: there is one.
    """
    fragment = url.partition("#")[2]
    if fragment:
        raise MediaDecodeError(
            f"Expected the address of a whole {kind}, got {url[:200]!r}: parts (#t=START,END) are only for "
            f"clips in the server's media folder, and other fragments ({'#' + fragment[:40]!r}) are not read. Send the "
            "part itself, or leave out what begins with #.",
            url,
        )


def is_inside(path: str, folder: str) -> bool:
    """Whether ``path``, all links followed, is in ``folder`` or is the folder."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([real, root]) == root


def allowed_media(
    path: str,
    kind: str,
    folder: str,
    setting: str,
    check: Callable[[str], None] = lambda _: None,
    fragment: str | None = None,
) -> str | list[str]:
    """The real path of a file (or of a part of a clip) in the allowed folder, or of each frame of a folder in it.

    Args:
        path: as it was asked for.
        kind: "image" or "video".
        folder: what may be read.
        setting: the name of the setting that says so, for messages.
        check: a further check of a path, which raises.
        fragment: of an address, see :func:`split_file_url`; None for a path, at whose end a part may be.

    Raises:
        MediaError: outside, missing, or neither a file nor (for clips) a folder; a part of anything but a video file.
    """
    refused = MediaNotFoundError(
        f"Expected the path of a clip or an image in the server's media folder ({setting}); there is none here."
    )
    if len(path) > _LONGEST_PATH:
        raise refused
    try:
        if not is_inside(path, folder):
            raise refused
        # it looks for a file of the whole name, so not before the line above
        whole, start, end = split_part(path, fragment)
        if not is_inside(whole, folder):
            raise refused
        check(whole)
        real = os.path.realpath(whole)
        mode = os.stat(real).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise refused from error
    is_part = start is not None or end is not None
    if is_part and (kind != "video" or stat.S_ISDIR(mode)):
        asked = path if fragment is None else f"{path}#{fragment}"
        raise refuse_part(asked, "an image" if kind != "video" else "a folder of frames")
    if stat.S_ISREG(mode):
        return _readable(with_part(real, start, end), is_part)
    if not stat.S_ISDIR(mode) or kind != "video":
        raise MediaDecodeError(f"Expected a regular file as {kind}, got a folder or a device: {path}.", path)
    frames = list_frames(real)
    for frame in frames:
        if not is_inside(frame, folder) or not os.path.isfile(frame):
            raise refused
        check(frame)
    return [os.path.realpath(frame) for frame in frames]


def _readable(path: str, is_part: bool) -> str:
    """A path that whoever reads it takes for the same.

    Raises:
        MediaDecodeError: it is a part, and the name of another file.
    """
    if is_part and os.path.exists(path):
        raise MediaDecodeError(
            f"Expected the path of one clip, got {path}: that is the name of a file, and a part of another one. Rename "
            "the file.",
            path,
        )
    return path
