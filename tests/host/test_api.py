"""``llamafactory-cli api`` in a process of its own, driven by the ``openai`` client."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from llamafactory.chat import ChatModel
from PIL import Image

from hound_plugin.errors import MediaNotFoundError
from hound_plugin.host.engine import asker_gone
from hound_plugin.host.sources import fetch, is_inside, is_public
from tests.goldens import ROOT, SFT
from tests.host.hosting import REPO, environment, write_yaml

ARGUMENTS = {
    "model_name_or_path": str(SFT),
    "template": "llava_hound",
    "infer_dtype": "float32",
    "do_sample": False,
    "max_new_tokens": 12,
}
LONG, SHORT = ROOT / "media" / "clip_long.mp4", ROOT / "media" / "clip_short.mp4"
WIDE = ROOT / "media" / "img_wide.jpg"
# Names of the public internet, which a test cannot reach, lead to this machine: what is checked is a public address,
# what is connected to is a real server.
ROUTES = """
import socket
resolve = socket.getaddrinfo
NAMES = {"clips.test": "93.184.216.34", "rebinding.test": "93.184.216.34"}
asked = []

def getaddrinfo(host, port, *args, **kwargs):
    if host == "93.184.216.34":
        return resolve("127.0.0.1", port, *args, **kwargs)
    if host == "rebinding.test":  # public when the host asks, private when it is asked again
        asked.append(host)
        return resolve_as("93.184.216.34" if len(asked) % 2 else "127.0.0.1", port)
    if host in NAMES:
        return resolve_as(NAMES[host], port)
    return resolve(host, port, *args, **kwargs)

def resolve_as(address, port):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

