"""``hound corpus download``: files of the hub into one folder; what is here is kept, what broke off goes on.

huggingface_hub does the transfer (``HF_ENDPOINT``, ``HF_TOKEN`` and its other variables hold): a file appears under its
name when it is complete, and a partial one lies in ``.cache/huggingface`` until the next run goes on with it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hound_plugin.corpus.files import readable_size
from hound_plugin.corpus.schema import Corpus
from hound_plugin.errors import DownloadError

_BATCH = 50  # paths in one question to the hub
_PAUSE = 2.0  # seconds before another try, doubled each time


@dataclass(frozen=True)
class Item:
    """One file to fetch: where it lies on the hub, its exact size there, and the folder that it goes under."""

    repo: str
    name: str
    size: int
    root: Path

    @property
    def place(self) -> Path:
        """Its path here."""
        return self.root / self.name

    @property
    def is_here(self) -> bool:
        """Whether it is here in full."""
        return self.place.is_file() and self.place.stat().st_size == self.size


def download(folder: Path, corpora: Sequence[Corpus], revision: str = "main", retries: int = 5) -> list[Path]:
    """Fetch the files of ``corpora`` that are not here yet.

    Args:
        folder: the folder for everything; made if missing.
        corpora: what to fetch.
        revision: branch, tag or commit on the hub.
        retries: how often a file whose transfer broke off is taken up again before this gives up.

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

    items = []
    for corpus in corpora:
        sizes: dict[str, int] = {}
        with _in_words(corpus.repo):
            for start in range(0, len(corpus.files), _BATCH):
                names = list(corpus.files[start : start + _BATCH])
                found = HfApi().get_paths_info(corpus.repo, names, repo_type="dataset", revision=revision)
                sizes.update((entry.path, entry.size) for entry in found if hasattr(entry, "size"))
        absent = [name for name in corpus.files if name not in sizes]
        if absent:
            raise DownloadError(
                f"Expected {', '.join(absent[:3])}{' and others' if absent[3:] else ''} in the data set {corpus.repo} "
                f"at revision {revision!r}; the hub has no such file ({len(absent)} of {len(corpus.files)} of corpus "
                f"{corpus.id} missing). Look at {_page(corpus.repo)}/tree/{revision} or name another --revision."
            )
        items += [Item(corpus.repo, name, sizes[name], folder / corpus.root) for name in corpus.files]
    return items


def check_space(folder: Path, missing: Sequence[Item]) -> None:
    """Make sure that ``missing`` fits on the disk; what was fetched of it in an earlier run is counted.

    Raises:
        DownloadError: it does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = sum(path.stat().st_size for root in {item.root for item in missing} for path in _partial_files(root))
    needed = max(0, sum(item.size for item in missing) - partial)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"Expected {readable_size(needed)} of free space for {len(missing)} files under {folder}; there are "
            f"{readable_size(free)}. Free some, choose fewer corpora with --only, or another disk with --folder. "
            "Archives that are extracted already may be removed."
        )


def _partial_files(root: Path) -> Iterator[Path]:
    return (root / ".cache" / "huggingface").rglob("*.incomplete")


def _fetch(item: Item, revision: str, retries: int) -> None:
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(retries + 1):
        try:
            with _in_words(item.repo, item.name):
                hf_hub_download(item.repo, item.name, repo_type="dataset", revision=revision, local_dir=item.root)
            break
        except DownloadError as error:
            cause = error.__cause__
            passing = isinstance(cause, httpx.TransportError | ConnectionError) or (
                isinstance(cause, HfHubHTTPError) and cause.response is not None and cause.response.status_code >= 500
            )
            if not passing or attempt == retries:
                raise
            print(f"hound: {item.name} broke off ({cause}); going on with it", file=sys.stderr)
            time.sleep(_PAUSE * 2**attempt)
    if not item.is_here:
        raise DownloadError(
            f"Expected {item.size} bytes in {item.place}; there are "
            f"{item.place.stat().st_size if item.place.is_file() else 'none'}. Remove the file and download it again."
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
