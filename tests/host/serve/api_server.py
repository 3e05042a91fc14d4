"""``llamafactory-cli api`` on the recorded checkpoint, with a greedy recipe as ``hound_api.yaml`` is one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from tests.goldens import ROOT, SFT
from tests.host.hosting import REPO, environment, write_yaml

ARGUMENTS = {
    "model_name_or_path": str(SFT),
    "template": "llava_hound",
    "infer_dtype": "float32",
    "do_sample": False,
    "max_new_tokens": 12,
    "hound": {"api_download_timeout": 5, "api_request_limit": 12},
}
LONG, SHORT = ROOT / "media" / "clip_long.mp4", ROOT / "media" / "clip_short.mp4"
WIDE = ROOT / "media" / "img_wide.jpg"
# Names of the public internet, which a test cannot reach, lead to this machine: what is checked is a public address,
# what is connected to is a real server.
ROUTES = """
import socket
import time
resolve = socket.getaddrinfo
NAMES = {"clips.test": "93.184.216.34", "rebinding.test": "93.184.216.34"}
asked = []

class Socket(socket.socket):
    def connect(self, address):
        return super().connect(("127.0.0.1", address[1]) if address[0] == "93.184.216.34" else address)

def getaddrinfo(host, port, *args, **kwargs):
    if host == "unknown.test":  # its name server does not answer
        time.sleep(30)
    if host == "rebinding.test":  # public when the host asks, private when it is asked again
        asked.append(host)
        return resolve_as("93.184.216.34" if len(asked) % 2 else "127.0.0.1", port)
    if host in NAMES:
        return resolve_as(NAMES[host], port)
    return resolve(host, port, *args, **kwargs)

def resolve_as(address, port):
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

socket.getaddrinfo = getaddrinfo
socket.socket = Socket
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_media(parent: Path) -> Path:
    """The allowed folder, and around it what must not be read."""
    folder = parent / "allowed"
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


@contextmanager
def serving(folder: Path, media: Path) -> Iterator[openai.OpenAI]:
    """The server in a process of its own, working in ``folder``; gives a client."""
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
