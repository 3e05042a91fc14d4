"""``hound corpus download``: files of the hub into one folder; what is here is kept, what broke off goes on.

huggingface_hub does names, sizes, logins and errors (``HF_ENDPOINT``, ``HF_TOKEN`` and its other variables hold). The
bytes are fetched here, because its own download begins every file anew after a run that was killed (see
huggingface/huggingface_hub#4196, open with 1.33), and archives have 10 GB: a partial file ``.name.<digest>.part``
grows from run to run, and gets its name when size and digest are the hub's.
"""

from __future__ import annotations

import glob
import hashlib
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
from hound_plugin.records.files import hold, publish

_BATCH = 50  # paths in one question to the hub
_BLOCK = 1 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds before another try
_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Item:
    """One file to fetch.

    Attributes:
        repo, name: where it lies on the hub.
        size: its bytes there.
        digest: SHA-256 of its content (large files) or git's SHA-1 of it, as hexadecimal digits.
        root: the folder that it goes under.
    """

    repo: str
    name: str
    size: int
    digest: str
    root: Path

    @property
    def place(self) -> Path:
        """Its path here."""
        return self.root / self.name

    @property
    def is_here(self) -> bool:
        """Whether it is here in full."""
        return self.place.is_file() and self.place.stat().st_size == self.size

    @property
    def part(self) -> Path:
        """What of it was fetched so far; another content on the hub has another name here."""
        return self.place.with_name(f".{self.place.name}.{self.digest[:12]}.part")


def download(folder: Path, corpora: Sequence[Corpus], revision: str = "main", retries: int = 5) -> list[Path]:
    """Fetch the files of ``corpora`` that are not here yet.

    Args:
        folder: the folder for everything; made if missing.
        corpora: what to fetch.
        revision: branch, tag or commit on the hub.
        retries: how often a transfer is tried again that brought nothing.

    Returns:
        The paths of all files of ``corpora``, in order.

    Raises:
        DownloadError: the hub cannot be reached, is gated or lacks a file, or there is too little space. Sizes are
            asked for and space is checked before the first byte is fetched.
    """
    items = plan(folder, corpora, revision)
    missing = [item for item in items if not item.is_here]
    if missing:
        check_space(folder, missing)
        total = readable_size(sum(item.size for item in missing))
        print(f"{len(missing)} of {len(items)} files to fetch, {total}", file=sys.stderr)
    for item in missing:
        _fetch(item, revision, retries)
    return [item.place for item in items]


def plan(folder: Path, corpora: Sequence[Corpus], revision: str = "main") -> list[Item]:
    """Ask the hub for the sizes of the files of ``corpora``.

    Raises:
        DownloadError: the hub cannot be reached or is gated, or a file is not there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    items: list[Item] = []
    for corpus in corpora:
        known: dict[str, Item] = {}
        with _in_words(corpus.repo):
            for start in range(0, len(corpus.files), _BATCH):
                names = list(corpus.files[start : start + _BATCH])
                found = HfApi().get_paths_info(corpus.repo, names, repo_type="dataset", revision=revision)
                for entry in found:
                    if isinstance(entry, RepoFile):
                        digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
                        known[entry.path] = Item(corpus.repo, entry.path, entry.size, digest, folder / corpus.root)
        absent = [name for name in corpus.files if name not in known]
        if absent:
            raise DownloadError(
                f"Expected {', '.join(absent[:3])}{' and others' if absent[3:] else ''} in the data set {corpus.repo} "
                f"at revision {revision!r}; the hub has no such file ({len(absent)} of {len(corpus.files)} of corpus "
                f"{corpus.id} missing). Look at {_page(corpus.repo)}/tree/{revision} or name another --revision."
            )
        items += [known[name] for name in corpus.files]
    return items


def check_space(folder: Path, missing: Sequence[Item]) -> None:
    """Make sure that ``missing`` fits on the disk; what was fetched of it in an earlier run is counted.

    Raises:
        DownloadError: it does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(item.size - (item.part.stat().st_size if item.part.exists() else 0) for item in missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"Expected {readable_size(needed)} of free space for {len(missing)} files under {folder}; there are "
            f"{readable_size(free)}. Free some, choose fewer corpora with --only, or another disk with --folder. "
            "Archives that are extracted already may be removed."
        )


def _fetch(item: Item, revision: str, retries: int) -> None:
    """Fetch one file, over as many transfers as it takes while each brings something."""
    item.place.parent.mkdir(parents=True, exist_ok=True)
    with _alone(item) as part:
        barren, backoff = 0, Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, warn=lambda line: print(line, file=sys.stderr))
        while True:
            before = part.seek(0, os.SEEK_END)
            try:
                with _in_words(item.repo, item.name):
                    _transfer(item, revision, part)
                break
            except DownloadError as error:
                barren = 0 if part.seek(0, os.SEEK_END) > before else barren + 1
                if not _is_passing(error.__cause__) or barren > retries:
                    raise
                print(f"hound: {item.name} broke off ({error.__cause__}); going on with it", file=sys.stderr)
                time.sleep(backoff.delay(max(1, barren), _retry_after(error.__cause__)))
        _finish(item, part)


