"""Media of an API request that are in it or on this machine: ``data:``, and the allowed folder (path or ``file://``).

The host's own checks come first; those of :mod:`hound_plugin.records.served_media` go beyond them. Media at http
addresses: :mod:`hound_plugin.host.serve.api_downloads`.
"""

from __future__ import annotations

import re

from hound_plugin.records.served_media import allowed_media, decode_data_url, split_file_url

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
        return decode_data_url(url, kind)
    if scheme.startswith("file:"):
        path, fragment = split_file_url(url)
        return local_media(path, kind, fragment)
    return local_media(url, kind)


def local_media(path: str, kind: str, fragment: str | None = None) -> str | list[str]:
    """The real path of a file (or of a part of a clip) in the allowed folder, or of each frame of a folder in it.

    Raises:
        MediaError: as :func:`hound_plugin.records.served_media.allowed_media`.
        fastapi.HTTPException: the host refuses local files.
    """
    from llamafactory.api import common

    if not common.ALLOW_LOCAL_FILES:
        common.check_lfi_path(path)  # raises with its own status
    return allowed_media(path, kind, common.SAFE_MEDIA_PATH, "SAFE_MEDIA_PATH", common.check_lfi_path, fragment)
