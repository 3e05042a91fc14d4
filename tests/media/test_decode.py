from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from hound_plugin.errors import (
    EmptyMediaError,
    EnvironmentMismatchError,
    HoundError,
    MediaDecodeError,
    MediaNotFoundError,
    SettingsError,
)
from hound_plugin.media import backends, container, worker
from hound_plugin.media.clip import Frames
from hound_plugin.media.decode import DECODERS, Clip, probe, read_clip
from hound_plugin.media.frame_sampling import POLICIES, sample_indices

from .clips import encode, picture, play
from .conftest import DECORD, READABLE

GOLDEN = Path(__file__).parents[1] / "golden"
INSTALLED = [name for name in DECODERS if name in ("auto", "pyav") or importlib.util.find_spec(name)]


def same(clip: Clip, expected: list[np.ndarray]) -> None:
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == (len(expected), *expected[0].shape)
    wrong = [i for i, (a, b) in enumerate(zip(clip.frames, expected, strict=True)) if not np.array_equal(a, b)]
    assert not wrong, f"{clip.decoder}: frames {wrong} of {clip.indices} differ"


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("decoder", INSTALLED)
def test_every_decoder_gives_the_frames_of_plain_playing(clips, name: str, decoder: str) -> None:
    if decoder == "decord" and name not in DECORD:
        with pytest.raises(MediaDecodeError, match="`decoder: decord` does not return the exact frames of"):
            read_clip(clips[name], decoder=decoder)
        return
    played = play(clips[name])
    times = container.build_index(str(clips[name])).times(range(len(played)))
    for sampling in POLICIES:
        for video in (clips[name], clips[name].read_bytes()):
            clip = read_clip(video, num_frames=5, sampling=sampling, decoder=decoder)
            assert clip.total_frames == len(played)
            assert clip.indices == sample_indices(sampling, len(played), 5, clip.fps, times=times)
            same(clip, [played[i] for i in clip.indices])


@pytest.mark.parametrize("name", ["plain", "open_gop", "vfr", "cut", "vp8", "vp8_hidden"])
def test_every_single_frame_is_reachable(clips, name: str) -> None:
    played = play(clips[name])
    index = container.build_index(str(clips[name]))
    assert index.pts is not None, "the quick way was not taken"
    for number in range(len(played)):
        ((found, frame),) = container.read_frames(str(clips[name]), index, [number])
        assert found == number
        assert np.array_equal(frame, played[number]), number


REFUSED = ["hevc", "mpeg4", "open_gop", "broadcast", "cut", "program_stream"]


def test_decord_is_used_where_it_is_exact_and_refused_elsewhere(clips) -> None:
    for name in ("plain", "one_gop", "short", "vfr", "turned_90", "vp9"):
        assert read_clip(clips[name], decoder="decord").decoder == "decord"
    for name in REFUSED:
        for timeout in (None, 60):
            with pytest.raises(MediaDecodeError, match=rf"`decoder: decord` .*{name}.*Set `decoder: auto`") as caught:
                read_clip(clips[name], decoder="decord", timeout=timeout)
            assert caught.value.path == str(clips[name])
    for name in DECORD:
        probe(clips[name], "decord")
    for name in {*REFUSED} - {"cut"}:  # of which only decord itself tells
        with pytest.raises(MediaDecodeError, match=rf"`decoder: decord` .*{name}.*Set `decoder: auto`"):
            probe(clips[name], "decord")
    worker._stop()


