"""Thousands of clips in one process: memory and open files stay as they are after the first ones."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from hound_plugin.errors import EnvironmentMismatchError, MediaDecodeError
from hound_plugin.media.backends import DECODERS, choose
from hound_plugin.media.decode import read_clip
from hound_plugin.media.worker import _stop
from tests.media.clips import encode

pytestmark = pytest.mark.long

DECODES = 5_000
GROWTH = 12 << 20
"""Bytes by which allocators may still settle; one frame kept by each decode would be 46 MB, one clip 369 MB."""


def resident() -> int:
    """Bytes of memory of this process and its children."""
    gc.collect()
    pids = [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three whole clips and one that is cut short: refusing must not leak either."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{number}.mp4" for number in range(3)]
    for number, path in enumerate(paths):
        encode(str(path), width=64, height=48, frames=12 + number)
    (folder / "cut.mp4").write_bytes(paths[0].read_bytes()[:-200])
    return [*paths, folder / "cut.mp4"]


def decode_all(files: list[Path], decoder: str, timeout: float | None, number: int) -> int:
    refused = 0
    for turn in range(number):
        try:
            clip = read_clip(str(files[turn % len(files)]), decoder=decoder, timeout=timeout)
        except MediaDecodeError:
            refused += 1
        else:
            assert clip.frames.shape == (8, 48, 64, 3)
    return refused


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("timeout", [None, 60.0], ids=["here", "in a child"])
@pytest.mark.parametrize("decoder", [name for name in DECODERS if name != "auto"])
def test_memory_and_handles_stay_flat(decoder: str, timeout: float | None, files: list[Path]) -> None:
    try:
        choose(decoder)
    except EnvironmentMismatchError as error:
        pytest.skip(str(error))
    decode_all(files, decoder, timeout, 500)
    memory, open_files = resident(), handles()
    refused = decode_all(files, decoder, timeout, DECODES)
    grown, left = resident() - memory, handles() - open_files
    print(f"{decoder}: {DECODES} decodes, {refused} refused, memory {grown / 2**20:+.1f} MiB, handles {left:+d}")
    _stop()
    assert refused == DECODES // len(files)
    assert grown < GROWTH
    assert left <= 0
