"""Open one picture: a frame of a clip or an image, from a file, bytes, a stream, an array or PIL."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from hound_plugin.errors import MediaDecodeError, MediaError, MediaNotFoundError
from hound_plugin.media.bit_depth import bits_per_channel
from hound_plugin.media.clip import check_size
from hound_plugin.media.picture_completeness import check_complete
from hound_plugin.records.media_paths import check_name

logger = logging.getLogger(__name__)

_HIGH_BIT_DEPTH = (
    "I",
    "F",
)  # prefixes of PIL's modes of more than 8 bits; its conversion would clip them to black and white
_BITS = 8
_ORIENTATION = 0x0112
_SUBFILE_TYPE, _REDUCED = 0x00FE, 1  # of a TIFF: a smaller version of another picture in the file
_OF_SEVERAL = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")  # files that may have several pictures, all of them meant
_turned: list[str] = []


def open_picture(picture: Any, name: str | None = None) -> Image.Image:
    """Open a picture as RGB.

    Alpha is dropped, palettes are resolved, and an EXIF orientation is not applied (noted once), as in the original.

    Args:
        picture: path, PIL image, bytes, binary stream, or an array of uint8 or bool.
        name: for messages; its path by default.

    Returns:
        A PIL image of mode RGB.

    Raises:
        MediaNotFoundError: the path does not exist.
        MediaDecodeError: not an image, an animation, damaged, more than 8 bits per channel, too large, PostScript (a
            program), or not a regular file.
    """
    path = str(picture) if isinstance(picture, str | os.PathLike) else None
    name = name or path or "the given image"
    try:
        if isinstance(picture, Image.Image):
            check_complete(picture, name, path)
            return _as_rgb(picture, name, path)
        if isinstance(picture, np.ndarray):
            return _as_rgb(Image.fromarray(picture), name, path)
        with _opened(picture, name) as image:
            _check_single(image, name, path)
            check_complete(image, name, path)
            return _as_rgb(image, name, path)
    except MediaError:
        raise
    except Exception as error:  # PIL's decoders raise anything: struct.error, SyntaxError, KeyError ...
        raise _damaged(picture, name, path, error) from error


def picture_size(picture: Any, name: str | None = None) -> tuple[int, int]:
    """Width and height, from the header.

    Raises:
        MediaError: as :func:`open_picture`, as far as the header shows.
    """
    path = str(picture) if isinstance(picture, str | os.PathLike) else None
    name = name or path or "the given image"
    try:
        if isinstance(picture, Image.Image):
            _check(picture, name, path)
            return picture.size
        with _opened(picture, name) as image:
            _check_single(image, name, path)
            _check(image, name, path)
            return image.size
    except MediaError:
        raise
    except Exception as error:
        raise _damaged(picture, name, path, error) from error


def check_file(path: str, name: str) -> None:
    """Refuse anything but a regular file: a pipe or a device may block forever.

    Raises:
        MediaNotFoundError: the path does not exist.
        MediaDecodeError: it is not a regular file, or its path is not UTF-8.
    """
    check_name(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaNotFoundError(
            f"Expected an image at {path}, but {name} does not exist ({reason}). Check the path and `media_dir`.", path
        ) from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device, which could block forever"
        raise MediaDecodeError(f"Cannot read {name}: it is {what}. Give a regular file.", path)


def _opened(picture: Any, name: str) -> Image.Image:
    if isinstance(picture, str | os.PathLike):
        check_file(os.fspath(picture), name)
        return Image.open(picture)
    return Image.open(BytesIO(picture) if isinstance(picture, bytes | bytearray | memoryview) else picture)


def _check(image: Image.Image, name: str, path: str | None) -> None:
    if image.format == "EPS":  # PIL would run Ghostscript on it
        raise MediaDecodeError(f"Cannot read {name}: PostScript is a program, not an image. Convert it to PNG.", path)
    deep, bits = image.mode.startswith(_HIGH_BIT_DEPTH), bits_per_channel(image) or 0
    if deep or bits > _BITS:
        more = f"more (PIL mode {image.mode})" if deep else f"{bits} bits"
        raise MediaDecodeError(
            f"Expected 8 bits per channel in {name}; it has {more}, with no defined mapping to 0..255. Convert it, for "
            "example to an 8-bit PNG.",
            path,
        )
    check_size(image.width, image.height, name, path)


def _check_single(image: Image.Image, name: str, path: str | None) -> None:
    """Refuse an animation, a document of several pages and a camera's raw file: PIL would show the first picture.

    That of a raw file (DNG, NEF ...) is a thumbnail.
    """
    count = getattr(image, "n_frames", 1) if image.format in _OF_SEVERAL else 1
    if count > 1:
        raise MediaDecodeError(
            f"Expected one picture in {name}; it has {count}, as an animation or pages. Give an animation as a clip (a "
            "GIF, an APNG or an MP4), or save the picture that is meant as a file of its own.",
            path,
        )
    if image.format == "TIFF" and int(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)) & _REDUCED:
        raise MediaDecodeError(
            f"Expected a picture in {name}; its first one is a thumbnail of {image.width}x{image.height} pixels, as in "
            "raw files of cameras (DNG, NEF ...). Develop it, and save it as JPEG or PNG.",
            path,
        )


def _as_rgb(image: Image.Image, name: str, path: str | None) -> Image.Image:
    _check(image, name, path)
    if not _turned and _is_turned(image):
        _turned.append(name)
        logger.warning(
            "%s has an EXIF orientation. Orientations of pictures are ignored, as in the original: pixels are used "
            "as stored. Rotate the files themselves if they appear sideways. (Shown once.)",
            name,
        )
    return image.convert("RGB")


def _is_turned(image: Image.Image) -> bool:
    if not image.info.get("exif"):  # checked before `getexif`, which also reads XMP
        return False
    with contextlib.suppress(Exception):  # faults in it do not affect the pixels
        return image.getexif().get(_ORIENTATION, 1) != 1
    return False


def _damaged(picture: Any, name: str, path: str | None, error: Exception) -> MediaDecodeError:
    if isinstance(picture, np.ndarray):
        return MediaDecodeError(
            f"Expected an image [H, W, 3] of uint8, RGB; got {list(picture.shape)} of {picture.dtype}."
        )
    return MediaDecodeError(
        f"{name} cannot be decoded: {error}. It is damaged or not an image; replace it, or leave its record out.", path
    )
