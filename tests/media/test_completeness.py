"""A file of which a part is missing is refused; whole ones of odd kinds are not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media import stated_sizes
from hound_plugin.media.decode import probe, read_clip

from .clips import Pipe, encode_streamed, picture, remux
from .zoo import FRAMES, HEIGHT, RATE, WIDTH, Sound, make, write

STATED = [
    "h264_b.mkv", "hevc_open.mkv", "vp8.webm", "vp9.webm", "mpeg4.avi", "raw.avi", "wmv2.wmv", "h264.wmv", "flv1.flv",
    "h264.flv", "h264_faststart.mp4", "h264_fragments.mp4", "h264_dash.mp4", "h264_mono.mov", "h264.3gp", "h264.ismv",
    "mpeg2_422.mxf", "av1.ivf", "gif.gif", "apng.apng", "flash.swf",
]  # fmt: skip
FASTER = {"h264_mono.mov": "mpeg4_b.mp4"}


def refused(video: Any, message: str = "cut short: ", look: Any = (read_clip, probe)) -> str:
    text = ""
    for reader in look:
        with pytest.raises(MediaDecodeError, match=message) as caught:
            reader(video)
        text = str(caught.value)
        assert caught.value.path == (str(video) if isinstance(video, Path) else None)
    return text


@pytest.mark.parametrize("name", STATED)
def test_a_file_that_states_its_length_is_refused_when_it_is_cut(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    content = path.read_bytes()
    assert read_clip(path).total_frames in (FRAMES, 8, 6)
    for share in (0.97, 0.9, 0.5, 0.3):
        path.write_bytes(content[: int(len(content) * share)])
        text = refused(path, "cut short")
        assert str(path) in text
        refused(path.read_bytes(), "cut short")
    path.write_bytes(content)
    read_clip(path)


def test_the_message_tells_both_lengths(tmp_path: Path) -> None:
    write(tmp_path / "clip.mkv", frames=100)
    content = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(content[: len(content) * 54 // 100])
    text = refused(tmp_path / "clip.mkv", r"its header says 10\.0 s, the data ends at 5\.\d s")
    assert f"it states at least {len(content):,} bytes and has {len(content) * 54 // 100:,}" in text
    assert "Copy or download it again" in text


HOLES = ["h264_b.mkv", "vp8.webm", "mpeg4.avi", "wmv1.wmv", "flv1.flv", "mpeg2_422.mxf", "gif.gif", "h264_dash.mp4"]


@pytest.mark.parametrize("name", HOLES)
def test_a_download_with_a_hole_is_refused(name: str, tmp_path: Path) -> None:
    """Some programs make the file in full size first: its second half is zeros."""
    path = make(name, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    refused(path)


@pytest.mark.parametrize(("name", "size"), [("h264.ts", 188), ("h264.m2ts", 192), ("raw.y4m", 4614), ("dv.dv", 144000)])
def test_a_shorter_stream_is_a_clip_if_its_last_packet_is_whole(name: str, size: int, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    content, whole = path.read_bytes(), read_clip(path)
    head = len(content) % size
    half = head + (len(content) // size // 2) * size
    for cut in (half + 1, half + size // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        refused(path)
    if name == "h264.ts":  # also at the end of a picture, else it is damaged
        with av.open(str(tmp_path / name), "r") as container:
            stream = container.streams.video[0]
            half = sorted(packet.pos for packet in container.demux(stream) if packet.pos)[12]
    path.write_bytes(content[:half])
    probe(path)
    clip = read_clip(path)
    assert 1 < clip.total_frames + 1 <= whole.total_frames


@pytest.mark.parametrize(("name", "head"), [("vp8.ogv", 27), ("av1.ivf", 12)])
def test_a_stream_that_ends_inside_a_header(name: str, head: int, tmp_path: Path) -> None:
    """Before the bytes that would tell how much is missing."""
    path = make(name, tmp_path)
    content = path.read_bytes()
    if path.suffix == ".ogv":
        start = content.rindex(b"OggS", 0, len(content) // 2)
    else:
        start = 32  # of a frame that is so near to the end that the stated duration tells nothing
        for _ in range(FRAMES - 2):
            start += head + int.from_bytes(content[start : start + 4], "little")
    for more in (3, head // 2, head - 1):
        path.write_bytes(content[: start + more])
        refused(path)
    path.write_bytes(content[:start])
    probe(path)
    assert 0 < read_clip(path).total_frames < FRAMES


def test_a_picture_that_is_cut(tmp_path: Path) -> None:
    """FFmpeg takes half of the first picture of a series for a picture."""
    path = make("mjpeg.mjpeg", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\xff\xd9") // 2])
    refused(path, "got a picture")
    path.write_bytes(content[: content.index(b"\xff\xd9") + 2] + b"and a note")
    refused(path, "got a picture")


@pytest.mark.parametrize("name", ["mpeg2_422.mxf", "one_cluster.mkv"])
def test_a_hole_behind_the_last_length(name: str, tmp_path: Path) -> None:
    """All lengths are there, and what they promise is zeros."""
    path = tmp_path / name
    if name.endswith("mkv"):
        write(path, frames=50, mux={"cues_to_front": "1"})
    else:
        make(name, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10].ljust(len(content), b"\0"))
    refused(path, look=(read_clip,))


@pytest.mark.parametrize("name", ["mjpeg.mjpeg", "vp8.ogv", "mpeg2.vob"])
def test_a_stream_that_ends_inside_a_packet(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    content = path.read_bytes()
    cut = {"mpeg2.vob": 2048 * 2 + 1000}.get(name, len(content) // 2 + 7)
    path.write_bytes(content[:cut])
    refused(path)


# --- whole files of odd kinds

KINDS: dict[str, dict[str, Any]] = {
    "mkv": {},
    "webm": {"codec": "libvpx"},
    "avi": {"codec": "mpeg4"},
    "wmv": {"codec": "wmv1", "muxer": "asf"},
    "flv": {"codec": "flv"},
    "mp4": {},
    "ts": {"muxer": "mpegts"},
    "mpg": {"codec": "mpeg2video", "rate": 25},
    "mxf": {"codec": "mpeg2video", "rate": 25},
}
SOUNDS = {"webm": "libopus", "avi": "mp3", "flv": "mp3", "mpg": "mp2", "ts": "mp2", "wmv": "mp3", "mxf": "pcm_s16le"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("frames", "start", "end", "begin"),
    [
        (24, 0.0, 6.0, 0.0),
        (50, 0.0, 0.8, 0.0),
        (50, 2.0, 4.0, 0.0),
        (24, 0.0, 7.4, 5.0),
        (24, 0.0, 22.4, 20.0),
        (1, 0.0, 0.0, 0.0),
    ],
    ids=["sound longer", "sound only at the beginning", "sound only in the middle", "late", "very late", "one frame"],
)
def test_a_whole_file_is_taken(kind: str, frames: int, start: float, end: float, begin: float, tmp_path: Path) -> None:
    codec = SOUNDS.get(kind, "aac")
    rate = 48000 if codec in ("libopus", "pcm_s16le") else 44100
    path = tmp_path / f"clip.{kind}"
    sound = Sound(codec, start, end, rate=rate) if end else None
    write(path, frames=frames, sound=sound, start=begin, **KINDS[kind])
    probe(path)
    with av.open(str(path)) as container:
        played = sum(1 for _ in container.decode(video=0))
    assert read_clip(path).total_frames == played
    assert played == frames or kind == "mxf"  # whose muxer wants sound beside every picture


@pytest.mark.parametrize("kind", ["mkv", "flv", "mov", "ts", "wmv"])
def test_a_last_picture_that_stays_for_long(kind: str, tmp_path: Path) -> None:
    """Its length is known to the file it was copied from, and to nothing but the header of the copy."""
    write(tmp_path / "slow.mp4", frames=6, times_ms=[0, 100, 200, 300, 400, 500])
    path = tmp_path / f"clip.{kind}"
    with av.open(str(tmp_path / "slow.mp4")) as old, av.open(str(path), "w", "asf" if kind == "wmv" else None) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        packets[-1].duration = round(8 / stream.time_base)
        for packet in packets:
            packet.stream = copy
            new.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration > 8e6 or kind == "ts"
    probe(path)
    assert read_clip(path).total_frames == 6


PIPED = ["matroska", "webm", "avi", "flv", "mpegts", "asf", "nut", "ivf", "mxf", "swf", "rm", "ogg", "mpeg"]


@pytest.mark.parametrize("kind", PIPED)
def test_a_file_that_was_written_to_a_pipe_states_nothing(kind: str, tmp_path: Path) -> None:
    codecs = {"webm": "libvpx", "ivf": "libvpx", "ogg": "libvpx", "avi": "mpeg4", "flv": "flv", "swf": "flv"}
    codecs |= {"asf": "wmv1", "rm": "rv20", "mxf": "mpeg2video", "mpeg": "mpeg2video"}
    codec = codecs.get(kind, "libx264")
    path = tmp_path / "clip.bin"
    encode_streamed(path, kind, codec=codec, frames=FRAMES, width=WIDTH, height=HEIGHT)
    probe(path)
    assert read_clip(path).total_frames == FRAMES
    content = path.read_bytes()
    if kind in ("matroska", "webm", "flv"):  # the last block is incomplete
        path.write_bytes(content[: len(content) // 2])
        refused(path)


def test_a_live_mp4(tmp_path: Path) -> None:
    path = tmp_path / "live.mp4"
    pipe = Pipe(path)
    with av.open(pipe, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as output:
        stream = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", 6
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number, WIDTH, HEIGHT), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    pipe.close()
    content = path.read_bytes()
    probe(path)
    assert read_clip(path).total_frames == FRAMES
    fragment = content.index(b"moof", content.index(b"moof", content.index(b"moof") + 4) + 4) - 4
    path.write_bytes(content[:fragment])
    probe(path)
    assert 0 < read_clip(path).total_frames < FRAMES, "a recording that ended earlier"
    path.write_bytes(content[: fragment + 60])
    refused(path)


def test_text_and_files_beyond_the_end_of_the_picture(tmp_path: Path) -> None:
    path, subtitles = tmp_path / "clip.mkv", tmp_path / "text.srt"
    subtitles.write_text("1\n00:00:00,000 --> 00:00:01,000\na\n\n2\n00:00:09,000 --> 00:00:20,000\nb\n")
    write(tmp_path / "plain.mkv")
    with av.open(str(tmp_path / "plain.mkv")) as old, av.open(str(subtitles)) as text, av.open(str(path), "w") as new:
        copies = [new.add_stream_from_template(old.streams.video[0]), new.add_stream_from_template(text.streams[0])]
        new.add_attachment("notes.txt", "text/plain", b"x" * 5000)
        for source, copy in zip((old, text), copies, strict=True):
            for packet in source.demux():
                if packet.size:
                    packet.stream = copy
                    new.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration == 20_000_000
    probe(path)
    assert read_clip(path).total_frames == FRAMES
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 8 // 10])
    refused(path)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "avi", "flv"])
def test_a_cut_without_encoding_is_whole(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "first.mp4", bframes=2)
    remux(tmp_path / "first.mp4", tmp_path / f"cut.{kind}", start=1.3)
    probe(tmp_path / f"cut.{kind}")
    assert 8 < read_clip(tmp_path / f"cut.{kind}").total_frames < FRAMES


ENDED = [
    "h264_b.mkv", "mpeg4.avi", "wmv1.wmv", "flv1.flv", "h264.mp4", "h264_b.mp4", "h264_fragments.mp4", "h264_dash.mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", ENDED)
def test_bytes_behind_the_end_do_no_harm(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    content, frames = path.read_bytes(), read_clip(path).frames
    for few in (b"\n", b"\r\n", bytes(3), bytes(500)) if name.endswith(("mp4", "mkv", "flv")) else ():
        path.write_bytes(content + few)
        probe(path)
        assert np.array_equal(read_clip(path).frames, frames)
    if not name.endswith((".wmv", ".flv")):  # their demuxers take it for data
        path.write_bytes(content + b"some text at the end of the file, and more of it" * 20)
        probe(path)
        assert np.array_equal(read_clip(path).frames, frames)


# --- where only the duration tells


def _unsized(content: bytes) -> bytes:
    """Matroska of unknown size that still states its duration."""
    start = content.index(b"\x18\x53\x80\x67") + 4
    return content[:start] + b"\x01" + b"\xff" * 7 + content[start + 8 :]


def test_a_stated_duration_is_compared_with_the_last_packet(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write(path, frames=200, gop=10, mux={"cluster_time_limit": "1000"})
    content = _unsized(path.read_bytes())
    path.write_bytes(content)
    assert read_clip(path).total_frames == 200
    probe(path)
    clusters = [at for at in range(len(content) - 4) if content[at : at + 4] == b"\x1f\x43\xb6\x75"]
    path.write_bytes(content[: clusters[len(clusters) // 2]])
    refused(path, r"its header says 20\.0 s, the data ends at (9|10)\.\d s")

    path = make("flv1.flv", tmp_path)
    content = path.read_bytes().replace(b"\x00\x08filesize", b"\x00\x08unknown_")
    path.write_bytes(content)
    probe(path)
    assert read_clip(path).total_frames == FRAMES
    position = 13
    while position < len(content) // 2:
        position += 15 + int.from_bytes(content[position + 1 : position + 4], "big")
    path.write_bytes(content[:position])
    refused(path, r"its header says 2\.4 s, the data ends at 1\.\d s")


def test_an_index_of_fragments_tells_their_length(tmp_path: Path) -> None:
    path = make("h264_dash.mp4", tmp_path)
    content = path.read_bytes()
    assert b"sidx" in content
    path.write_bytes(content[: content.rindex(b"moof") - 4])
    refused(path)


def test_an_index_of_indices_tells_the_length_of_an_avi(tmp_path: Path) -> None:
    """OpenDML, which is for files above 1 GB; the header is made by hand."""
    index = b"indx" + struct.pack("<IHBBI4s12x", 40, 4, 0, 0, 1, b"00dc") + struct.pack("<QII", 5000, 1000, 10)
    assert stated_sizes._indexed(b"LIST" + index) == 6000
    assert stated_sizes._indexed(b"LIST" + index.replace(b"\x04\x00\x00\x00", b"\x04\x00\x00\x01", 1)) == 0
    assert stated_sizes._indexed(b"LIST") == 0


# --- damage inside the data


def _spoil(path: Path, fill: int = 0) -> None:
    """Overwrite the second half of a packet in the middle."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size and p.pos]
    position, size = places[len(places) // 2 + 1]
    content = bytearray(path.read_bytes())
    content[position + size // 2 : position + size] = bytes([fill]) * (size - size // 2)
    path.write_bytes(content)


SPOILT = [
    "h264.mp4", "h264.flv", "mpeg2.mkv", "mpeg2.ts", "mpeg2.vob", "mpeg4_b.mp4", "mpeg4.avi", "h263.3gp", "flv1.flv",
    "wmv1.wmv", "prores.mov", "h264.ts", "av1.mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_frames_that_the_decoder_marks_as_damaged(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    _spoil(path)
    with pytest.raises(MediaDecodeError, match=r"its frame \d+ is damaged|Invalid data found") as caught:
        read_clip(path, num_frames=FRAMES)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("name", ["hevc.ts", "mpeg2.ts", "h264_interlaced.ts"])
def test_a_packet_that_was_lost_on_the_way(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    content = path.read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    video = [i for i, packet in enumerate(packets) if packet[1:3] == b"\x01\x00"]  # PID 256, inside a picture
    for lost in video[len(video) // 3 : -4 : 9]:
        path.write_bytes(b"".join(packets[:lost] + packets[lost + 1 :]))
        refused(path, "is incomplete or marked as damaged|is damaged", look=(read_clip,))


JOINED = (
    "h264.mp4", "h264_fragments.mp4", "png.mov", "h264.3gp", "wmv1.wmv", "flv1.flv", "screen.flv", "apng.apng",
    "rv20.rm", "flash.swf", "h264.nut", "raw.nut", "padded.mp4",
)  # fmt: skip
PLAYED = ("h264_b.mkv", "vp8.webm", "mpeg4.avi", "gif.gif", "mpeg2.mpg", "mjpeg.mjpeg")


@pytest.mark.parametrize("name", JOINED)
def test_several_files_in_one_of_which_the_first_is_played(name: str, tmp_path: Path) -> None:
    first = make(name, tmp_path)
    path = first.with_stem("joined")
    path.write_bytes(first.read_bytes() * 2)
    message = rf"{path.name}: it is several files in one; the second begins at byte {first.stat().st_size:,}, and"
    for look in (read_clip, probe):
        with pytest.raises(MediaDecodeError, match=message) as caught:
            look(path)
        assert caught.value.path == str(path)
    read_clip(first)


@pytest.mark.parametrize("name", PLAYED)
def test_several_files_in_one_that_are_all_played(name: str, tmp_path: Path) -> None:
    first = make(name, tmp_path)
    path = first.with_stem("joined")
    path.write_bytes(first.read_bytes() * 2)
    assert read_clip(path).total_frames == 2 * read_clip(first).total_frames
