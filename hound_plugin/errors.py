"""Every error that ``hound_plugin`` raises on purpose.

::

    HoundError
    ├── SettingsError          a ``hound:`` key, an environment variable or an argument has a bad name or value
    ├── MediaError             a clip or an image cannot be used
    │   ├── MediaNotFoundError     the path does not exist
    │   ├── MediaDecodeError       the file is not a video or image, or it is damaged
    │   ├── EmptyMediaError        it contains no frame
    │   └── DecodeTimeoutError     decoding took longer than ``decode_timeout``
    ├── DataError              a record of a data set is malformed
    │   ├── PlaceholderError       ``<video>`` / ``<image>`` placeholders and media do not match in number
    │   └── ContextLengthError     a conversation leaves no room for an answer in the model's context
    ├── CorpusError            a corpus is unavailable
    │   ├── DownloadError          the hub cannot be reached, is gated or lacks a file, or the disk is full
    │   └── ArchiveError           an archive is damaged, or contains something that must not be unpacked
    ├── LedgerError            a run folder belongs to other settings, is damaged, or is in use
    ├── InUseError             another process holds the lock of a file or a folder
    ├── ClientDisconnectedError  who asked for an answer hung up, and its work was ended
    ├── DiskFullError          a file cannot be written for want of space
    ├── JudgeError             a judge or sampling server cannot continue: bad key, unknown model, quota, budget
    ├── TrainingError          a training run cannot continue: its loss or gradients are not finite
    ├── CheckpointError        a checkpoint is of another architecture, incomplete or unreadable
    └── EnvironmentMismatchError   a package is missing or outside the supported versions

Messages state what was expected, what was found, and what to do about it. Each class is also a built-in
exception of the same meaning, so that code unaware of this package can still catch it.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class HoundError(Exception):
    """Base of every error that this package raises on purpose."""


class SettingsError(HoundError, ValueError):
    """A setting has an unknown name or a value outside its range.

    ``key`` is the name of the setting (the first of several), if known.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key

    def __reduce__(self) -> tuple[object, tuple[str, str | None]]:  # so that it can be sent from a worker process
        return type(self), (str(self), self.key)


class MediaError(HoundError, ValueError):
    """A clip or an image cannot be used.

    ``path`` is the offending path, if there is one.
    """

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str | None]]:  # so that it can be sent from a loader worker
        return type(self), (str(self), self.path)


class MediaNotFoundError(MediaError, FileNotFoundError):
    """The path of a clip or an image does not exist."""


class MediaDecodeError(MediaError):
    """The file is not a video or image, or it is damaged."""


class EmptyMediaError(MediaError):
    """There is no frame."""


class DecodeTimeoutError(MediaError, TimeoutError):
    """Decoding took longer than the limit and was stopped."""


class DataError(HoundError, ValueError):
    """A record of a data set is malformed."""


class PlaceholderError(DataError):
    """The placeholders of a text and its media do not match in number."""


class CorpusError(HoundError):
    """A corpus is unavailable."""


class DownloadError(CorpusError, OSError):
    """The hub cannot be reached, is gated or lacks a file, or the disk is full."""


class ArchiveError(CorpusError, ValueError):
    """An archive is damaged, or contains something that must not be unpacked."""


class ContextLengthError(DataError):
    """A conversation leaves no room for an answer in the model's context."""


class LedgerError(HoundError, ValueError):
    """A ledger or a run folder belongs to other settings, is damaged, or is in use."""


class InUseError(HoundError, BlockingIOError):
    """Another process holds the lock of a file or a folder."""


class ClientDisconnectedError(HoundError, ConnectionAbortedError):
    """Who asked for something hung up; its work was ended."""


class DiskFullError(HoundError, OSError):
    """A file cannot be written: the disk is full, or a quota or a limit on file sizes is reached."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


class JudgeError(HoundError, RuntimeError):
    """A judge or a sampling server cannot continue: bad key, unknown model, quota, budget."""


class TrainingError(HoundError, ArithmeticError):
    """A training run cannot continue: its loss or gradients are not finite."""


class CheckpointError(HoundError, ValueError):
    """A checkpoint is of another architecture, incomplete or unreadable."""


class EnvironmentMismatchError(HoundError, ImportError):
    """A required package is missing or outside the supported versions."""


@contextlib.contextmanager
def damage_named(name: object, what: str) -> Iterator[None]:
    """Convert what a library raises over a damaged file into an error that names the checkpoint and the file.

    Raises:
        CheckpointError: anything was raised inside but an ``OSError`` over an absent file or one of our own errors.
    """
    try:
        yield
    except HoundError:
        raise
    except OSError as error:
        if not isinstance(error.__context__, ValueError):  # how transformers reports invalid JSON
            raise
        raise CheckpointError(f"{error} It is damaged; copy or download it again.") from error
    except Exception as error:  # tokenizers raises plain exceptions, transformers anything
        raise CheckpointError(
            f"The {what} of the checkpoint {name} cannot be read ({type(error).__name__}: {error}). It is damaged, or "
            "of another architecture; copy or download it again."
        ) from error
