"""Archives to folders: what is refused, what a killed run leaves, and what the next one does."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hound_plugin.corpus import extract as module
from hound_plugin.corpus.archive import Limits, unpack
from hound_plugin.corpus.extract import Job, extract, jobs
from hound_plugin.corpus.schema import select
from hound_plugin.errors import ArchiveError
from tests.corpus.conftest import Run, environment
from tests.corpus.hub import clips, frame, small_hub, tar_gz, zipped

Tar = Callable[[tarfile.TarFile], None]


def tree(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder, our own state left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".hound" not in path.parts
    }


def write_tar(path: Path, fill: Tar, mode: str = "w:gz", format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=format) as tar:  # type: ignore[call-overload]
        fill(tar)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content) if info.isreg() else None)


def link(kind: bytes, target: str) -> Tar:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "clip/good.jpeg")
        add(tar, "clip/evil", b"", type=kind, linkname=target)
        add(tar, "clip/evil/passwd", b"owned")

    return fill


def named(name: str, **fields: object) -> Tar:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "clip/good.jpeg")
        add(tar, name, **fields)  # type: ignore[arg-type]

    return fill


BAD_TARS: dict[str, tuple[Tar, str]] = {
    "symbolic link outside": (link(tarfile.SYMTYPE, "/etc"), "is a symbolic link"),
    "symbolic link inside": (link(tarfile.SYMTYPE, "good.jpeg"), "is a symbolic link"),
    "hard link": (link(tarfile.LNKTYPE, "clip/good.jpeg"), "is a hard link"),
    "character device": (link(tarfile.CHRTYPE, ""), "is a character device"),
    "block device": (link(tarfile.BLKTYPE, ""), "is a block device"),
    "pipe": (link(tarfile.FIFOTYPE, ""), "is a pipe"),
    "absolute path": (named("/tmp/evil"), "has an absolute path"),
    "parent": (named("../evil"), "leads outside the folder"),
    "parent inside": (named("clip/../../evil"), "leads outside the folder"),
    "our markers": (named(".hound/x.json"), "is reserved for markers"),
    "a file and a folder": (named("clip/good.jpeg/evil"), "is a file and a folder at once"),
    "a folder as a file": (named("clip"), "is a file and a folder at once"),
    "a name that is too long": (named("clip/" + "n" * 300), "cannot be written"),
}


@pytest.mark.parametrize("kind", BAD_TARS)
def test_a_malicious_archive_leaves_nothing(kind: str, tmp_path: Path) -> None:
    fill, reason = BAD_TARS[kind]
    bad = write_tar(tmp_path / "archives" / "bad.tar.gz", fill)
    good = tmp_path / "archives" / "good.tar.gz"
    good.write_bytes(tar_gz(clips(["v_good"])))
    target = tmp_path / "frames"
    before = set(os.listdir(tmp_path))
    with pytest.raises(ArchiveError, match=r"1 of 2 archives were not extracted: ") as caught:
        extract([Job(bad, target), Job(good, target)], processes=1)
    assert str(bad) in str(caught.value)
    assert reason in str(caught.value)
    assert set(tree(target)) == {"v_good/c01_0000.jpeg", "v_good/c01_0001.jpeg"}
    assert set(os.listdir(tmp_path)) - before == {"frames"}
    state = {path.name for path in (target / ".hound").iterdir()}
    good_state = {f"archives-good.tar.gz.{kind}" for kind in ("lock", "json", "files")} | {"merge.lock"}
    assert state == {"archives-bad.tar.gz.lock", *good_state}


def zip_with(name: str, mode: int = 0, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("good.jpeg", b"x")
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = mode << 16
        packed.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zip_with("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), "is a symbolic link"),
        (zip_with("pipe", stat.S_IFIFO | 0o644), "is a special file"),
        (zip_with("../evil"), "leads outside the folder"),
        (zip_with("/evil"), "has an absolute path"),
    ],
)
def test_a_malicious_zip(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=reason):
        unpack(tmp_path / "a.zip", tmp_path / "out", Limits())
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(member=999), "one file may have 999 B"),
        (Limits(total=1_999), "an archive may have 2 kB"),
        (Limits(members=1), "is member 2 of at most 1"),
    ],
)
def test_limits(limits: Limits, reason: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_gz({"a/1.jpeg": bytes(1_000), "a/2.jpeg": bytes(1_000)}))
    with pytest.raises(ArchiveError, match=reason):
        unpack(archive, tmp_path / "out", limits)
    assert unpack(archive, tmp_path / "again", Limits(1_000, 2_000, 2)).size == 2_000


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_decompression_bomb(kind: str, tmp_path: Path) -> None:
    archive = tmp_path / f"bomb.{kind}"
    content = bytes(30_000_000)
    archive.write_bytes(tar_gz({"zeros": content}) if kind == "tar.gz" else zip_with("zeros", 0, content))
    with pytest.raises(ArchiveError, match="more than 20 times the archive: a decompression bomb"):
        unpack(archive, tmp_path / "out", Limits(ratio=20))
    assert not any((tmp_path / "out").rglob("zeros"))


def test_a_header_that_would_fill_the_memory(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200_000_000
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(2_000_000))
    with pytest.raises(ArchiveError, match="a header of 200 MB"):
        unpack(archive, tmp_path / "out", Limits())


def test_damage_is_told(tmp_path: Path) -> None:
    whole = tar_gz({f"a/{index}.jpeg": frame(index) for index in range(20)})
    for name, content in {
        "short": whole[: len(whole) // 2],
        "empty": b"",
        "no archive": b"hello, world" * 100,
        "checksum": whole[:-8] + bytes(4) + whole[-4:],
    }.items():
        archive = tmp_path / f"{name}.tar.gz"
        archive.write_bytes(content)
        with pytest.raises(ArchiveError, match="damaged or cut short; remove it and download it again"):
            unpack(archive, tmp_path / name, Limits())
    padded = bytearray(gzip.compress(gzip.decompress(whole) + bytes(3_000_000)))
    padded[-8:-4] = bytes(4)
    (tmp_path / "padded.tar.gz").write_bytes(padded)
    with pytest.raises(ArchiveError, match="CRC check failed"):
        unpack(tmp_path / "padded.tar.gz", tmp_path / "padded", Limits())
    broken = tmp_path / "a.zip"
    broken.write_bytes(zipped({"a": b"x" * 100})[:-10])
    with pytest.raises(ArchiveError, match="damaged or cut short"):
        unpack(broken, tmp_path / "zip", Limits())


def test_endless_padding_is_not_read(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(gzip.decompress(tar_gz(clips(["v_1"]))) + bytes(9_000_000)))
    with pytest.raises(ArchiveError, match=r"more than 4\.19 MB of zeros follow the last member"):
        unpack(archive, tmp_path / "out", Limits())


def test_modes_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", named("clip/tool", mode=0o4777, uid=1, mtime=0), "w")
    unpack(archive, tmp_path / "out", Limits())
    status = (tmp_path / "out" / "clip" / "tool").stat()
    assert stat.S_IMODE(status.st_mode) & 0o7133 == 0
    assert status.st_uid == os.getuid()


def test_plain_tar_and_long_names(tmp_path: Path) -> None:
    name = "clip/" + "n" * 180 + ".jpeg"
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        archive = write_tar(tmp_path / f"{format}.tar", named(name), "w", format)
        assert unpack(archive, tmp_path / str(format), Limits()).files == 2
        assert (tmp_path / str(format) / name).is_file()


def test_everything_downloaded_is_extracted_once(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for corpus in select(["frames_300k", "frames_test_msvd", "images_allava", "images_vflan"]):
        for name, place in zip(corpus.files, corpus.paths(), strict=True):
            (data / place).parent.mkdir(parents=True, exist_ok=True)
            (data / place).write_bytes(small_hub().files[corpus.repo][name])
    done = run("extract", "--processes", 2)
    assert done.returncode == 0, done.stderr
    assert "28 archives extracted, 0 already were; media_dir: data/frames" in done.stdout
    found = tree(data / "frames")
    assert found["v_3_b/c01_0001.jpeg"] == clips(["v_3_b"])["v_3_b/c01_0001.jpeg"]
    assert found["test/msvd/clip/c01_0000.jpeg"]
    assert found["allava_laion/images/7.jpeg"] == frame(7)
    assert found["allava_vflan/images/images_191task_1k/a.jpg"] == frame(99)
    assert len(found) == 16 * 2 * 2 + 2 + 10 + 1
    times = {path: path.stat().st_mtime_ns for path in (data / "frames").rglob("*")}
    again = run("extract")
    assert "0 archives extracted, 28 already were" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (data / "frames").rglob("*")} == times
    (data / "archives" / "train_300k" / "chunk_2.tar.gz").unlink()  # extracted archives may go
    listed = {entry["id"]: entry for entry in json.loads(run("list", "--json").stdout)}
    assert (listed["frames_300k"]["downloaded"], listed["frames_300k"]["extracted"]) == (15, 16)


@pytest.mark.parametrize("gone", ["everything", "a clip", "the frames of a clip"])
def test_what_was_removed_is_extracted_again(gone: str, run: Run, tmp_path: Path) -> None:
    """`rm -rf data/frames/*` leaves the hidden folder with the markers."""
    archive = tmp_path / "data/archives/train_300k/chunk_3.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(tar_gz(clips(["v_1", "v_2"], frames=3)))
    assert run("extract").returncode == 0
    frames = tmp_path / "data/frames"
    before = {path: path.read_bytes() for path in frames.rglob("*.jpeg")}
    for name in ["v_1", "v_2"] if gone == "everything" else ["v_2"]:
        shutil.rmtree(frames / name)
    if gone == "the frames of a clip":
        (frames / "v_2").mkdir()
        (frames / "v_2" / "notes.txt").touch()
    done = run("extract")
    assert "1 archives extracted, 0 already were" in done.stdout
    assert "is gone since; extracting it again" in done.stderr
    assert {path: path.read_bytes() for path in frames.rglob("*.jpeg")} == before
    assert "0 archives extracted, 1 already were" in run("extract").stdout


def test_nothing_downloaded(run: Run) -> None:
    done = run("extract", "--only", "frames_300k")
    assert done.returncode == 1
    assert "hound corpus download --only" in done.stderr


def test_a_changed_archive_is_extracted_again(tmp_path: Path) -> None:
    archive = tmp_path / "a" / "chunk_0.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(tar_gz(clips(["v_1"])))
    job = Job(archive, tmp_path / "frames")
    assert extract([job], 1) == 1
    assert extract([job], 1) == 0
    archive.write_bytes(tar_gz({"v_1/c01_0000.jpeg": b"new", "v_2/c01_0000.jpeg": b"more"}))
    assert extract([job], 1) == 1
    assert tree(tmp_path / "frames") == {"v_1/c01_0000.jpeg": b"new", "v_2/c01_0000.jpeg": b"more"}


NEWER: dict[str, tuple[dict[str, bytes], bool]] = {
    "fewer frames": ({"v_1/1.jpg": b"1"}, False),
    "without a clip": ({"v_2/1.jpg": b"3", "v_2/2.jpg": b"4"}, False),
    "other frames": ({"v_1/1.jpg": b"new", "v_1/7.jpg": b"7", "v_3/deep/1.jpg": b"5"}, False),
    "flattened": ({"v_1/1.jpg": b"1"}, True),
}


@pytest.mark.parametrize("kind", NEWER)
def test_files_that_a_newer_archive_no_longer_has_are_removed(kind: str, tmp_path: Path) -> None:
    newer, flatten = NEWER[kind]
    target, older = tmp_path / "frames", {"v_1/1.jpg": b"1", "v_1/2.jpg": b"2", "v_2/3.jpg": b"3", "v_2/4.jpg": b"4"}
    work = [Job(tmp_path / "a.zip", target, flatten), Job(tmp_path / "b.zip", target, flatten)]
    for job, members in zip(work, (older, {"v_1/2.jpg": b"2", "v_9/9.jpg": b"9"}), strict=True):  # one file is in both
        job.archive.write_bytes(zipped(members))
        assert extract([job], 1) == 1
    own = "own.txt" if flatten else "v_2/own.txt"
    (target / own).write_bytes(b"mine")
    work[0].archive.write_bytes(zipped(newer))
    assert extract([work[0]], 1) == 1
    kept = {**newer, "v_1/2.jpg": b"2", "v_9/9.jpg": b"9"}
    kept = {name.split("/")[-1] if flatten else name: data for name, data in kept.items()}
    assert tree(target) == {**kept, own: b"mine"}
    assert extract(work, 1) == 0


@pytest.mark.parametrize("moved", [1, 3, 6])
def test_an_archive_that_is_replaced_after_a_kill_leaves_nothing_of_the_first(moved: int, tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "frames"
    archive.write_bytes(tar_gz({f"v_{index}/c01_0000.jpeg": frame(index) for index in range(8)}))
    command = [sys.executable, "-c", KILLED_IN_MERGE, str(archive), str(target), str(moved + 1)]
    assert subprocess.run(command, env=environment(), check=False, timeout=60).returncode == -signal.SIGKILL
    assert len(tree(target)) == moved
    archive.write_bytes(tar_gz({"v_0/c01_0000.jpeg": b"new", "v_9/c01_0000.jpeg": b"more"}))
    assert extract([Job(archive, target)], 1) == 1
    assert tree(target) == {"v_0/c01_0000.jpeg": b"new", "v_9/c01_0000.jpeg": b"more"}


def test_backslashes_of_old_programs_separate_folders(tmp_path: Path) -> None:
    members = {"v_1\\1.jpg": b"1", "v_1\\deep\\2.jpg": b"2", "v_2\\": b"", "3.jpg": b"3"}
    (tmp_path / "old.zip").write_bytes(zipped(members))
    assert unpack(tmp_path / "old.zip", tmp_path / "frames", Limits()).files == 3
    assert tree(tmp_path / "frames") == {"v_1/1.jpg": b"1", "v_1/deep/2.jpg": b"2", "3.jpg": b"3"}
    for name in ("..\\evil", "v_1\\..\\..\\evil", "\\evil", ".hound\\evil.json"):
        (tmp_path / "evil.zip").write_bytes(zipped({name: b"x"}))
        with pytest.raises(ArchiveError, match=r"leads outside|absolute path|reserved"):
            unpack(tmp_path / "evil.zip", tmp_path / "evil", Limits())
    (tmp_path / "mixed.zip").write_bytes(zipped({"v_1/1.jpg": b"1", "v_2\\2.jpg": b"2"}))
    with pytest.raises(ArchiveError, match="slashes and backslashes, such as"):
        unpack(tmp_path / "mixed.zip", tmp_path / "mixed", Limits())


def of_another_encoding(name: str, encoding: str, unicode_path: bool, checksum: int = 0) -> bytes:
    """A zip whose name is not marked as UTF-8, perhaps with the extra field in which Info-ZIP has it in UTF-8."""
    stored, text = name.encode(encoding), name.encode()
    info = zipfile.ZipInfo("x" * len(stored))
    if unicode_path:
        body = struct.pack("<BI", 1, zlib.crc32(stored) ^ checksum) + text
        info.extra = struct.pack("<HH", 0x5455, 1) + b"\0" + struct.pack("<HH", 0x7075, len(body)) + body
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr(info, b"1")
    return content.getvalue().replace(b"x" * len(stored), stored)


@pytest.mark.parametrize("encoding", ["utf-8", "shift_jis"])
def test_names_of_other_encodings_are_read_or_refused(encoding: str, tmp_path: Path) -> None:
    """As `zip` writes them on Linux and Windows; zipfile takes them for an old American code page."""
    name, archive = "\u6620\u50cf/1.jpg", tmp_path / "a.zip"
    archive.write_bytes(of_another_encoding(name, encoding, True))
    unpack(archive, tmp_path / "frames", Limits())
    assert tree(tmp_path / "frames") == {name: b"1"}
    for stale in (of_another_encoding(name, encoding, False), of_another_encoding(name, encoding, True, checksum=1)):
        archive.write_bytes(stale)
        with pytest.raises(ArchiveError, match="does not state the encoding of its name"):
            unpack(archive, tmp_path / "others", Limits())


def test_a_name_with_a_zero(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"v_1/aXb.jpg": b"1"}).replace(b"aXb", b"a\0b"))
    with pytest.raises(ArchiveError, match="has a zero"):
        unpack(archive, tmp_path / "frames", Limits())


def test_flattening_refuses_two_files_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"x/1.jpeg": b"a", "y/1.jpeg": b"b"}))
    with pytest.raises(ArchiveError, match="has the same name as another file"):
        unpack(tmp_path / "a.zip", tmp_path / "out", Limits(), flatten=True)


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_gz(clips(["v_1"])))
    with pytest.raises(ArchiveError, match=r"of free space under .*frames for 1 archives; there is 10 B"):
        extract([Job(archive, tmp_path / "frames")], 1)
    assert tree(tmp_path / "frames") == {}


# --- kill -9


def slow_archives(data: Path, size: int = 6_000) -> dict[str, bytes]:
    """A quick archive and one whose many members take a while."""
    content: dict[str, bytes] = {}
    for index, count in enumerate((2, size)):
        members = {f"v_{index}/c01_{number:05}.jpeg": f"{index}-{number}".encode() * 50 for number in range(count)}
        place = data / "archives" / "train_300k" / f"chunk_{index}.tar.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tar_gz(members))
        content |= members
    return content


def start_extraction(tmp_path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "hound_plugin.cli", "corpus", "extract", "--processes", "1"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to this"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_extraction_goes_on(run: Run, tmp_path: Path) -> None:
    content = slow_archives(tmp_path / "data")
    frames = tmp_path / "data" / "frames"
    partial = frames / ".hound" / "train_300k-chunk_1.tar.gz.partial" / "v_1"
    child = start_extraction(tmp_path)
    wait_for(lambda: partial.is_dir() and len(os.listdir(partial)) > 100)
    workers = children(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    wait_for(lambda: not any(alive(pid) for pid in workers))  # no orphan works on
    assert workers
    assert 100 < len(os.listdir(partial)) < 6_000
    assert set(tree(frames)) == {"v_0/c01_00000.jpeg", "v_0/c01_00001.jpeg"}  # whole archives only
    marker = frames / ".hound" / "train_300k-chunk_0.tar.gz.json"
    written = marker.stat().st_mtime_ns
    done = run("extract", "--processes", "1")
    assert done.returncode == 0, done.stderr
    assert "1 archives extracted, 1 already were" in done.stdout
    assert tree(frames) == content
    assert marker.stat().st_mtime_ns == written
    assert not [path for path in (frames / ".hound").iterdir() if path.suffix not in (".lock", ".json", ".files")]


KILLED_IN_MERGE = """
import os, signal, sys
from pathlib import Path
from hound_plugin.corpus import archive as archive_module
from hound_plugin.corpus import extract as module
count, rename = 0, module.rename
def counted(*names):
    global count
    count += 1
    if count > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*names)
