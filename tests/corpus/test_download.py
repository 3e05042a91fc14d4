"""``hound corpus download`` against a real server: what lands where, what breaks off, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hound_plugin.corpus import download as module
from hound_plugin.corpus.download import Item, check_space
from hound_plugin.errors import DownloadError
from tests.corpus.conftest import Run, environment
from tests.corpus.hub import Hub, entry

TRAIN = "ShareGPTVideo/train_video_and_instruction"
DPO = "video_instruction/train/dpo/sft_dpo_17k.jsonl"
CHUNK = "train_300k/chunk_3.tar.gz"


def big(hub: Hub, size: int = 3_000_000) -> bytes:
    """Make one archive large enough to be cut: content does not matter here."""
    content = os.urandom(size)
    hub.files[TRAIN][CHUNK] = content
    return content


def test_records_archives_and_a_second_run(run: Run, hub: Hub, tmp_path: Path) -> None:
    done = run("download", "--only", "dpo_17k", "test_msvd*", "--with-media", hub=hub)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / DPO).read_bytes() == hub.files[TRAIN][DPO]
    for index in range(16):
        name = f"train_300k/chunk_{index}.tar.gz"
        assert (tmp_path / "data" / "archives" / name).read_bytes() == hub.files[TRAIN][name]
    assert (tmp_path / "data/archives/video_data/test/msvd.tar.gz").is_file()
    assert (tmp_path / "data/video_instruction/test/msvd.qa.official.jsonl").is_file()
    hub.requests.clear()
    assert run("download", "--only", "dpo_17k", "frames_300k", hub=hub).returncode == 0
    assert not [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    listed = {entry["id"]: entry for entry in json.loads(run("list", "--json").stdout)}
    assert listed["frames_300k"]["downloaded"] == 16
    assert listed["dpo_17k"]["downloaded"] == 1
    assert listed["frames_600k"]["downloaded"] == 0


def test_a_changed_size_is_fetched_again(run: Run, hub: Hub, tmp_path: Path) -> None:
    place = tmp_path / "data" / DPO
    place.parent.mkdir(parents=True)
    place.write_bytes(hub.files[TRAIN][DPO][:100])
    assert run("download", "--only", "dpo_17k", hub=hub).returncode == 0
    assert place.read_bytes() == hub.files[TRAIN][DPO]


@pytest.mark.parametrize("content", ["another revision", "space that another program reserved"])
def test_a_file_of_the_right_size_is_compared(content: str, run: Run, hub: Hub, tmp_path: Path) -> None:
    size, path = len(hub.files[TRAIN][DPO]), tmp_path / "data" / DPO
    if content == "another revision":
        assert run("download", "--only", "dpo_17k", hub=hub).returncode == 0
        hub.files[TRAIN][DPO] = hub.files[TRAIN][DPO].replace(b"A car.", b"A bus.")
    else:
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))
    done = run("download", "--only", "dpo_17k", hub=hub)
    assert "is not the hub's file of that size; it is replaced" in done.stderr
    assert path.read_bytes() == hub.files[TRAIN][DPO]
    assert path.stat().st_size == size
    count = len(hub.gets(DPO))
    done = run("download", "--only", "dpo_17k", hub=hub)
    assert (done.returncode, done.stderr, len(hub.gets(DPO))) == (0, "", count), "it was compared once"


def test_a_cut_connection_is_taken_up_within_a_run(run: Run, hub: Hub, tmp_path: Path) -> None:
    content = big(hub)
    hub.cuts[CHUNK] = [1_500_000]
    done = run("download", "--only", "frames_300k", hub=hub)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "archives" / CHUNK).read_bytes() == content
    assert hub.gets(CHUNK) == [None, "bytes=1500000-"]


def test_a_killed_download_goes_on_in_the_next_run(run: Run, hub: Hub, tmp_path: Path) -> None:
    content = big(hub, 3_500_000)
    hub.cuts[CHUNK] = [2_500_000, *[0] * 20]  # the rest does not come, and the client keeps asking
    command = [sys.executable, "-m", "hound_plugin.cli", "corpus", "download", "--only", "frames_300k"]
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment(hub, HF_HOME=str(tmp_path / "hf")), stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 30
        while len(hub.gets(CHUNK)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    archives = tmp_path / "data" / "archives"
    (part,) = (archives / "train_300k").glob(".chunk_3.tar.gz.*.part")
    size = part.stat().st_size
    assert size == 2_500_000
    assert not (archives / CHUNK).exists()
    hub.cuts.clear()
    hub.requests.clear()
    done = run("download", "--only", "frames_300k", hub=hub)
    assert done.returncode == 0, done.stderr
    assert hub.gets(CHUNK) == [f"bytes={size}-"]
    assert (archives / CHUNK).read_bytes() == content
    assert not list(archives.rglob("*.part"))


def test_large_files_come_from_another_host_which_never_sees_the_token(run: Run, hub: Hub, tmp_path: Path) -> None:
    content = big(hub)
    hub.redirecting = True
    hub.cuts[CHUNK] = [2_000_000]
    done = run("download", "--only", "frames_300k", hub=hub, HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "archives" / CHUNK).read_bytes() == content
    ranges = [part for method, path, part in hub.requests if method == "GET" and path == f"/cdn/{TRAIN}//{CHUNK}"]
    assert ranges == [None, "bytes=2000000-"]
    assert {token for _, token in hub.tokens} == {"Bearer hf_secret"}
    assert not [path for path, _ in hub.tokens if path.startswith("/cdn/")]
    assert "hf_secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("path", [DPO, CHUNK])
def test_a_partial_file_of_other_content_is_thrown_away(path: str, run: Run, hub: Hub, tmp_path: Path) -> None:
    """Both kinds of digest: git's own for small text files, SHA-256 for archives."""
    only = "dpo_17k" if path == DPO else "frames_300k"
    root = tmp_path / "data" / ("" if path == DPO else "archives")
    content = hub.files[TRAIN][path]
    known = entry(path, content)
    digest = known.get("lfs", known)["oid"]
    part = (root / path).with_name(f".{Path(path).name}.{digest[:12]}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(100))
    done = run("download", "--only", only, hub=hub)
    assert done.returncode == 1
    assert "other content, which were discarded" in done.stderr
    assert not (root / path).exists()
    assert run("download", "--only", only, hub=hub).returncode == 0
    assert (root / path).read_bytes() == content


def test_two_runs_at_once(tmp_path: Path) -> None:
    item = Item("owner/name", "a.bin", 5, "0" * 64, tmp_path)
    item.part.write_bytes(b"123")
    (tmp_path / ".a.bin.older.part").write_bytes(b"1")
    with (
        module._locked_part(item) as part,
        pytest.raises(DownloadError, match="downloaded by another process"),
        module._locked_part(replace(item, digest="1" * 64)),  # of another revision: must not throw the first one's away
    ):
        pass
    assert part.closed
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(item.part.name, b"123")]