def test_a_backend_with_other_numbering_is_not_believed(clips, monkeypatch) -> None:
    class Off:
        name = "off"

        def read(self, source, index, indices):
            yield indices[0], np.zeros((2, 2, 3), np.uint8)
            raise container.NotExactError("it counts from 1")

    monkeypatch.setitem(backends._BACKENDS, "decord", Off)
    with pytest.raises(MediaDecodeError, match=r"`decoder: off` .*plain\.mp4: it counts from 1. Set `decoder: auto`"):
        read_clip(clips["plain"], decoder="decord")
    index = container.build_index(str(clips["plain"]))
    stamps = np.array([index.pts[i] for i in (0, 5, 9)]) * index.time_base
    backends._check_timestamps(stamps + 7.0, index, [0, 5, 9])  # another zero is no other numbering
    late = np.array([0, 0, index.pts[1] * index.time_base])
    for wrong in (stamps + late, stamps[:2]):
        with pytest.raises(container.NotExactError):
            backends._check_timestamps(wrong, index, [0, 5, 9])


def test_torchcodec_is_asked_for_exact_frames(clips, monkeypatch) -> None:
    """torchcodec needs system libraries that are rarely there: its interface is stood in for by a fake."""
    played, asked = play(clips["plain"]), {}
    index = container.build_index(str(clips["plain"]))

    class VideoDecoder:
        def __init__(self, source, **settings):
            asked.update(settings, source=source)

        def __len__(self):
            return len(played)

        def get_frames_at(self, indices):
            stamps = np.array([index.pts[i] * index.time_base for i in indices])
            tensor = SimpleNamespace(numpy=lambda: np.stack([played[i] for i in indices]))
            return SimpleNamespace(data=tensor, pts_seconds=SimpleNamespace(numpy=lambda: stamps))

    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=VideoDecoder))
    frames = Frames("clip")
    backends.decode(backends.TorchcodecDecoder(), str(clips["plain"]), index, [0, 9, 9, 59], frames)
    assert np.array_equal(frames.finished(), [played[0], played[9], played[9], played[59]])
    assert asked["seek_mode"] == "exact"
    assert asked["dimension_order"] == "NHWC"


@pytest.mark.parametrize("name", ["open_gop", "broadcast", "program_stream"])
def test_torchcodec_is_refused_like_decord(clips, name: str) -> None:
    source, refusal = str(clips[name]), rf"`decoder: torchcodec` .*{name}.*Set `decoder: auto`"
    with pytest.raises(MediaDecodeError, match=refusal):
        backends.check(backends.TorchcodecDecoder(), source)
    index = container.build_index(source)
    with pytest.raises(MediaDecodeError, match=refusal):
        backends.decode(backends.TorchcodecDecoder(), source, index, [0], Frames("clip"))


@pytest.mark.parametrize("key", np.load(GOLDEN / "golden" / "a_video_raw_decoded_s8.npz").files)
@pytest.mark.parametrize("decoder", INSTALLED)
def test_pixels_are_those_of_the_original(key: str, decoder: str) -> None:
    name, backend = key.split(".")
    sampling = {"decord": "first_10s", "opencv": "uniform"}[backend]
    clip = read_clip(GOLDEN / "media" / f"{name}.mp4", sampling=sampling, decoder=decoder)
    recorded = np.load(GOLDEN / "golden" / "a_video_raw_decoded_s8.npz")[key]
    difference = np.abs(clip.frames[:, ::8, ::8].astype(int) - recorded)
    assert difference.max() == 0, (difference.max(), difference.mean())  # decord's and OpenCV's recordings alike


def test_rotation_is_applied(clips) -> None:
    upright = read_clip(clips["plain"]).frames
    turned = read_clip(clips["turned_90"]).frames
    assert turned.shape[1:3] == upright.shape[2:0:-1]
    assert np.array_equal(turned, np.rot90(upright, -1, axes=(1, 2)))  # 90 in the tag: show it turned clockwise


def test_variable_rate_is_averaged(clips) -> None:
    assert read_clip(clips["vfr"]).fps == pytest.approx(60 / 3.15, rel=0.25)


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_index", "not a video, damaged or cut short"),
        (
            "cut_short",
            r"cut short: its header says 2\.4 s, the data ends at 1\.\d s; it states at least .* bytes and has",
        ),
        ("empty", "0 bytes"),
        ("text", "not a video, damaged or cut short"),
        ("sound", "no video stream, only audio"),
        ("playlist", "Cannot decode"),
        ("script", "Cannot decode"),
    ],
)
def test_broken_files_are_refused_by_name(broken, name: str, message: str, decoder: str) -> None:
    with pytest.raises(MediaDecodeError, match=message) as caught:
        read_clip(broken[name], decoder=decoder)
    assert str(broken[name]) in str(caught.value)
    assert caught.value.path == str(broken[name])
    with pytest.raises(MediaDecodeError, match=message):
        probe(broken[name])


