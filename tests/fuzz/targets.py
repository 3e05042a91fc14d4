"""What is fuzzed: functions of bytes that come from others. Each may return or refuse by name, and nothing else.

``make fuzz`` feeds them with inputs that atheris (libFuzzer) grows by coverage. What they fail on is kept in
``tests/fuzz/crashes/<target>`` and replayed by ``test_crashes.py``.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from hound_plugin.corpus.archive import Limits, unpack
from hound_plugin.errors import ArchiveError
from hound_plugin.judge.parsing import Scale, read_score
from hound_plugin.judge.verdicts import read_verdict, stated_reason
from hound_plugin.llm.redaction import Redactor
from hound_plugin.media.stated_sizes import WALKS, CutShortError, is_joined
from hound_plugin.records.jsonl import read_lines
from hound_plugin.records.parse import parse

_SMALL = Limits(member=1 << 20, total=1 << 22, members=200)
_WALKS = sorted(set(WALKS.values()), key=lambda walk: walk.__name__)


def archives(data: bytes) -> None:
    """The first byte chooses tar or zip; nothing is ever outside the folder, and counts are true."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        archive = Path(place) / ("a.zip" if data[:1] < b"\x80" else "a.tar")
        archive.write_bytes(data[1:])
        out = Path(place) / "in" / "out"
        try:
            counts, named = unpack(archive, out, _SMALL), True
        except ArchiveError as error:
            counts, named = None, str(archive) in str(error)
        assert named
        assert {path.name for path in Path(place).iterdir()} <= {archive.name, "in"}
        assert [path.name for path in (Path(place) / "in").iterdir()] == ["out"]
        paths = list(out.rglob("*"))
        assert all(path.is_dir() or path.is_file() for path in paths)
        assert not any(path.is_symlink() for path in paths)
        if counts is not None:
            assert counts.files >= sum(path.is_file() for path in paths) >= 1


def containers(data: bytes) -> None:
    """Following the sizes that a file states ends, and says complete, cut short or nothing."""
    content = data[1:]
    follow = _WALKS[data[0] % len(_WALKS)] if data else _WALKS[0]
    try:
        assert follow(io.BytesIO(content), len(content)) in (True, False)
        is_joined(io.BytesIO(content), len(content))
    except (CutShortError, struct.error, IndexError):  # the caller takes the last two for "proves nothing"
        pass


def replies(data: bytes) -> None:
    """A reply has a score on the scale or a reason why not; reading it again says the same."""
    text = data.decode("utf-8", "replace")
    for scale in (Scale(), Scale(0, 10)):
        reading = read_score(text, scale)
        assert reading == read_score(text, scale)
        assert (reading.score is None) == bool(reading.why)
        assert reading.score is None or reading.score in scale
        verdict = read_verdict(text, scale)
        assert (verdict.correct is None) == bool(verdict.why)
        assert verdict.score is None or verdict.score in scale
        assert isinstance(stated_reason(text, scale), str)
    Redactor("sk-test-secret-1234567890", environment={}).text(text)


def rows(data: bytes) -> None:
    """Lines of JSON are rows or problems, and a row is a record or problems."""
    for row in read_lines(io.BytesIO(data)):
        assert (row.value is None) == bool(row.problem)
        if row.value is not None:
            parsed = parse(row.value)
            assert (parsed.record is None) == bool(parsed.problems)
            json.dumps(row.value)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "archives": archives,
    "containers": containers,
    "replies": replies,
    "rows": rows,
}


# --- what the fuzzer begins with


def _tar(format: int, names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as opened:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 20
            opened.addfile(info, io.BytesIO(b"x" * 20))
    return buffer.getvalue().rstrip(b"\0") + bytes(2048)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/1.jpeg", b"x" * 50)
        opened.writestr("a/2.jpeg", b"y" * 50)
    return buffer.getvalue()


def seeds(target: str) -> list[bytes]:
    """Whole inputs of each kind."""
    here = Path(__file__).parents[1]
    if target == "archives":
        names = ["a/1.jpeg", "n" * 120 + "/2.jpeg"]
        tars = [_tar(format, names) for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
        return [b"\0" + _zip(), *(b"\xff" + tar for tar in tars), b"\xff" + gzip.compress(tars[0])]
    if target == "containers":
        clips = sorted((here / "golden" / "media").glob("clip_short*"))
        content = clips[0].read_bytes()[:20_000] if clips else b""
        heads = [content, b"RIFF\x10\0\0\0AVI LIST", b"\x1a\x45\xdf\xa3\x84\0\0\0\0", b"FLV\x01\x05\0\0\0\x09\0\0\0\0"]
        return [bytes([number]) + head for number in range(len(_WALKS)) for head in heads]
    if target == "replies":
        lines = (here / "judge" / "replies.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["reply"].encode("utf-8", "replace") for line in lines]
    recorded = (here / "golden" / "rows").glob("*.jsonl") if (here / "golden" / "rows").is_dir() else ()
    return [file.read_bytes()[:4_000] for file in recorded] + [
        b'{"id": 1, "video": "a.mp4", "conversations": [{"from": "human", "value": "<video>\\nWhat?"},'
        b' {"from": "gpt", "value": "A cat."}]}\n',
        b'{"messages": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Q"}]}]}\n',
        b'{"prompt": "Q", "chosen": "a", "rejected": "b", "images": ["x.png"], "chosen_score": 5}\n',
    ]
