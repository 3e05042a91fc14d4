"""``hound corpus download``: files from the hub into one folder; complete ones are kept, partial ones are resumed.

huggingface_hub handles names, sizes, logins and errors (``HF_ENDPOINT``, ``HF_TOKEN`` and its other variables apply).
The bytes are transferred here, because its own download restarts every file from scratch after a killed run (see
huggingface/huggingface_hub#4196, open with 1.33), and archives have 10 GB: a partial file ``.name.<digest>.part``
grows from run to run, and gets its name once its size and digest match the hub's.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from hound_plugin.backoff import Backoff, parse_retry_after
from hound_plugin.corpus.files import readable_size
from hound_plugin.corpus.schema import Corpus
from hound_plugin.errors import DownloadError, InUseError
from hound_plugin.records.files import hold, publish, write_json

_BATCH = 50  # paths per request to the hub
_BLOCK = 1 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds before the next try
_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Item:
    """One file to download.

    Attributes:
        repo, name: the data set on the hub, and the path in it.
        size: its size there, in bytes.
        digest: SHA-256 of its content (large files) or git's SHA-1 of it, as hexadecimal digits.
        root: the local folder that ``name`` is relative to.
    """

    repo: str
    name: str
    size: int
    digest: str
    root: Path

    @property
    def path(self) -> Path:
        """Its local path."""
        return self.root / self.name

    @property
    def is_complete(self) -> bool:
        """Whether it has been fully downloaded: of the hub's size and digest.

        What was compared once is remembered by size and time. Other programs may have left a file of the right size
        that is not filled yet, and another revision may have as many bytes.
        """
        if not self.path.is_file() or self.path.stat().st_size != self.size:
            return False
        if self._compared() != self._stamp():
            print(f"comparing {self.name} with the hub's digest", file=sys.stderr)
            if _digest(self.path, self) != self.digest:
                print(f"hound: {self.path} is not the hub's file of that size; it is replaced", file=sys.stderr)
                return False
            self.remember()
        return True

    @property
    def _note(self) -> Path:
        return self.path.with_name(f".{self.path.name}.digest")

    def _stamp(self) -> dict[str, str | int]:
        return {"digest": self.digest, "size": self.size, "mtime_ns": self.path.stat().st_mtime_ns}

    def _compared(self) -> object:
        try:
            return json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def remember(self) -> None:
        """Note that the file has the hub's digest."""
        write_json(self._note, self._stamp())

    @property
    def part(self) -> Path:
        """The partial download; named by the digest, so that changed content on the hub gets another one."""
        return self.path.with_name(f".{self.path.name}.{self.digest[:12]}.part")


def download(folder: Path, corpora: Sequence[Corpus], revision: str = "main", retries: int = 5) -> list[Path]:
    """Download the files of ``corpora`` that are missing.

    Args:
        folder: the folder for all corpora; created if missing.
        corpora: what to download.
        revision: branch, tag or commit on the hub.
        retries: how often to retry a transfer that made no progress.

    Returns:
        The paths of all files of ``corpora``, in order.

    Raises:
        DownloadError: the hub cannot be reached, is gated or lacks a file, or there is too little space. Space is
            compared with the sizes on the hub before the first byte is transferred.
    """
    items = plan(folder, corpora, revision)
    missing = [item for item in items if not item.is_complete]
    if missing:
        check_space(folder, missing)
        total = readable_size(sum(item.size for item in missing))
        print(f"{len(missing)} of {len(items)} files to download, {total}", file=sys.stderr)
    for item in missing:
        _fetch(item, revision, retries)
    return [item.path for item in items]


def plan(folder: Path, corpora: Sequence[Corpus], revision: str = "main") -> list[Item]:
    """Ask the hub for the sizes of the files of ``corpora``.

    Raises:
        DownloadError: the hub cannot be reached or is gated, or a file is missing.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    items: list[Item] = []
    for corpus in corpora:
        on_hub: dict[str, Item] = {}
        with _named_errors(corpus.repo):
            for start in range(0, len(corpus.files), _BATCH):
                names = list(corpus.files[start : start + _BATCH])
                entries = HfApi().get_paths_info(corpus.repo, names, repo_type="dataset", revision=revision)
                for entry in entries:
                    if isinstance(entry, RepoFile):
                        digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
                        on_hub[entry.path] = Item(corpus.repo, entry.path, entry.size, digest, folder / corpus.root)
        absent = [name for name in corpus.files if name not in on_hub]
        if absent:
            raise DownloadError(
                f"Expected {', '.join(absent[:3])}{' and others' if absent[3:] else ''} in the data set {corpus.repo} "
                f"at revision {revision!r}; the hub does not have it ({len(absent)} of {len(corpus.files)} of corpus "
                f"{corpus.id} missing). See {_page(corpus.repo)}/tree/{revision} or name another --revision."
            )
        items += [on_hub[name] for name in corpus.files]
    return items


def check_space(folder: Path, missing: Sequence[Item]) -> None:
    """Check that ``missing`` fits on the disk, counting partial downloads.

    Raises:
        DownloadError: there is too little space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(item.size - (item.part.stat().st_size if item.part.exists() else 0) for item in missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"Expected {readable_size(needed)} of free space for {len(missing)} files under {folder}; there is "
            f"{readable_size(free)}. Free some, choose fewer corpora with --only, or another disk with --folder. "
            "Archives that have been extracted may be removed."
        )