def test_an_error_of_the_server_is_tried_again(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.failing[DPO] = [500]
    done = run("download", "--only", "dpo_17k", hub=hub)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / DPO).read_bytes() == hub.files[TRAIN][DPO]


def test_the_hub_says_how_long_to_wait(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.failing[DPO], hub.retry_after = [429], 2
    done = run("download", "--only", "dpo_17k", hub=hub)
    assert done.returncode == 0, done.stderr
    first, second = (at for (method, name, _), at in zip(hub.requests, hub.times, strict=True)
                     if method == "GET" and name.endswith(DPO))  # fmt: skip
    assert 2 <= second - first < 2 + 3
    assert (tmp_path / "data" / DPO).read_bytes() == hub.files[TRAIN][DPO]


def test_what_the_hub_lacks_is_named_before_anything_is_fetched(run: Run, hub: Hub) -> None:
    del hub.files[TRAIN]["train_300k/chunk_5.tar.gz"]
    done = run("download", "--only", "dpo_17k", "frames_300k", hub=hub)
    assert done.returncode == 1
    assert "Expected train_300k/chunk_5.tar.gz in the data set" in done.stderr
    assert "the hub does not have it (1 of 16 of corpus frames_300k missing)" in done.stderr
    assert not hub.gets(DPO)


def test_a_gated_repository(run: Run, hub: Hub) -> None:
    hub.gated.add(TRAIN)
    done = run("download", "--only", "dpo_17k", hub=hub)
    assert done.returncode == 1
    assert f"Accept its conditions on {hub.address}/datasets/{TRAIN}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_repository_that_is_not_there(run: Run, hub: Hub) -> None:
    del hub.files["Vision-Flan/vision-flan_191-task_1k"]
    done = run("download", "--only", "images_vflan", hub=hub)
    assert done.returncode == 1
    assert "does not have it, or it is private" in done.stderr


@pytest.mark.parametrize("offline", [False, True])
def test_no_network(offline: bool, run: Run) -> None:
    extra = {} if offline else {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run("download", "--only", "dpo_17k", "--retries", 0, **extra)
    assert done.returncode == 1
    assert "Cannot reach the hub" in done.stderr
    assert "HF_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_and_missing_ids(run: Run) -> None:
    done = run("download", "--only", "dpo_18k")
    assert done.returncode == 2
    assert "got 'dpo_18k'. Known ids: video_caption_pretrain" in done.stderr
    assert run("download").returncode == 2


def test_free_space_is_checked_before_the_first_byte(run: Run, hub: Hub, tmp_path: Path) -> None:
    filled = tmp_path / "sitecustomize"
    filled.mkdir()
    (filled / "sitecustomize.py").write_text(
        "import shutil, collections\n"
        "shutil.disk_usage = lambda path: collections.namedtuple('u', 'total used free')(10**9, 10**9 - 100, 100)\n"
    )
    done = run(
        "download", "--only", "dpo_17k", hub=hub, PYTHONPATH=f"{filled}{os.pathsep}{environment()['PYTHONPATH']}"
    )
    assert done.returncode == 1
    assert "of free space for 1 files under data; there is 100 B" in done.stderr
    assert not hub.gets(DPO)


def test_what_was_fetched_before_needs_no_space_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000})())
    item = Item("owner/name", "a.bin", 5_000, "0" * 64, tmp_path)
    with pytest.raises(DownloadError, match=r"Expected 5 kB of free space .* there is 1 kB"):
        check_space(tmp_path, [item])
    item.part.write_bytes(bytes(4_500))
    check_space(tmp_path, [item])
