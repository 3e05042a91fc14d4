"""A small stand-in of the hub: a real HTTP server that speaks what huggingface_hub asks for, with faults on demand."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"^/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)$")
_API = re.compile(r"^/api/datasets/([^/]+/[^/]+?)(?:/(paths-info|tree|revision)/([^/]+)(?:/(.*))?)?$")


@dataclass
class Hub:
    """Files by repository and path, and what goes wrong.

    Attributes:
        files: repository -> path -> content.
        cuts: path -> for each answer to a GET in turn, after how many bytes the connection is cut.
        gated: repositories that need a login.
        failing: path -> status codes of the next answers.
        retry_after: the header of that name in such answers, in seconds.
        redirecting: large files are answered with a redirect to another host name, as the hub does.
        requests: method, path and Range header of every request.
        times: when each of them came, in seconds.
        tokens: path and Authorization header of every request that has one.
    """

    files: dict[str, dict[str, bytes]]
    cuts: dict[str, list[int]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    failing: dict[str, list[int]] = field(default_factory=dict)
    retry_after: float | None = None
    redirecting: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    tokens: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    def gets(self, path: str) -> list[str | None]:
        """The Range headers of every GET of a file."""
        return [part for method, name, part in self.requests if method == "GET" and name.endswith(path)]


def entry(path: str, content: bytes) -> dict[str, Any]:
    """What the hub says of a file: git's digest, and for large kinds the one of git-lfs."""
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    known: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if path.endswith((".gz", ".zip")):
        known["lfs"] = {"size": len(content), "oid": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
    return known


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_POST(self) -> None:
            self.form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, self.headers.get("Range")))
            hub.times.append(time.monotonic())
            if token := self.headers.get("Authorization"):
                hub.tokens.append((path, token))
            if path.startswith("/cdn/"):
                self.resolve(*path.removeprefix("/cdn/").split("//"), body=body)
            elif found := _RESOLVE.match(path):
                if hub.redirecting and found[2].endswith((".gz", ".zip")):
                    self.redirect(f"/cdn/{found[1]}//{found[2]}")
                else:
                    self.resolve(found[1], found[2], body)
            elif found := _API.match(path):
                self.api(found[1], found[2], (found[4] or "").strip("/"))
            else:
                self.error(404, "")

        def error(self, status: int, code: str, body: bool = True) -> None:
            text = json.dumps({"error": code}).encode()
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            if hub.retry_after is not None:
                self.send_header("Retry-After", str(hub.retry_after))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(text)

        def redirect(self, path: str) -> None:
            self.send_response(302)
            self.send_header("Location", hub.address.replace("127.0.0.1", "localhost") + path)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def json(self, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def refused(self, repo: str) -> bool:
            if repo not in hub.files:
                self.error(404, "RepoNotFound")
            elif repo in hub.gated:
                self.error(403, "GatedRepo")
            else:
                return False
            return True

        def api(self, repo: str, verb: str | None, path: str) -> None:
            if self.refused(repo):
                return
            files = hub.files[repo]
            if verb == "paths-info":
                self.json([entry(name, files[name]) for name in self.form.get("paths", []) if name in files])
            elif verb == "tree":
                self.json([entry(name, files[name]) for name in files if name.startswith(f"{path}/".lstrip("/"))])
            else:
                siblings = [{"rfilename": name} for name in files]
                self.json({"id": repo, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []})

        def resolve(self, repo: str, path: str, body: bool) -> None:
            if self.refused(repo):
                return
            content = hub.files[repo].get(path)
            if content is None:
                self.error(404, "EntryNotFound")
                return
            if body and hub.failing.get(path):
                self.error(hub.failing[path].pop(0), "")
                return
            start, end = 0, len(content)
            wanted = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range") or "")
            if wanted:
                start = int(wanted[1])
                end = min(end, int(wanted[2]) + 1) if wanted[2] else end
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.end_headers()
            if body:
                cuts = hub.cuts.get(path)
                if cuts:
                    end = min(end, start + cuts.pop(0))
                    self.close_connection = True
                self.wfile.write(content[start:end])
                if self.close_connection:
                    self.wfile.flush()
                    self.connection.shutdown(2)

    return Handler


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve ``hub`` at ``hub.address`` while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


# --- contents


def frame(seed: int, size: int = 12) -> bytes:
    """A small JPEG of noise."""
    buffer = io.BytesIO()
    pixels = b"".join(hashlib.sha256(f"{seed}-{index}".encode()).digest() for index in range(size * size * 3 // 32 + 1))
    Image.frombytes("RGB", (size, size), pixels[: size * size * 3]).save(buffer, "JPEG")
    return buffer.getvalue()


def tar_gz(members: Mapping[str, bytes]) -> bytes:
    """An archive as the original's setup packs them: ``./clip/frame.jpeg``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def clips(names: list[str], frames: int = 2) -> dict[str, bytes]:
    return {f"{name}/c01_{index:04}.jpeg": frame(hash_of(name) + index) for name in names for index in range(frames)}


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def conversation(name: str, number: int, field: str = "video") -> dict[str, Any]:
    token = f"<{field}>"
    turns = [{"from": "human", "value": f"{token}\nWhat is in {number}?"}, {"from": "gpt", "value": f"Thing {number}."}]
    return {"id": f"{name}_{number}", field: name, "conversations": turns}


def preference(name: str, number: int) -> dict[str, Any]:
    return {
        "id": f"{name}_{number}",
        "video": name,
        "prompt": "<video>\nWhat moves?",
        "chosen": f"A dog {number}.",
        "rejected": "A car.",
    }


def small_hub() -> Hub:
    """The released layout in little: 16 archives of two clips each, records of every kind, test set, images."""
    train: dict[str, bytes] = {}
    names = []
    for index in range(16):
        here = [f"v_{index}_a-Scene-00{index % 10}", f"v_{index}_b"]
        names += here
        train[f"train_300k/chunk_{index}.tar.gz"] = tar_gz(clips(here))
    folder = "video_instruction/train"
    train[f"{folder}/dpo/sft_dpo_17k.jsonl"] = lines([preference(name, i) for i, name in enumerate(names)])
    train[f"{folder}/sft/video_240k_caption_15k.jsonl"] = lines([conversation(n, i) for i, n in enumerate(names)])
    train[f"{folder}/pretrain/video_caption_pretrain.jsonl"] = lines([conversation(n, i) for i, n in enumerate(names)])
    image = "allava_laion/images/7.jpeg"
    flan = "allava_vflan/images/images_191task_1k/a.jpg"
    rows = [conversation(image, 0, "image"), conversation(flan, 1, "image")]
    train[f"{folder}/sft/image_instruction_100k.jsonl"] = lines(rows)
    test = {
        "video_instruction/test/msvd.qa.jsonl": lines([conversation("test/msvd/clip", 0)]),
        "video_instruction/test/msvd.qa.official.jsonl": lines([conversation("test/msvd/clip", 1)]),
        "video_data/test/msvd.tar.gz": tar_gz(clips(["msvd/clip"])),
    }
    allava = {
        f"allava_laion/image_chunks/images_{index}.zip": zipped({f"images/{index}.jpeg": frame(index)})
        for index in range(10)
    }
    return Hub(
        {
            "ShareGPTVideo/train_video_and_instruction": train,
            "ShareGPTVideo/test_video_and_instruction": test,
            "FreedomIntelligence/ALLaVA-4V": allava,
            "Vision-Flan/vision-flan_191-task_1k": {
                "image_191-task_1k.zip": zipped({"images_191task_1k/a.jpg": frame(99)})
            },
        }
    )
