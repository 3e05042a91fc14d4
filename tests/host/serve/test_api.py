"""``llamafactory-cli api`` in a process of its own, driven by the ``openai`` client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import shutil
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest
from fastapi import HTTPException
from llamafactory.chat import ChatModel
from PIL import Image

from hound_plugin.errors import MediaError, MediaNotFoundError
from hound_plugin.host.serve import api_downloads
from hound_plugin.host.serve.api_downloads import fetch, is_public
from hound_plugin.host.serve.api_media import open_source
from hound_plugin.media.cancellation import client_disconnected
from hound_plugin.records.served_media import is_inside
from tests.goldens import ROOT
from tests.host.serve.api_server import LONG, SHORT, WIDE, ask, content, part
from tests.media.clips import encode


def narrow_png(width: int) -> bytes:
    """A picture one pixel high, in about a hundred bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, 1)).save(file, "PNG")
    return file.getvalue()


class Clips(BaseHTTPRequestHandler):
    """``/clip.mp4``, redirects, and what is no clip."""

    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.path)
        port = self.server.server_address[1]
        targets = {
            "/moved": f"http://clips.test:{port}/clip.mp4",
            "/inwards": f"http://127.0.0.1:{port}/clip.mp4",
            "/round": f"http://clips.test:{port}/round",
        }
        if self.path in targets:
            self.send_response(302)
            self.send_header("Location", targets[self.path])
            self.end_headers()
            return
        body = {"/clip.mp4": LONG.read_bytes(), "/page": b"<html>no clip</html>"}.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Clips)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"clips.test:{server.server_address[1]}"
    server.shutdown()


def expected(local: ChatModel, *messages: str, **media: Any) -> str:
    turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(messages)]
    return local.chat(turns, **media)[0].response_text


def test_a_clip_by_path_bytes_and_address(client: openai.OpenAI, local: ChatModel, media: Path, web: str) -> None:
    want = expected(local, "<video>What moves?", videos=[str(LONG)])
    encoded = base64.b64encode(LONG.read_bytes()).decode()
    for url in (
        media / "clip_long.mp4",
        f"data:video/mp4;base64,{encoded}",
        f"http://{web}/clip.mp4",
        f"http://{web}/moved",
    ):
        assert ask(client, content("What moves?", part("video", url))) == want
        assert ask(client, content("What moves?", part("video", url)), stream=True).strip() == want.strip()
    frames = expected(local, "<video>What moves?", videos=[str(ROOT / "frames" / "clip_long")])
    assert ask(client, content("What moves?", part("video", media / "frames"))) == frames
    second = expected(local, "<video>What moves?", videos=[f"{LONG}#t=8,9"])
    assert ask(client, content("What moves?", part("video", media / "clip_long.mp4#t=8,9"))) == second


