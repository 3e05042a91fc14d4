"""Whatever happens to an archive on its way, it unpacks to all of its files or is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hound_plugin.corpus.archive import Limits, unpack
from hound_plugin.corpus.extract import Job, _extract_one, extract
from hound_plugin.errors import ArchiveError
from tests.corpus.hub import frame
from tests.full_disk import longest_file

FILES = {f"v_{index // 10}/c01_{index:04}.jpeg": frame(index)[: 300 + 97 * index] for index in range(24)}
NAMED = {"clip/" + "n" * 150 + f"/{index}.jpeg": bytes([index]) * 700 for index in range(6)}
"""Names that need a header of their own."""


def tar(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def headers(archive: bytes) -> list[int]:
    """Where the header of each member begins, those of long names included."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return [info.offset for info in opened]


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


PLAIN = tar(FILES)
KINDS: dict[str, tuple[dict[str, bytes], bytes]] = {
    "plain.tar": (FILES, PLAIN),
    "gnu.tar": (NAMED, tar(NAMED, tarfile.GNU_FORMAT)),
    "pax.tar": (NAMED, tar(NAMED)),
    "ustar.tar": (FILES, tar(FILES, tarfile.USTAR_FORMAT)),
    "plain.tar.gz": (FILES, gzip.compress(PLAIN)),
    "a.zip": (FILES, packed(FILES)),
}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(content: bytes, suffix: str) -> dict[str, bytes] | str:
    """The files of an archive, or why it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / f"a{suffix}"
        archive.write_bytes(content)
        try:
            counts = unpack(archive, Path(folder) / "out", Limits())
        except ArchiveError as error:
            return str(error) if str(archive) in str(error) else {}
        files = tree(Path(folder) / "out")
        assert (counts.files, counts.size) == (len(files), sum(map(len, files.values())))
        return files


@pytest.mark.parametrize("kind", KINDS)
def test_whole_archives(kind: str) -> None:
    files, content = KINDS[kind]
    assert unpacked(content, kind[kind.index(".") :]) == files


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
def test_a_cut_archive_is_refused(data: st.DataObject, kind: str) -> None:
    files, content = KINDS[kind]
    length = data.draw(st.integers(0, len(content) - 1), "length")
    result = unpacked(content[:length], kind[kind.index(".") :])
    # an archiver's padding may be absent: every member is there, and the mark of the end
    assert isinstance(result, str) or (result == files and not any(content[length:]) and kind.endswith(".tar"))


@pytest.mark.parametrize("kind", ["plain.tar", "gnu.tar", "pax.tar"])
@given(data=st.data())
def test_a_cut_inside_a_valid_gzip_is_refused(data: st.DataObject, kind: str) -> None:
    content = KINDS[kind][1]
    near = data.draw(st.sampled_from(headers(content)), "member") + data.draw(st.integers(-1, 513), "offset")
    length = max(0, min(near, len(content.rstrip(b"\0"))))
    assert isinstance(unpacked(gzip.compress(content[:length], 1), ".tar.gz"), str)


@given(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
def test_one_flipped_bit(data: st.DataObject, kind: str) -> None:
    """In a header, or anywhere where the format has checksums of what is in the files."""
    files, content = KINDS[kind]
    places = st.integers(0, len(content) - 1)
    if kind.endswith(".tar"):
        places = st.builds(int.__add__, st.sampled_from(headers(content)), st.integers(0, 511))
    place, bit = data.draw(places, "byte"), data.draw(st.integers(0, 7), "bit")
    damaged = bytearray(content)
    damaged[place] ^= 1 << bit
    result = unpacked(bytes(damaged), kind[kind.index(".") :])
    assert isinstance(result, str) or result == files


@given(data=st.data())
def test_a_flipped_bit_in_a_header_inside_a_valid_gzip(data: st.DataObject) -> None:
    """A checksum does not cover what follows its own digits, which nothing reads."""
    files, content = KINDS[data.draw(st.sampled_from(["plain.tar", "gnu.tar", "pax.tar", "ustar.tar"]))]
    place = data.draw(st.sampled_from(headers(content))) + data.draw(st.integers(0, 511))
    damaged = bytearray(content)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    result = unpacked(gzip.compress(bytes(damaged), 1), ".tar.gz")
    assert isinstance(result, str) or result == files


@given(place=st.integers(0, 39), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_pax_record_never_shortens_a_name(place: int, bit: int) -> None:
    """Length and keyword; a bit of the name itself makes another name of the same length, which nothing can notice."""
    files, content = KINDS["pax.tar"]
    damaged = bytearray(content)
    damaged[512 + place] ^= 1 << bit
    result = unpacked(bytes(damaged), ".tar")
    assert isinstance(result, str) or {len(name) for name in result} == {len(name) for name in files}


def with_hole(content: bytes) -> bytes:
    begin = headers(content)[10]
    return content[:begin] + bytes(512) + content[begin + 512 :]


def extended(count: int, type: bytes, record: bytes = b"16 comment=abcd\n") -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = type, len(record)
    return (info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)) * count


def nested(depth: int, name: str = "d") -> dict[str, bytes]:
    return {"/".join([name] * depth + ["x.jpeg"]): b"x"}


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a hole of zeros where a header was": (lambda: with_hole(PLAIN), "data follow the mark that ends the archive"),
    "two archives in one file": (lambda: PLAIN + tar(NAMED), "several archives in one file"),
    "no end": (lambda: PLAIN[: len(PLAIN.rstrip(b"\0")) // 512 * 512 + 512], "without the mark of an archive's end"),
    "nothing but zeros": (lambda: bytes(10_240), "Expected files in .*, found none"),
    "folders alone": (lambda: tar({}) and folders_alone(), "Expected files in .*, found none"),
    "a chain of pax headers": (lambda: extended(3_000, tarfile.XHDTYPE) + PLAIN, "more than 16 headers in a row"),
    "a chain of global headers": (lambda: extended(3_000, tarfile.XGLTYPE) + PLAIN, "more than 16 headers in a row"),
    "a chain of long names": (
        lambda: extended(3_000, tarfile.GNUTYPE_LONGNAME, b"name\0") + PLAIN,
        "more than 16 headers in a row",
    ),
    "a pax header and the end": (lambda: extended(1, tarfile.XHDTYPE) + bytes(1024), "the header at byte 0: end of"),
    "a record without its name": (
        lambda: extended(1, tarfile.XHDTYPE, b"9 =abcd\n") + PLAIN,
        "a damaged extended header",
    ),
    "a record of another length": (
        lambda: extended(1, tarfile.XHDTYPE, b"96 comment=abcd\n") + PLAIN,
        "a damaged extended header",
    ),
    "a size of words": (lambda: extended(1, tarfile.XHDTYPE, b"13 size=many\n") + PLAIN, "a size of b'many'"),
    "sparse, version 1": (
        lambda: extended(1, tarfile.XHDTYPE, b"22 GNU.sparse.major=1\n") + PLAIN,
        "is a sparse file",
    ),
    "1,500 folders": (lambda: tar(nested(1_500)), "is 1,500 folders deep, of at most 64"),
    "65 folders": (lambda: tar(nested(65, "folder")), "is 65 folders deep, of at most 64"),
}


def folders_alone() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        info = tarfile.TarInfo("clip")
        info.type = tarfile.DIRTYPE
        opened.addfile(info)
    return buffer.getvalue()


def entries(*names: str) -> list[tuple[str, bytes]]:
    return [(name, name.encode() * 40) for name in names]


def zip_of(*members: tuple[str, bytes], lost: str = "") -> bytes:
    """A zip of members, one of which its directory does not have."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        warnings.simplefilter("ignore")  # of two members with one name
        for name, content in members:
            opened.writestr(name, content)
        opened.filelist = [info for info in opened.filelist if info.filename != lost]
    return buffer.getvalue()