@pytest.mark.parametrize("reader", [read_clip, probe])
def test_paths_that_are_not_local_files(reader, tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"No video at .*missing.mp4.*media_dir"):
        reader(tmp_path / "missing.mp4")
    for address in ("https://example.org/a.mp4", "file:///a.mp4", "data:video/mp4;base64,AAAA"):
        with pytest.raises(MediaNotFoundError, match="Only local files and folders"):
            reader(address)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaDecodeError, match="pipe, socket or device"):
        reader(tmp_path / "pipe.mp4")
    for other in (7, None, Image.new("RGB", (4, 4))):
        with pytest.raises(MediaDecodeError, match=f"as a video; got {type(other).__name__}"):
            reader(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder": "opencv"}, "auto, decord, torchcodec, pyav; got 'opencv'"),
        ({"sampling": "all"}, "got 'all'"),
        ({"num_frames": 0}, "got 0"),
        ({"timeout": 0}, "above 0; got 0"),
    ],
)
def test_settings_are_checked_before_any_file(settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_clip("/nowhere.mp4", **settings)


def test_a_decoder_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentMismatchError, match="pip install torchcodec"):
        read_clip("/nowhere.mp4", decoder="torchcodec")


# --- frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2, 10, 11):
        Image.fromarray(picture(number, 40, 30)).save(tmp_path / f"f_{number}.png")
    return tmp_path


def test_folder_is_in_the_order_of_its_numbers_and_strays_are_ignored(folder: Path) -> None:
    (folder / ".hidden.png").write_text("x")
    (folder / "notes.txt").write_text("x")
    (folder / "Thumbs.db").write_text("x")
    (folder / "sub.png").mkdir()
    clip = read_clip(folder, num_frames=4)
    same(clip, [picture(number, 40, 30) for number in (1, 2, 10, 11)])
    assert (clip.total_frames, clip.fps, clip.decoder, clip.source) == (4, None, "frames", str(folder))
    for sampling in ("first_10s", "fps"):
        assert read_clip(folder, num_frames=3, sampling=sampling).indices == [0, 1, 3]


def test_only_sampled_frames_are_opened(folder: Path) -> None:
    (folder / "f_10.png").write_text("damaged")
    assert read_clip(folder, num_frames=2).indices == [0, 3]
    with pytest.raises(MediaDecodeError, match=r"f_10\.png.*damaged or not an image") as caught:
        read_clip(folder, num_frames=4)
    assert caught.value.path == str(folder / "f_10.png")


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for reader in (read_clip, probe):
        with pytest.raises(EmptyMediaError, match=r"expected visible files ending in \.bmp, .*among 1 entries"):
            reader(tmp_path)


def test_frames_of_unequal_size(folder: Path) -> None:
    Image.new("RGB", (41, 30)).save(folder / "f_2.png")
    with pytest.raises(MediaDecodeError, match=r"f_1\.png is 40x30, .*f_2\.png is 41x30"):
        read_clip(folder)