def as_data(file: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def test_every_way_to_write_a_clip(client: openai.OpenAI, local: ChatModel, media: Path) -> None:
    """Harnesses write ``file://`` addresses, bare texts in place of objects, and Qwen's ``type: video``."""
    want = expected(local, "<video>What moves?", videos=[str(LONG)])
    shutil.copy(LONG, media / "50% of é #1?.mp4")
    path = str(media / "clip_long.mp4")
    odd = quote(str(media / "50% of é #1?.mp4"))
    encoded = as_data(LONG, "video/mp4;codecs=avc1.42E01E")
    for item in (
        {"type": "video_url", "video_url": path},
        {"type": "video_url", "video_url": f"file://{path}"},
        {"type": "video_url", "video_url": {"url": f"file://localhost{odd}"}},
        {"type": "video_url", "video_url": {"url": f"FILE://{odd}", "detail": "low"}},
        {"type": "video", "video": path},
        {"type": "video", "video": {"url": f"file://{path}"}},
        {"type": "video", "video_url": {"url": encoded}},
        {"type": "video", "path": path},
        {"type": "input_video", "url": encoded.replace("data:video/mp4", "DATA:VIDEO/MP4")},
        {"type": "input_video", "input_video": path},
        {"type": "input_video", "input_video": {"url": path}},
    ):
        assert ask(client, content("What moves?", item)) == want, item
    second = expected(local, "<video>What moves?", videos=[f"{LONG}#t=8,9"])
    assert ask(client, content("What moves?", part("video", f"file://{path}#t=8,9"))) == second
    frames = sorted(str(frame) for frame in (media / "frames").iterdir())
    want = expected(local, "<video>What moves?", videos=[frames])
    assert ask(client, content("What moves?", {"type": "video", "video": frames})) == want
    listed = [as_data(Path(frame), "image/jpeg") for frame in frames]
    assert ask(client, content("What moves?", {"type": "video", "video": listed})) == want
    want = expected(local, "<image>What?", images=[str(WIDE)])
    picture = str(media / "img_wide.jpg")
    for item in (
        {"type": "image_url", "image_url": f"file://{picture}"},
        {"type": "image", "image": picture},
        {"type": "input_image", "image_url": as_data(WIDE, "image/jpeg")},
    ):
        assert ask(client, content("What?", item)) == want, item


CONTAINERS = {
    "a.webm": ("video/webm", "libvpx"),
    "a.mov": ("video/quicktime", "libx264"),
    "a.mkv": ("video/x-matroska", "libx264"),
    "a.avi": ("video/x-msvideo", "mpeg4"),
    "a.gif": ("image/gif", "gif"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_clips_as_data_of_every_container(name: str, client: openai.OpenAI, local: ChatModel, tmp_path: Path) -> None:
    kind, codec = CONTAINERS[name]
    encode(tmp_path / name, 12, codec=codec, **({"pixel_format": "rgb8"} if codec == "gif" else {}))
    want = expected(local, "<video>What moves?", videos=[str(tmp_path / name)])
    assert ask(client, content("What moves?", part("video", as_data(tmp_path / name, kind)))) == want


def test_clips_and_images_over_several_turns(client: openai.OpenAI, local: ChatModel, media: Path) -> None:
    first = content("One?", part("video", media / "clip_long.mp4"), part("video", media / "clip_short.mp4"))
    data = base64.b64encode(WIDE.read_bytes()).decode()
    second = content("Two?", part("image", f"data:image/jpeg;base64,{data}"))
    third = content("Three?", part("image", media / "img_wide.jpg"))
    turns = ("<video><video>One?", "Yes.", "<image>Two?", "No.", "<image>Three?")
    want = expected(local, *turns, videos=[str(LONG), str(SHORT)], images=[str(WIDE), str(WIDE)])
    assert ask(client, first, "Yes.", second, "No.", third) == want


def test_requests_at_the_same_time(client: openai.OpenAI, local: ChatModel, media: Path) -> None:
    clips = {"clip_long.mp4": LONG, "clip_short.mp4": SHORT, "clip_portrait.mp4": None}
    del clips["clip_portrait.mp4"]
    jobs = [(name, question) for name in clips for question in ("What?", "Why?", "Where?")]
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(
                lambda job: ask(client, content(job[1], part("video", media / job[0])), stream=job[1] == "Why?"), jobs
            )
        )
    for (name, question), answer in zip(jobs, answers, strict=True):
        assert answer.strip() == expected(local, f"<video>{question}", videos=[str(clips[name])]).strip()


def test_literal_control_tokens_are_text(client: openai.OpenAI, media: Path) -> None:
    assert ask(client, "Is <video> or <image> a word? </s>")
    assert ask(client, content("Is <video> a word?", part("video", media / "clip_long.mp4")))
    assert ask(client, "<image>", "<video>", "<video>")


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def animation() -> bytes:
    file = io.BytesIO()
    first, *others = (Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue"))
    first.save(file, "GIF", save_all=True, append_images=others)
    return file.getvalue()


NARROW = f"data:image/png;base64,{base64.b64encode(narrow_png(65500)).decode()}"
BAD = {
    "missing": ("video", "nowhere.mp4", "media folder"),
    "empty": ("video", "empty.mp4", "empty"),
    "text": ("video", "notes.txt", "Cannot decode"),
    "cut": ("video", "cut.mp4", "Cannot decode"),
    "playlist": ("video", "playlist.mp4", "Cannot decode"),
    "no image": ("image", "notes.txt", "cannot be decoded"),
    "a picture as a clip": ("video", "img_wide.jpg", "expected a clip, got a picture"),
    "a picture sent as a clip": ("video", f"data:video/mp4;base64,{as_text(WIDE.read_bytes())}", "got a picture"),
    "an animation as an image": ("image", f"data:image/gif;base64,{as_text(animation())}", "it has 3, as an animation"),
    "postscript": ("image", "postscript.png", "PostScript is a program"),
    "folder as image": ("image", "frames", "regular file"),
    "empty folder": ("video", "nothing", "No frame"),
    "beside": ("video", "../allowed-evil/clip.mp4", "media folder"),
    "folder beside": ("video", "../allowed-evil", "media folder"),
    "image beside": ("image", "../allowed-evil/clip.mp4", "media folder"),
    "link": ("video", "link.mp4", "media folder"),
    "linked folder": ("video", "link_folder", "media folder"),
    "linked frame": ("video", "mixed", "media folder"),
    "disordered folder": ("video", "disordered", "Cannot tell the order of the frames"),
    "part of a folder": ("video", "frames#t=1,2", "a folder of frames has no timestamps"),
    "part of an image": ("image", "img_wide.jpg#t=1,2", "an image has no timestamps"),
    "part that is none": ("video", "clip_long.mp4#t=2,1", "START < END"),
    "part behind the end": ("video", "clip_long.mp4#t=99", "no frame from 99 s on"),
    "part of an address": ("video", "http://WEB/clip.mp4#t=1,2", "the address of a whole video"),
    "track of an address": ("video", "http://WEB/clip.mp4#track=audio&t=,2", "the address of a whole video"),
    "region of an address": ("image", "http://WEB/one.png#xywh=0,0,9,9", "the address of a whole image"),
    "part beside": ("video", "../allowed-evil/clip.mp4#t=0,1", "media folder"),
    "part of a link": ("video", "link.mp4#t=0,1", "media folder"),
    "part of a system file": ("video", "/etc/passwd#t=0,1", "media folder"),
    "system file": ("video", "/etc/passwd", "media folder"),
    "system folder": ("video", "/etc", "media folder"),
    "file address": ("video", "file:///etc/passwd", "media folder"),
    "file address of a link": ("video", "file://MEDIA/link.mp4", "media folder"),
    "file address upwards": ("video", "file://MEDIA/../allowed-evil/clip.mp4", "media folder"),
    "file address upwards, escaped": ("video", "file://MEDIA/%2e%2e/allowed-evil%2Fclip.mp4", "media folder"),
    "file address of a part of a link": ("video", "file://MEDIA/link.mp4#t=0,1", "media folder"),
    "file address of an escaped part": ("video", "file://MEDIA/clip_long.mp4%23t=0,1", "media folder"),
    "file address with a null": ("video", "file://MEDIA/clip_long.mp4%00", "media folder"),
    "file address of another machine": ("video", "file://fileserver/clip_long.mp4", "file:///ABSOLUTE/PATH"),
    "relative file address": ("video", "file:clip_long.mp4", "file:///ABSOLUTE/PATH"),
    "file address with a query": ("video", "file://MEDIA/clip_long.mp4?x=1", "file:///ABSOLUTE/PATH"),
    "file address of no address": ("video", "file://[::1/clip_long.mp4", "file:///ABSOLUTE/PATH"),
    "image by file address": ("image", "file:///etc/passwd", "media folder"),
    "data of another kind": ("video", "data:video/x;base64,AAAA", "one of mp4, webm, quicktime"),
    "data that is no clip": ("video", "data:video/mp4;base64,AAAA", "Cannot decode"),
    "a picture that would fill the memory": ("image", NARROW, "padded to a square; got 65500 x 65500"),
    "data that is no base64": ("video", "data:video/mp4;base64,A", "base64"),
    "private address": ("video", "http://127.0.0.1:1/clip.mp4", "private"),
    "private name": ("video", "http://localhost:1/clip.mp4", "private"),
    "redirect inwards": ("video", "http://WEB/inwards", "private"),
    "redirects without end": ("video", "http://WEB/round", "redirects"),
    "changing name": ("video", "http://rebinding.test:1/clip.mp4", "private"),
    "page": ("video", "http://WEB/page", "Cannot decode"),
    "not there": ("video", "http://WEB/none", "404"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_bad_media_are_a_400_with_a_reason(
    name: str, stream: bool, client: openai.OpenAI, media: Path, web: str
) -> None:
    kind, url, reason = BAD[name]
    is_whole = ":" in url or url.startswith("/")
    url = url.replace("WEB", web).replace("MEDIA", str(media)) if is_whole else str(media / url)
    with pytest.raises(openai.BadRequestError, match=reason) as caught:
        ask(client, content("What moves?", part(kind, url)), stream=stream)
    assert caught.value.param in ("messages[0].content[0]", "messages", None)


def test_a_redirect_inwards_is_not_followed(client: openai.OpenAI, web: str) -> None:
    Clips.seen.clear()
    with pytest.raises(openai.BadRequestError):
        ask(client, content("What?", part("video", f"http://{web}/inwards")))
    assert Clips.seen == ["/inwards"]


def test_other_bad_requests(client: openai.OpenAI, media: Path) -> None:
    clip = part("video", media / "clip_long.mp4")
    with pytest.raises(openai.BadRequestError, match="no longer fits"):
        ask(client, content("What?", *[clip] * 11))
    with pytest.raises(openai.BadRequestError, match="no longer fits"):
        ask(client, "word " * 5000, stream=True)
    with pytest.raises(openai.BadRequestError, match="media in messages of the user only"):
        ask(client, "What?", content("This", clip), "Why?")
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        ask(client, "What?", max_tokens=0)
    assert ask(client, content("What?", clip), max_tokens=100000)


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_surrogate_pair_is_a_400(client: openai.OpenAI, stream: bool) -> None:
    """JSON can hold it, UTF-8 cannot; the client does not send it, so this speaks HTTP itself."""
    for body in (
        {"model": "hound", "messages": [{"role": "user", "content": "\ud800"}]},
        {"model": "hound", "messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]},
        {"model": "hound", "messages": [{"role": "system", "content": "\ud800"}, {"role": "user", "content": "x"}]},
        {"model": "\ud800", "messages": [{"role": "user", "content": "x"}]},
    ):
        request = urllib.request.Request(
            f"{str(client.base_url).rstrip('/')}/chat/completions",
            json.dumps({**body, "stream": stream}).encode(),
            {"Authorization": "Bearer secret", "Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        assert caught.value.code == 400
        assert b"surrogate" in caught.value.read()


def test_an_answer_keeps_within_the_context(client: openai.OpenAI, local: ChatModel, media: Path) -> None:
    """10 clips leave less than 176 tokens; the model, which knows no end, stops at the context's."""
    clip = part("video", media / "clip_long.mp4")
    answer: Any = client.chat.completions.create(
        model="hound",
        messages=[{"role": "user", "content": content("What?", *[clip] * 10)}],  # type: ignore[typeddict-item]
        max_tokens=1000,
    )
    assert answer.usage.total_tokens <= 4096
    assert answer.usage.prompt_tokens > 3920


def test_nobody_waits_for_answers_that_were_given_up(client: openai.OpenAI) -> None:
    """Eight long ones, streamed or not, would keep the server's two places for minutes."""
    impatient = client.with_options(timeout=1)

    def give_up(number: int) -> None:
        if number % 2:
            with pytest.raises(openai.APITimeoutError):
                ask(impatient, f"Tell {number} stories.", max_tokens=3500)
        else:
            messages: Any = [{"role": "user", "content": f"Tell {number} stories."}]
            with contextlib.suppress(openai.APITimeoutError):
                impatient.chat.completions.create(
                    model="hound", messages=messages, max_tokens=3500, stream=True
                ).close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(give_up, range(8)))
    assert ask(client, "And now?", max_tokens=2)


def test_the_engine_is_told_that_nobody_waits(local: ChatModel) -> None:
    gone = threading.Event()
    gone.set()
    token = client_disconnected.set(gone)
    try:
        answer = local.chat([{"role": "user", "content": "Tell a story."}], max_new_tokens=50)[0]
    finally:
        client_disconnected.reset(token)
    assert answer.response_length == 1


def test_https_is_verified_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to an address, the certificate belongs to a name."""
    certificate = make_certificate(tmp_path, "clips.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Clips)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    names = dict.fromkeys(("clips.test", "other.test"), "93.184.216.34")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, *args, **kwargs: [(2, 1, 6, "", (names.get(host, host), port))]
    )

    class Socket(socket.socket):
        def connect(self, address: Any) -> None:
            super().connect(("127.0.0.1", address[1]) if address[0] == "93.184.216.34" else address)

    monkeypatch.setattr(socket, "socket", Socket)
    with pytest.raises(MediaNotFoundError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(fetch(f"https://clips.test:{port}/clip.mp4", "video"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert asyncio.run(fetch(f"https://clips.test:{port}/clip.mp4", "video")) == LONG.read_bytes()
    with pytest.raises(MediaNotFoundError, match=r"not valid for 'other\.test'"):
        asyncio.run(fetch(f"https://other.test:{port}/clip.mp4", "video"))
    server.shutdown()


@pytest.mark.parametrize("location", ["clip.mp4#t=1,2", "/clip.mp4#xywh=0,0,8,8"])
def test_a_redirect_to_a_part_is_refused(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole clip was taken for the part."""

    class Redirects(Clips):
        def do_GET(self) -> None:
            if self.path != "/moved":
                super().do_GET()
                return
            self.send_response(302)
            self.send_header("Location", location)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(api_downloads, "is_public", lambda _: True)
    monkeypatch.setattr("llamafactory.api.common.check_ssrf_url", lambda _: None)
    with pytest.raises(MediaError, match="Expected the address of a whole video"):
        asyncio.run(fetch(f"http://127.0.0.1:{server.server_address[1]}/moved", "video"))
    server.shutdown()


def make_certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate with its key in one file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    text = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    text += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "certificate.pem").write_bytes(text)
    return folder / "certificate.pem"


def test_what_is_inside_and_what_is_public(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert is_inside(str(tmp_path / "a" / "x"), str(tmp_path / "a"))
    assert not is_inside(str(tmp_path / "ab"), str(tmp_path / "a"))
    assert not is_inside(str(tmp_path / "a" / ".." / "b"), str(tmp_path / "a"))
    assert is_inside("/x", "/")
    public = ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"]
    private = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1%eth0"]
    private += ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00::1", "192.0.0.192", "168.63.129.16"]
    private += ["::7f00:1", "64:ff9b:1::7f00:1", "::ffff:0:7f00:1", "fec0::1", "3fff::1", "5f00::1", "192.88.99.1"]
    assert [address for address in public if not is_public(address)] == []
    assert [address for address in private if is_public(address)] == []


def test_paths_are_refused_where_the_host_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ALLOW_LOCAL_FILES=0`` holds for every way to write a path."""
    shutil.copy(LONG, tmp_path / "clip.mp4")
    monkeypatch.setattr("llamafactory.api.common.SAFE_MEDIA_PATH", str(tmp_path))
    for url in (f"{tmp_path}/clip.mp4", f"file://{tmp_path}/clip.mp4", f"FILE://localhost{tmp_path}/clip.mp4#t=0,1"):
        assert open_source(url, "video") == str(tmp_path / "clip.mp4") + url.partition(".mp4")[2]
        with monkeypatch.context() as patch:
            patch.setattr("llamafactory.api.common.ALLOW_LOCAL_FILES", False)
            with pytest.raises(HTTPException) as caught:
                open_source(url, "video")
            assert caught.value.status_code == 403
