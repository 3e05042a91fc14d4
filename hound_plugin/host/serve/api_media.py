"""Media of an API request that are in it or on this machine: ``data:``, and the allowed folder (path or ``file://``).

The host's own checks come first. Beyond them: a folder whose name merely begins like that of the allowed one is
outside, and every frame of a folder must itself be inside. Refusals do not reveal what exists outside the allowed
folder. Media at http addresses: :mod:`hound_plugin.host.serve.api_downloads`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
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
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def is_remote(url: str) -> bool:
    """Whether a url names another machine, in whatever scheme; paths, ``file:`` and ``data:`` do not."""
    return _SCHEME.match(url) is not None and not url[:5].lower().startswith(("data:", "file:"))


def open_source(url: str, kind: str) -> str | list[str] | bytes:
    """What the processor can read: a real path, the frames of a folder, or bytes.

    Args:
        url: of an ``image_url`` or a ``video_url``: a path, ``file://`` or ``data:``.
        kind: "image" or "video".

    Raises:
        MediaError: it may not be read, is unavailable, or is empty.
        fastapi.HTTPException: the host's own check refuses it.
    """
    scheme = url[:8].lower()
    if scheme.startswith("data:"):
        return _decoded(url, kind)
    if scheme.startswith("file:"):
        return local_media(_path_of(url), kind)
    return local_media(url, kind)


def _decoded(url: str, kind: str) -> bytes:
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


# --- local paths


def is_inside(path: str, folder: str) -> bool:
    """Whether ``path``, all links followed, is in ``folder`` or is the folder."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([real, root]) == root


def _path_of(url: str) -> str:
    """The path in a ``file://`` address of this machine; a part of a clip (``#t=``) stays with it.

    Raises:
        MediaDecodeError: it names another machine, has a query, or is not absolute.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise MediaDecodeError(f"Expected file:///ABSOLUTE/PATH, got {url[:200]!r}: {error}.", url) from error
    if parts.netloc.lower() not in ("", "localhost") or not parts.path.startswith("/") or parts.query:
        raise MediaDecodeError(
            f"Expected file:///ABSOLUTE/PATH (or file://localhost/...) of this server, got {url[:200]!r}. Write ?, # "
            "and % in names as %3F, %23 and %25.",
            url,
        )
    return unquote(parts.path) + (f"#{parts.fragment}" if parts.fragment else "")


def local_media(path: str, kind: str) -> str | list[str]:
    """The real path of a file (or of a part of a clip) in the allowed folder, or of each frame of a folder in it.

    Raises:
        MediaError: outside, missing, or neither a file nor (for clips) a folder; a part of anything but a video file.
        fastapi.HTTPException: the host refuses local files.
    """
    from llamafactory.api import common

    if not common.ALLOW_LOCAL_FILES:
        common.check_lfi_path(path)  # raises with its own status
    refused = MediaNotFoundError(
        "Expected the path of a clip or an image in the server's media folder (SAFE_MEDIA_PATH); there is none here."
    )
    if len(path) > _LONGEST_PATH:
        raise refused
    try:
        if not is_inside(path, common.SAFE_MEDIA_PATH):
            raise refused
        whole, start, end = split_part(path)  # which looks for a file of the whole name, so not before the line above
        if not is_inside(whole, common.SAFE_MEDIA_PATH):
            raise refused
        common.check_lfi_path(whole)
        real = os.path.realpath(whole)
        mode = os.stat(real).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise refused from error
    if whole != path and (kind != "video" or stat.S_ISDIR(mode)):
        raise refuse_part(path, "an image" if kind != "video" else "a folder of frames")
    if stat.S_ISREG(mode):
        return with_part(real, start, end)
    if not stat.S_ISDIR(mode) or kind != "video":
        raise MediaDecodeError(f"Expected a regular file as {kind}, got a folder or a device: {path}.", path)
    frames = list_frames(real)
    for frame in frames:
        if not is_inside(frame, common.SAFE_MEDIA_PATH) or not os.path.isfile(frame):
            raise refused
        common.check_lfi_path(frame)
    return [os.path.realpath(frame) for frame in frames]