def test_lists_arrays_and_streams(folder: Path, clips) -> None:
    expected = [picture(number, 40, 30) for number in (1, 2, 10)]
    paths = [folder / f"f_{number}.png" for number in (1, 2, 10)]
    pictures = [Image.fromarray(frame) for frame in expected]
    for video in (paths, [str(path) for path in paths], tuple(pictures), expected, np.stack(expected)):
        same(read_clip(video, num_frames=3), expected)
        assert (probe(video).total_frames, probe(video).width, probe(video).height) == (3, 40, 30)
    content = clips["plain"].read_bytes()
    stream = io.BytesIO(content)
    assert probe(stream).width == 96
    assert np.array_equal(read_clip(stream).frames, read_clip(content).frames)  # probing put it back
    with clips["plain"].open("rb") as file:
        assert np.array_equal(read_clip(file).frames, read_clip(content).frames)

    class OnlyRead:
        calls = 0

        def read(self) -> bytes:
            self.calls += 1
            return content

    once = OnlyRead()
    read_clip(once, decoder="decord")
    assert once.calls == 1


@pytest.mark.parametrize(
    ("video", "error", "message"),
    [
        ([], EmptyMediaError, "empty list"),
        (np.zeros((0, 4, 4, 3), np.uint8), EmptyMediaError, "no frame"),
        (np.zeros((8, 3, 4, 4), np.uint8), MediaDecodeError, r"\[T, H, W, 3\] of uint8, RGB; got \[8, 3, 4, 4\]"),
        (np.zeros((8, 4, 4, 3), np.float32), MediaDecodeError, "got .* of float32"),
        (["/nowhere/1.png"], MediaNotFoundError, "/nowhere/1.png does not exist"),
        (b"", MediaDecodeError, "0 bytes"),
        (io.StringIO("text"), MediaDecodeError, "binary stream"),
    ],
)
def test_bad_media_in_memory(video, error: type[HoundError], message: str) -> None:
    for reader in (read_clip, probe):
        if hasattr(video, "seek"):
            video.seek(0)
        with pytest.raises(error, match=message):
            reader(video)


# --- resources


def test_probe_reads_the_header(clips, folder: Path) -> None:
    assert vars(probe(clips["plain"])) == {
        "kind": "file", "total_frames": 60, "fps": 25.0, "width": 96, "height": 64
    }  # fmt: skip
    assert probe(clips["streamed"]).total_frames is None
    assert vars(probe(folder)) == {"kind": "folder", "total_frames": 4, "fps": None, "width": 40, "height": 30}


