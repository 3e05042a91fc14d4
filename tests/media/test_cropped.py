"""Clips that crop their pictures, have an odd size, or name key pictures that are none: as FFmpeg shows them."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.decode import probe, read_clip

from .clips import play, remux, tag_rotation
from .zoo import write


def crop(raw: Path, target: Path, left: int, right: int, top: int) -> None:
    """Write into the headers of a raw H.264 stream what a player leaves away, and put the stream into an MP4."""
    cropped = target.with_suffix(".h264")
    with av.open(str(raw)) as old, cropped.open("wb") as new:
        stream = old.streams.video[0]
        name = f"h264_metadata=crop_left={left}:crop_right={right}:crop_top={top}"
        change = BitStreamFilterContext(name, stream)
        for packet in old.demux(stream):
            new.writelines(bytes(changed) for changed in change.filter(packet if packet.size else None))
    with av.open(str(cropped)) as old, av.open(str(target), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        copy.time_base = old.streams.video[0].time_base
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            packet.pts = packet.dts = int(number * 0.1 / copy.time_base)
            packet.stream = copy
            new.mux(packet)


@pytest.mark.parametrize(("left", "right", "top"), [(6, 2, 4), (16, 0, 0), (32, 4, 2), (0, 6, 2)])
def test_pictures_are_cropped_as_the_stream_says(left: int, right: int, top: int, tmp_path: Path) -> None:
    raw, path = tmp_path / "whole.h264", tmp_path / "cropped.mp4"
    write(raw, muxer="h264", size=(96, 64))
    crop(raw, path, left, right, top)
    whole = np.stack(play(raw))
    clip = read_clip(path, num_frames=24)
    assert (probe(path).width, probe(path).height) == (96 - left - right, 64 - top)
    assert np.array_equal(clip.frames, whole[:, top:, left : 96 - right])
    if left:
        with pytest.raises(MediaDecodeError, match=r"decoder: decord.*to be cropped, which.*Set `decoder: auto`"):
            read_clip(path, decoder="decord")
    else:
        assert np.array_equal(read_clip(path, num_frames=24, decoder="decord").frames, clip.frames)


def add_aperture(source: Path, target: Path, size: tuple[int, int], offset: tuple[int, int]) -> None:
    """Add a clean aperture to an MP4: its size, and twice the way of its centre to the right and down."""
    data = bytearray(source.read_bytes())
    aperture = struct.pack(">I4sIIIIiIiI", 40, b"clap", size[0], 1, size[1], 1, offset[0], 2, offset[1], 2)
    begin, end, parents = 0, len(data), []
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while bytes(data[begin + 4 : begin + 8]) != name:
            begin += int.from_bytes(data[begin : begin + 4], "big")
        parents.append(begin)
        end = begin + int.from_bytes(data[begin : begin + 4], "big")
        begin += 16 if name == b"stsd" else 8
    assert parents[0] > data.find(b"mdat"), "offsets of packets would have to change"
    data[end:end] = aperture
    for box in parents:
        data[box : box + 4] = (int.from_bytes(data[box : box + 4], "big") + len(aperture)).to_bytes(4, "big")
    target.write_bytes(data)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("size", "offset", "rows", "columns"),
    [
        ((64, 48), (0, 0), slice(8, 56), slice(16, 80)),
        ((88, 64), (8, 0), slice(0, 64), slice(8, 96)),
        ((60, 50), (-20, 6), slice(10, 60), slice(8, 68)),
        ((37, 47), (1, -1), slice(8, 54), slice(30, 66)),  # 4:2:0 has one colour for two pixels
    ],
)
def test_pictures_are_cropped_as_the_container_says(
    size: tuple[int, int], offset: tuple[int, int], rows: slice, columns: slice, suffix: str, tmp_path: Path
) -> None:
    whole, path = tmp_path / "whole.mp4", tmp_path / f"cropped.{suffix}"
    write(whole, size=(96, 64), bframes=2)
    aperture = tmp_path / "aperture.mp4"
    add_aperture(whole, aperture, size, offset)
    if suffix == "mkv":
        remux(aperture, path)  # FFmpeg writes the crop of Matroska
    else:
        aperture.rename(path)
    played = np.stack(play(whole))
    for video, count in ((path, 24), (path.read_bytes(), 5)):
        clip = read_clip(video, num_frames=count)
        assert np.array_equal(clip.frames, played[clip.indices][:, rows, columns])
    with pytest.raises(MediaDecodeError, match=r"decoder: decord.*to be cropped, which.*Set `decoder: auto`"):
        read_clip(path, decoder="decord")
    turned = tmp_path / "turned.mp4"
    if suffix == "mp4":
        tag_rotation(path, turned, 90)
        assert np.array_equal(read_clip(turned, num_frames=24).frames, np.rot90(played[:, rows, columns], 3, (1, 2)))


@pytest.mark.parametrize("size", [(0, 48), (97, 64), (96, 64), (1 << 31, 1)])
def test_an_aperture_that_cannot_be_is_ignored(size: tuple[int, int], tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.mp4", tmp_path / "odd.mp4"
    write(whole, size=(96, 64))
    add_aperture(whole, path, size, (0, 0))
    try:
        frames = read_clip(path, num_frames=24).frames
    except MediaDecodeError:  # FFmpeg takes the file for damaged
        return
    assert np.array_equal(frames, np.stack(play(whole)))


@pytest.mark.parametrize("size", [(95, 64), (96, 63), (65, 33)])
@pytest.mark.parametrize(("name", "codec"), [("clip.webm", "libvpx"), ("clip.mkv", "libvpx-vp9")])
def test_decord_is_refused_for_odd_sizes(name: str, codec: str, size: tuple[int, int], tmp_path: Path) -> None:
    write(tmp_path / name, codec, size=size)
    assert np.array_equal(read_clip(tmp_path / name, num_frames=24).frames, np.stack(play(tmp_path / name)))
    with pytest.raises(MediaDecodeError, match=rf"decoder: decord.*{size[0]}x{size[1]} pixels.*Set `decoder: auto`"):
        read_clip(tmp_path / name, decoder="decord")
    with pytest.raises(MediaDecodeError, match="decoder: decord"):
        probe(tmp_path / name, "decord")
    write(tmp_path / "full.mp4", pixels="yuv444p", size=size)
    frames = read_clip(tmp_path / "full.mp4").frames
    assert np.array_equal(read_clip(tmp_path / "full.mp4", decoder="decord").frames, frames)


def test_every_picture_of_rpza_is_decoded_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "clip.mov"
    still = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("rpza", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb555le"
        for number in range(40):  # what stands still is not coded again, in a picture that is marked as a key picture
            still[8 * (number % 6) :][:8] = number * 6
            output.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        output.mux(stream.encode())
    played = play(path)
    for count in (2, 5, 8):
        clip = read_clip(path, num_frames=count)
        assert np.array_equal(clip.frames, np.stack([played[i] for i in clip.indices]))