module.rename = counted
module._extract_one(module.Job(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.parametrize("moved", [0, 1, 5, 10])
def test_killed_while_moving_into_place(moved: int, tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar.gz", tmp_path / "frames"
    members = {f"v_{index}/c01_0000.jpeg": frame(index) for index in range(10)}
    archive.write_bytes(tar_gz(members))
    (target / "v_3").mkdir(parents=True)  # a folder that is there already is merged into
    command = [
        sys.executable,
        "-c",
        KILLED_IN_MERGE,
        str(archive),
        str(target),
        str(moved + 1),
    ]  # one rename is that of the staging folder
    done = subprocess.run(command, env=environment(), check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(tree(target)) == moved
    assert all(members[name] == content for name, content in tree(target).items())
    job = Job(archive, target)
    assert not module._is_done(job)
    assert extract([job], 1) == 1
    assert tree(target) == members


def test_a_killed_worker_is_told(tmp_path: Path) -> None:
    slow_archives(tmp_path / "data")
    partial = tmp_path / "data/frames/.hound/train_300k-chunk_1.tar.gz.partial/v_1"
    child = subprocess.Popen(
        [sys.executable, "-m", "hound_plugin.cli", "corpus", "extract", "--processes", "1"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: partial.is_dir() and len(os.listdir(partial)) > 10)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(child.pid)}
    (worker,) = [pid for pid, command in commands.items() if b"spawn_main" in command]
    os.kill(worker, signal.SIGKILL)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "was killed (out of memory?); run the command again" in error


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    content = slow_archives(tmp_path / "data")
    partial = tmp_path / "data/frames/.hound/train_300k-chunk_1.tar.gz.partial/v_1"
    child = subprocess.Popen(
        [sys.executable, "-m", "hound_plugin.cli", "corpus", "extract", "--processes", "1"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: partial.is_dir() and len(os.listdir(partial)) > 10)
    os.killpg(child.pid, signal.SIGINT)
    _, error = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "Traceback" not in error
    assert set(tree(tmp_path / "data" / "frames")) == {name for name in content if name.startswith("v_0/")}


def test_two_runs_at_once_do_the_work_once(tmp_path: Path) -> None:
    content = slow_archives(tmp_path / "data", 1_500)
    running = [start_extraction(tmp_path) for _ in range(2)]
    assert [child.wait(timeout=60) for child in running] == [0, 0]
    assert tree(tmp_path / "data" / "frames") == content
    assert len(jobs(tmp_path / "data", select(["frames_300k"]))) == 2