def test_no_handle_stays_open(clips, broken, folder: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    def everything() -> None:
        for video in (clips["plain"], clips["cut"], clips["broadcast"], folder, *broken.values()):
            for decoder in ("pyav", "decord"):
                with contextlib.suppress(MediaDecodeError):  # only the handles matter here
                    read_clip(video, decoder=decoder)
                    probe(video)

    everything()
    before = count()
    everything()
    assert count() == before


def test_pictures_that_change_size(clips, tmp_path: Path) -> None:
    encode(str(tmp_path / "a.ts"), frames=12, container="mpegts")
    encode(str(tmp_path / "b.ts"), frames=12, width=48, container="mpegts")
    joined = tmp_path / "joined.ts"
    with joined.open("wb") as file:
        for name in ("a.ts", "b.ts"):
            shutil.copyfileobj((tmp_path / name).open("rb"), file)
    with pytest.raises(MediaDecodeError, match="must have one size"):
        read_clip(joined)


def test_importing_loads_no_torch() -> None:
    names = "hound_plugin.media.decode, hound_plugin.media.frame_cache, hound_plugin.media.worker"
    code = f"import sys, {names}; print({{'torch', 'av', 'decord'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


_LOADERS = """
import sys, torch
from hound_plugin.media.decode import read_clip
path, decoder = sys.argv[1:]
class Clips(torch.utils.data.Dataset):
    def __len__(self): return 6
    def __getitem__(self, number):
        return torch.from_numpy(read_clip(path, decoder=decoder, timeout=60 if number % 2 else None).frames)
first = Clips()[0]
Clips()[1]  # a child of the parent process, which the workers must not use
loader = torch.utils.data.DataLoader(Clips(), batch_size=1, num_workers=2, multiprocessing_context="fork")
for _ in range(2):
    assert all(torch.equal(batch[0], first) for batch in loader)
print("equal")
"""


@pytest.mark.parametrize("decoder", [name for name in INSTALLED if name != "auto"])
def test_forked_loader_workers_read_what_their_parent_reads(clips, decoder: str) -> None:
    command = [sys.executable, "-c", _LOADERS, str(clips["plain"]), decoder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "equal\n"


def test_frames_that_would_fill_the_memory(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "frame.png")
    with pytest.raises(MediaDecodeError, match=r"frame.png; got 9000 x 9000"):
        read_clip(str(tmp_path), num_frames=8)


def test_a_video_of_pictures_that_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its header tells; nothing is decoded."""
    from hound_plugin.media import clip

    path = tmp_path / "clip.mp4"
    encode(path, frames=8)
    assert read_clip(str(path), num_frames=8).frames.shape[0] == 8
    monkeypatch.setattr(clip, "MAX_PIXELS", 100)
    for look in (probe, read_clip):
        with pytest.raises(MediaDecodeError, match=r"at most 100 pixels.* in .*clip.mp4"):
            look(str(path))


@pytest.mark.parametrize("head", ["#EXTM3U\n#EXTINF:1,", "ffconcat version 1.0\nfile"])
def test_a_list_of_files_is_refused_before_these_are_opened(head: str, tmp_path: Path) -> None:
    """One that names itself used up all file handles, one that names a pipe waited for ever."""
    os.mkfifo(tmp_path / "pipe.ts")
    for name in ("list.mp4", "pipe.ts", "missing.ts"):
        path = tmp_path / "list.mp4"
        path.write_text(f"{head}{chr(10) if head.startswith('#') else ' '}{name}\n")
        for source in (path, path.read_bytes()):
            for look in (probe, read_clip):
                if look is read_clip or isinstance(source, Path):
                    with pytest.raises(MediaDecodeError, match="it is a list of other files"):
                        look(source)


COPIED = [
    ("libx264", "h264", "mov"), ("libx264", "h264", "mkv"), ("libx265", "hevc", "mp4"), ("libx265", "hevc", "mkv"),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "raw", "suffix"), COPIED)
def test_timestamps_in_the_order_of_decoding(codec: str, raw: str, suffix: str, tmp_path: Path) -> None:
    """A raw stream has none; `ffmpeg -i clip.h264 -c copy` counts its packets, of which B pictures come early."""
    source, copy = tmp_path / f"clip.{raw}", tmp_path / f"clip.{suffix}"
    options = {"x264-params": "bframes=2:keyint=10", "x265-params": "log-level=none:pools=1:bframes=2:keyint=10"}
    encode(str(source), frames=24, width=64, height=64, codec=codec, container=raw, options=options)
    with av.open(str(source)) as old, av.open(str(copy), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            new.mux(packet)
    played = play(source)
    for count in (2, 5, 24):
        clip = read_clip(str(copy), num_frames=count)
        assert clip.indices == sample_indices("uniform", 24, count)
        same(clip, [played[i] for i in clip.indices])


@pytest.mark.parametrize(("codec", "suffix"), [("msrle", "mov"), ("qtrle", "mov"), ("smc", "mov")])
def test_a_palette_is_not_lost(codec: str, suffix: str, tmp_path: Path) -> None:
    """QuickTime's has it in the header of the file, and FFmpeg gives it with the first packet that it reads."""
    path = tmp_path / f"clip.{suffix}"
    if codec == "qtrle":
        encode(str(path), frames=16, width=64, height=48, codec=codec, pixel_format="gray")
    else:
        colours = np.stack([np.arange(256)[::-1], np.arange(256), np.full(256, 90), np.full(256, 255)], -1)
        with av.open(str(path), "w") as output:
            stream = output.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
            for number in range(16):
                pixels = picture(number, 64, 48)[..., 0], colours.astype(np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="pal8")))
            output.mux(stream.encode())
    played = play(path)
    for count in (2, 5, 16):
        clip = read_clip(str(path), num_frames=count)
        same(clip, [played[i] for i in clip.indices])