@contextmanager
def _alone(item: Item) -> Iterator[FileIO]:
    """The partial file, locked against other runs; partial files of an older content are removed."""
    try:
        lock = hold(item.place.with_name(f".{item.place.name}.lock"))
    except InUseError as error:
        raise DownloadError(
            f"{item.place} is being fetched by another process. Wait for it, or end it, and run the command again."
        ) from error
    try:
        for old in item.place.parent.glob(f".{glob.escape(item.place.name)}.*.part"):
            if old != item.part:
                old.unlink()
        with item.part.open("ab", buffering=0) as part:
            yield part
    finally:
        lock.release(remove=True)


def _transfer(item: Item, revision: str, part: FileIO) -> None:
    """Append what is missing; a server that begins anew is followed."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
    from tqdm import tqdm

    here = part.seek(0, os.SEEK_END)
    if here > item.size:
        part.truncate(here := 0)
    if here == item.size:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={here}-"} if here else {})}
    address = hf_hub_url(item.repo, item.name, repo_type="dataset", revision=revision)
    with (
        get_session().stream("GET", address, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as response,
        tqdm(total=item.size, unit="B", unit_scale=True, desc=item.place.name, disable=None) as bar,
    ):
        hf_raise_for_status(response)
        if response.status_code != 206:
            part.truncate(here := 0)
        bar.update(here)
        for block in response.iter_raw():
            part.write(block)
            bar.update(len(block))


def _finish(item: Item, part: FileIO) -> None:
    """Compare size and digest with the hub's and give the file its name."""
    size = part.seek(0, os.SEEK_END)
    if size != item.size or _digest(item) != item.digest:
        part.truncate(0)
        raise DownloadError(
            f"Expected {item.size} bytes with digest {item.digest[:12]} for {item.name} of {item.repo}; {size} bytes "
            "of another content came, and were thrown away. Run the command again; if it repeats, a proxy or mirror "
            "(HF_ENDPOINT) changes files."
        )
    publish(item.part, item.place)


def _digest(item: Item) -> str:
    """SHA-256, or what git calls the file: SHA-1 of a header and the content."""
    digest = hashlib.sha256() if len(item.digest) == 64 else hashlib.sha1(f"blob {item.size}\0".encode())
    with item.part.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _retry_after(cause: BaseException | None) -> float | None:
    """Seconds that the hub asks to wait, where it does."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(cause, HfHubHTTPError) and cause.response is not None:
        return parse_retry_after(cause.response.headers)
    return None


def _is_passing(cause: BaseException | None) -> bool:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(cause, HfHubHTTPError):
        return cause.response is not None and (cause.response.status_code >= 500 or cause.response.status_code == 429)
    return isinstance(cause, httpx.TransportError | ConnectionError) and not isinstance(
        cause, httpx.UnsupportedProtocol
    )


@contextmanager
def _in_words(repo: str, name: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that says what to do."""
    import httpx
    from huggingface_hub import errors as hub

    what = f"{name} of the data set {repo}" if name else f"the data set {repo}"
    later = "What was fetched is kept; the same command goes on with it."
    try:
        yield
    except hub.GatedRepoError as error:
        raise DownloadError(
            f"Cannot fetch {what}: it is gated. Accept its conditions on {_page(repo)}, then run `hf auth login` or "
            "set HF_TOKEN."
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise DownloadError(
            f"Cannot fetch {what}: the hub at {_endpoint()} does not have it, or it is private. If it is private, run "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise DownloadError(f"Cannot fetch {what}: there is no such revision. Leave --revision out.") from error
    except (hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError) as error:
        raise DownloadError(
            f"Cannot reach the hub at {_endpoint()} for {what}: {_first_line(error)} Check the network and "
            f"HF_ENDPOINT, and unset HF_HUB_OFFLINE. {later}"
        ) from error
    except hub.EntryNotFoundError as error:
        raise DownloadError(f"Cannot fetch {what}: the hub has no such file. See {_page(repo)}/tree/main.") from error
    except hub.HfHubHTTPError as error:
        raise DownloadError(f"Cannot fetch {what}: the hub said {_first_line(error)} {later}") from error
    except httpx.HTTPError as error:
        raise DownloadError(
            f"Cannot reach the hub at {_endpoint()} for {what}: {_first_line(error)} Check the network and "
            f"HF_ENDPOINT. {later}"
        ) from error
    except OSError as error:
        raise DownloadError(f"Cannot fetch {what}: {_first_line(error)} {later}") from error


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
    return line if line.endswith(".") else f"{line}."


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _page(repo: str) -> str:
    return f"{_endpoint()}/datasets/{repo}"