socket.getaddrinfo = getaddrinfo
"""


def narrow_png(width: int) -> bytes:
    """A picture one pixel high, in about a hundred bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, 1)).save(file, "PNG")
    return file.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The allowed folder, and around it what must not be read."""
    folder = tmp_path_factory.mktemp("api") / "allowed"
    folder.mkdir()
    for file in (LONG, SHORT, WIDE):
        shutil.copy(file, folder)
    shutil.copytree(ROOT / "frames" / "clip_long", folder / "frames")
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no clip at all")
    (folder / "cut.mp4").write_bytes(LONG.read_bytes()[:3000])
    (folder / "postscript.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{LONG}\n#EXT-X-ENDLIST\n")
    evil = folder.parent / "allowed-evil"
    shutil.copytree(ROOT / "frames" / "clip_short", evil)
    shutil.copy(SHORT, evil / "clip.mp4")
    (folder / "link.mp4").symlink_to(evil / "clip.mp4")
    (folder / "link_folder").symlink_to(evil)
    (folder / "mixed").mkdir()
    frames = sorted(evil.glob("*.jpeg"))
    shutil.copy(frames[0], folder / "mixed")
    (folder / "mixed" / "c01_9999.jpeg").symlink_to(frames[0])
    (folder / "nothing").mkdir()
    shutil.copytree(folder / "frames", folder / "disordered")
    shutil.copy(WIDE, folder / "disordered" / "cover.jpg")
    return folder


@pytest.fixture(scope="module")
def client(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "sitecustomize.py").write_text(ROUTES)
    port = free_port()
    env = environment(
        folder,
        PYTHONPATH=f"{folder}:{REPO}",
        SAFE_MEDIA_PATH=str(media),
        API_HOST="127.0.0.1",
        API_PORT=str(port),
        API_KEY="secret",
        API_VERBOSE="0",
        MAX_CONCURRENT="2",
    )
    recipe = write_yaml(folder / "api.yaml", ARGUMENTS)
    log = (folder / "log.txt").open("w")
    program = str(Path(sys.executable).with_name("llamafactory-cli"))
    server = subprocess.Popen([program, "api", str(recipe)], cwd=folder, env=env, stdout=log, stderr=log)
    connection = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="secret", max_retries=0, timeout=60)
    try:
        wait_for(connection, server, folder / "log.txt")
        yield connection
        assert server.poll() is None, "the server ended during the tests"
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def wait_for(connection: openai.OpenAI, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        try:
            connection.models.list()
            return
        except openai.APIConnectionError:
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


@pytest.fixture(scope="module")
def local() -> ChatModel:
    return ChatModel(dict(ARGUMENTS))


def part(kind: str, url: Any) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": str(url)}}


def content(text: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [*parts, {"type": "text", "text": text}]


def ask(client: openai.OpenAI, *messages: Any, stream: bool = False, **options: Any) -> str:
    turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(messages)]
    answer = client.chat.completions.create(model="hound", messages=turns, stream=stream, **options)  # type: ignore[call-overload]
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    return str(answer.choices[0].message.content)


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


NARROW = f"data:image/png;base64,{base64.b64encode(narrow_png(65500)).decode()}"
BAD = {
    "missing": ("video", "nowhere.mp4", "media folder"),
    "empty": ("video", "empty.mp4", "empty"),
    "text": ("video", "notes.txt", "Cannot decode"),
    "cut": ("video", "cut.mp4", "Cannot decode"),
    "playlist": ("video", "playlist.mp4", "Cannot decode"),
    "no image": ("image", "notes.txt", "cannot be decoded"),
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
    "part of a folder": ("video", "frames#t=1,2", "a folder of frames has no clock"),
    "part of an image": ("image", "img_wide.jpg#t=1,2", "an image has no clock"),
    "part that is none": ("video", "clip_long.mp4#t=2,1", "START < END"),
    "part behind the end": ("video", "clip_long.mp4#t=99", "no frame from 99 s on"),
    "part of an address": ("video", "http://WEB/clip.mp4#t=1,2", "the address of a whole video"),
    "part beside": ("video", "../allowed-evil/clip.mp4#t=0,1", "media folder"),
    "part of a link": ("video", "link.mp4#t=0,1", "media folder"),
    "part of a system file": ("video", "/etc/passwd#t=0,1", "media folder"),
    "system file": ("video", "/etc/passwd", "media folder"),
    "system folder": ("video", "/etc", "media folder"),
    "file address": ("video", "file:///etc/passwd", "media folder"),
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
    url = url.replace("WEB", web) if ":" in url or url.startswith("/") else str(media / url)
    with pytest.raises(openai.BadRequestError, match=reason):
        ask(client, content("What moves?", part(kind, url)), stream=stream)


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
    with pytest.raises(openai.BadRequestError, match="Expected no tools"):
        ask(client, "What?", extra_body={"tools": [{"x": 1}]})
    for name in ("temperature", "presence_penalty"):
        with pytest.raises(openai.BadRequestError, match=name):
            ask(client, "What?", extra_body={name: 1e9})
    with pytest.raises(openai.BadRequestError, match=r"presence_penalty: expected 0, or 0.1 to 10"):
        ask(client, "What?", presence_penalty=1e-40)
    plain = ask(client, "What?", temperature=0)
    assert ask(client, "What?", temperature=1e-308, presence_penalty=0, extra_body={"do_sample": True}) == plain
    with pytest.raises(openai.BadRequestError, match="1 \\(streamed\\)"):
        ask(client, "What?", n=2, stream=True)
    with pytest.raises(openai.AuthenticationError):
        ask(client.with_options(api_key="wrong"), "What?")
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
    token = asker_gone.set(gone)
    try:
        answer = local.chat([{"role": "user", "content": "Tell a story."}], max_new_tokens=50)[0]
    finally:
        asker_gone.reset(token)
    assert answer.response_length == 1


def test_several_answers(client: openai.OpenAI, media: Path) -> None:
    answer: Any = client.chat.completions.create(
        model="hound",
        messages=[{"role": "user", "content": content("What?", part("video", media / "clip_long.mp4"))}],  # type: ignore[typeddict-item]
        n=2,
    )
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_https_is_verified_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to an address, the certificate belongs to a name."""
    certificate = make_certificate(tmp_path, "clips.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Clips)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    names = dict.fromkeys(("clips.test", "other.test"), "93.184.216.34") | {"93.184.216.34": "127.0.0.1"}
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, *args, **kwargs: [(2, 1, 6, "", (names.get(host, host), port))]
    )
    with pytest.raises(MediaNotFoundError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"https://clips.test:{port}/clip.mp4")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert fetch(f"https://clips.test:{port}/clip.mp4") == LONG.read_bytes()
    with pytest.raises(MediaNotFoundError, match=r"doesn't match 'clips\.test'"):
        fetch(f"https://other.test:{port}/clip.mp4")
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