def tar_of(*members: tuple[str, bytes], **headers: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers=headers) as opened:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def streamed(*members: tuple[str, bytes]) -> bytes:
    """As a pipe is written: sizes follow the content."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError("a pipe")

    buffer = Pipe()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return buffer.getvalue()


ONE, OTHER = zip_of(*entries("a/1", "a/2", "a/3")), zip_of(*entries("b/1", "b/2"))
LOSING: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "two zips in one file": (".zip", lambda: ONE + OTHER, "belong to no file of its directory"),
    "a zip and most of another": (".zip", lambda: ONE + OTHER[:-30], "data follow the mark that ends"),
    "a zip and the begin of another": (".zip", lambda: ONE + OTHER[:50], "data follow the mark that ends"),
    "the first file is not in the directory": (
        ".zip",
        lambda: zip_of(*entries("a/1", "a/2", "a/3"), lost="a/1"),
        "bytes from byte 0 on belong to no file",
    ),
    "a file in the middle is not": (".zip", lambda: zip_of(*entries("a", "b", "c"), lost="b"), "belong to no file"),
    "the last one is not": (".zip", lambda: zip_of(*entries("a", "b", "c"), lost="c"), "belong to no file"),
    "a comment that is cut": (".zip", lambda: ONE[:-2] + b"\x09\0" + b"four", "ends within a comment"),
    "one name twice, tar": (".tar", lambda: tar_of(("a/1", b"x"), ("b", b""), ("a/1", b"y")), "'a/1' occurs twice"),
    "one name twice, zip": (".zip", lambda: zip_of(("a/1", b"x"), ("a/1", b"xx")), "'a/1' occurs twice"),
    "one path in two spellings": (".tar", lambda: tar_of(("a/1", b"x"), ("./a//1", b"")), "occurs twice"),
    "one path for all files": (
        ".tar",
        lambda: tar_of(*entries("a/1", "a/2"), path="a/0"),
        "'a/0' occurs twice, with different contents",
    ),
    "a folder's name": (".zip", lambda: zip_of(("a/1", b"x"), ("a", b"y")), "'a' is a file and a folder at once"),
}


@pytest.mark.parametrize("kind", LOSING)
def test_an_archive_that_would_lose_files_is_refused(kind: str, tmp_path: Path) -> None:
    suffix, make, reason = LOSING[kind]
    archive = tmp_path / f"a{suffix}"
    archive.write_bytes(make())
    with pytest.raises(ArchiveError, match=reason):
        unpack(archive, tmp_path / "out", Limits())


@pytest.mark.parametrize(
    "content",
    [
        streamed(*entries("a/1", "a/2")),
        zip_of(*entries("a/1", "a/2")) + bytes(700),
        zip_of(*entries("a/1", "a/2"), *entries("a/2")),
        tar_of(*entries("a/1", "a/2", "a/1")),
    ],
    ids=["streamed", "padded", "a file twice, zip", "a file twice, tar"],
)
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".ZIP"])
def test_whole_archives_of_other_writers_and_names(content: bytes, suffix: str) -> None:
    assert unpacked(content, suffix) == dict(entries("a/1", "a/2"))


OTHER_FILES: dict[str, tuple[bytes, str]] = {
    "bzip2": (bz2.compress(PLAIN), "compressed by bzip2"),
    "xz": (lzma.compress(PLAIN), "compressed by xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + PLAIN[:1000], "compressed by zstd"),
    "rar": (b"Rar!\x1a\x07\0" + PLAIN[:1000], "a rar archive"),
    "an error page": (b"\n<!DOCTYPE html><title>404</title>", "a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a pointer of Git LFS"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_other_files_are_named(kind: str, suffix: str) -> None:
    content, words = OTHER_FILES[kind]
    assert f"expected a tar, a gzipped tar or a zip; it is {words}" in str(unpacked(content, suffix))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_by_its_name(kind: str, compress: bool, tmp_path: Path) -> None:
    make, reason = DAMAGED[kind]
    archive = tmp_path / ("a.tar.gz" if compress else "a.tar")
    archive.write_bytes(gzip.compress(make(), 1) if compress else make())
    with pytest.raises(ArchiveError, match=reason):
        unpack(archive, tmp_path / "out", Limits())


def test_what_is_allowed() -> None:
    """Headers that archivers do write in a row, and folders as deep as data sets have them."""
    global_first = extended(1, tarfile.XGLTYPE) + tar(NAMED)
    assert unpacked(global_first, ".tar") == NAMED
    assert unpacked(tar(nested(64)), ".tar") == nested(64)
    assert unpacked(PLAIN + bytes(1 << 20), ".tar") == FILES


def test_an_archive_replaces_no_file_of_another(tmp_path: Path) -> None:
    """Two that share a file are unpacked, whichever comes first; if it differs, the second is refused and named."""
    (tmp_path / "a.tar").write_bytes(tar_of(*entries("v/1", "v/2")))
    (tmp_path / "b.zip").write_bytes(zip_of(*entries("v/2", "v/3")))
    (tmp_path / "c.tar").write_bytes(tar_of(*entries("u/1"), ("v/2", b"another picture")))
    work = [Job(tmp_path / name, tmp_path / "frames") for name in ("a.tar", "b.zip", "c.tar")]
    assert extract(work[:2], 2) == 2
    with pytest.raises(ArchiveError, match=r"c\.tar has .*v/2, which is there already with other content"):
        extract(work, 1)
    frames = {name: content for name, content in tree(tmp_path / "frames").items() if not name.startswith(".hound")}
    assert frames == dict(entries("v/1", "v/2", "v/3"))
    (tmp_path / "frames" / "v" / "2").unlink()
    assert extract(work, 1) == 1
    assert (tmp_path / "frames" / "v" / "2").read_bytes() == b"another picture"


def test_a_full_disk_leaves_nothing_and_the_next_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "good.tar").write_bytes(PLAIN)
    job = Job(tmp_path / "good.tar", tmp_path / "frames")
    with longest_file(600), pytest.raises(OSError, match="File too large"):
        _extract_one(job)  # as the processes of `extract` do, which need some space themselves
    assert not [name for name in tree(tmp_path / "frames") if not name.endswith(".lock")]
    assert extract([job], 1) == 1
    assert {name: content for name, content in tree(tmp_path / "frames").items() if name in FILES} == FILES


def test_a_deep_zip_ends_no_later_run(tmp_path: Path) -> None:
    (tmp_path / "deep.zip").write_bytes(packed(nested(1_500)))
    (tmp_path / "good.tar").write_bytes(PLAIN)
    work = [Job(tmp_path / "deep.zip", tmp_path / "frames"), Job(tmp_path / "good.tar", tmp_path / "frames")]
    for _ in range(2):
        with pytest.raises(ArchiveError, match=r"is 1,500 folders deep"):
            extract(work, processes=1)
    assert {name for name in tree(tmp_path / "frames") if not name.startswith(".hound")} == set(FILES)


def test_folders_that_an_earlier_version_left_are_removed(tmp_path: Path) -> None:
    """It unpacked them before it was killed; removing them recursively ended every later run."""
    (tmp_path / "good.tar").write_bytes(PLAIN)
    job = Job(tmp_path / "good.tar", tmp_path / "frames")
    folder = job.state.with_name(job.state.name + ".partial")
    folder.mkdir(parents=True)
    deepest = folder
    for _ in range(1_500):
        deepest = deepest / "d"
        deepest.mkdir()
    (deepest / "x.jpeg").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path)
    assert extract([job], 1) == 1
    assert (tmp_path / "good.tar").exists(), "links are removed, not followed"
    shutil.rmtree(tmp_path / "frames" / ".hound")
    assert tree(tmp_path / "frames") == FILES