def _fetch(item: Item, revision: str, retries: int) -> None:
    """Download one file, in as many transfers as it takes while each makes progress."""
    item.path.parent.mkdir(parents=True, exist_ok=True)
    with _locked_part(item) as part:
        failures, backoff = 0, Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, warn=lambda line: print(line, file=sys.stderr))
        while True:
            before = part.seek(0, os.SEEK_END)
            try:
                with _named_errors(item.repo, item.name):
                    _transfer(item, revision, part)
                break
            except DownloadError as error:
                failures = 0 if part.seek(0, os.SEEK_END) > before else failures + 1
                if not _is_transient(error.__cause__) or failures > retries:
                    raise
                print(f"hound: {item.name} was interrupted ({error.__cause__}); resuming", file=sys.stderr)
                time.sleep(backoff.delay(max(1, failures), _retry_after(error.__cause__)))
        _finish(item, part)


@contextmanager
def _locked_part(item: Item) -> Iterator[FileIO]:
    """The partial file, locked against other runs; partial files of older content are removed."""
    try:
        lock = hold(item.path.with_name(f".{item.path.name}.lock"))
    except InUseError as error:
        raise DownloadError(
            f"{item.path} is being downloaded by another process. Wait for it, or end it, and run the command again."
        ) from error
    try:
        for old in item.path.parent.glob(f".{glob.escape(item.path.name)}.*.part"):
            if old != item.part:
                old.unlink()
        with item.part.open("ab", buffering=0) as part:
            yield part
    finally:
        lock.release(remove=True)


def _transfer(item: Item, revision: str, part: FileIO) -> None:
    """Append the missing bytes; start over if the server ignores the range."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
    from tqdm import tqdm

    offset = part.seek(0, os.SEEK_END)
    if offset > item.size:
        part.truncate(offset := 0)
    if offset == item.size:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
    address = hf_hub_url(item.repo, item.name, repo_type="dataset", revision=revision)
    with (
        get_session().stream("GET", address, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as response,
        tqdm(total=item.size, unit="B", unit_scale=True, desc=item.path.name, disable=None) as bar,
    ):
        hf_raise_for_status(response)
        if response.status_code != 206:
            part.truncate(offset := 0)
        bar.update(offset)
        for block in response.iter_raw():
            part.write(block)
            bar.update(len(block))


def _finish(item: Item, part: FileIO) -> None:
    """Compare size and digest with the hub's and give the file its name."""
    size = part.seek(0, os.SEEK_END)
    if size != item.size or _digest(item.part, item) != item.digest:
        part.truncate(0)
        raise DownloadError(
            f"Expected {item.size} bytes with digest {item.digest[:12]} for {item.name} of {item.repo}; got {size} "
            "bytes of other content, which were discarded. Run the command again; if it happens again, a proxy or "
            "mirror (HF_ENDPOINT) changes files."
        )
    publish(item.part, item.path)
    item.remember()


def _digest(path: Path, item: Item) -> str:
    """SHA-256, or git's id of the file: SHA-1 of a header and the content."""
    digest = hashlib.sha256() if len(item.digest) == 64 else hashlib.sha1(f"blob {item.size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _retry_after(cause: BaseException | None) -> float | None:
    """Seconds that the hub asks to wait, if it does."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(cause, HfHubHTTPError) and cause.response is not None:
        return parse_retry_after(cause.response.headers)
    return None


def _is_transient(cause: BaseException | None) -> bool:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(cause, HfHubHTTPError):
        return cause.response is not None and (cause.response.status_code >= 500 or cause.response.status_code == 429)
    return isinstance(cause, httpx.TransportError | ConnectionError) and not isinstance(
        cause, httpx.UnsupportedProtocol
    )


@contextmanager
def _named_errors(repo: str, name: str | None = None) -> Iterator[None]:
    """Convert what huggingface_hub raises into one sentence that says what to do."""
    import httpx
    from huggingface_hub import errors as hub

    what = f"{name} of the data set {repo}" if name else f"the data set {repo}"
    advice = "Partial downloads are kept; the same command resumes them."
    try:
        yield
    except hub.GatedRepoError as error:
        raise DownloadError(
            f"Cannot download {what}: it is gated. Accept its conditions on {_page(repo)}, then run `hf auth login` or "
            "set HF_TOKEN."
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise DownloadError(
            f"Cannot download {what}: the hub at {_endpoint()} does not have it, or it is private. If so, run "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise DownloadError(f"Cannot download {what}: the revision does not exist. Leave --revision out.") from error
    except (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError) as error:
        raise DownloadError(
            f"Cannot reach the hub at {_endpoint()} for {what}: {_first_line(error)} Check the network and "
            f"HF_ENDPOINT, and unset HF_HUB_OFFLINE. {advice}"
        ) from error
    except hub.EntryNotFoundError as error:
        raise DownloadError(
            f"Cannot download {what}: the hub does not have this file. See {_page(repo)}/tree/main."
        ) from error
    except hub.HfHubHTTPError as error:
        raise DownloadError(f"Cannot download {what}: the hub answered: {_first_line(error)} {advice}") from error
    except httpx.HTTPError as error:
        raise DownloadError(
            f"Cannot reach the hub at {_endpoint()} for {what}: {_first_line(error)} Check the network and "
            f"HF_ENDPOINT. {advice}"
        ) from error
    except OSError as error:
        raise DownloadError(f"Cannot download {what}: {_first_line(error)} {advice}") from error


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
    return line if line.endswith(".") else f"{line}."


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _page(repo: str) -> str:
    return f"{_endpoint()}/datasets/{repo}"
