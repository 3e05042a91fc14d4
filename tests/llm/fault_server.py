"""A chat-completions server that does what a real one cannot be made to do. Real HTTP, a process of its own.

``python -m tests.llm.fault_server`` prints its port. It finds ``[item-N]`` in the last message, grades item N by
``grade(N)``, and counts. ``POST /control`` sets: ``script`` (kinds of the next answers), ``share`` and ``kinds``
(a share of faults, at random), ``items`` (item -> kind of all its answers), ``rate`` and ``burst`` (requests a second,
else 429), ``latency``, ``retry_after`` (of kind ``429-after``), ``location`` (of kind ``redirect``), ``text``
(the content of kind ``say``), ``replaced`` (JSON in place of the ``usage`` of kind ``odd-usage``, in batches).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from typing import Any

from aiohttp import web

from tests.llm.odd_replies import BODIES, ECHOES, echo, packed
from tests.llm.odd_replies import body as reply_with

ITEM = re.compile(r"\[item-(\d+)\]")
BAD_BODIES: dict[str, str] = {
    "prose": "I would say the score is 4 out of 5, because it is good.",
    "schema": '{"grade": 4, "why": "fine"}',
    "range": '{"reason": "superb", "score": 9}',
    "twice": '{"reason": "a", "score": 1, "score": 5}',
    "float": '{"reason": "a", "score": 4.5}',
    "word": '{"reason": "a", "score": "four"}',
    "empty": "",
    "surrogate": '{"reason": "half a pair: \ud83d", "score": 4}',
    "json-cut": '{"reason": "a", "sco',
}
STATUS: dict[str, tuple[int, dict[str, Any]]] = {
    "500": (500, {"message": "broken", "type": "server_error"}),
    "429": (429, {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}),
    "429-after": (429, {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}),
    "quota": (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    "key": (401, {"message": "Incorrect API key provided: sk-test-secret-1234567890", "code": "invalid_api_key"}),
    "model": (404, {"message": "The model `x` does not exist", "code": "model_not_found"}),
    "bad": (400, {"message": "maximum context length", "code": "context_length_exceeded"}),
    "no-schema": (400, {"message": "response_format is not supported", "code": "invalid_request"}),
    "blocked": (400, {"message": "filtered", "code": "content_filter"}),
}


def grade(item: int) -> int:
    """The score that this server gives."""
    return 1 + (item * 7919) % 5


class Server:
    """State and handlers."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.scored: Counter[int] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.settings: dict[str, Any] = {"script": [], "share": 0.0, "kinds": [], "items": {}}
        self.settings |= {"rate": 0, "burst": 0, "latency": 0.0}
        self.tokens, self.filled = 0.0, time.monotonic()
        self.models: dict[str, Any] = {}
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.running = self.peak = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**28)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.post("/openai/deployments/{name}/chat/completions", self.chat),
                web.get("/v1/models/{name}", self.model),
                web.post("/v1/files", self.upload),
                web.get("/v1/files/{name}/content", self.download),
                web.post("/v1/batches", self.create_batch),
                web.get("/v1/batches", self.list_batches),
                web.get("/v1/batches/{name}", self.get_batch),
                web.post("/control", self.control),
                web.get("/stats", self.stats),
                web.get("/brief", self.brief),
            ]
        )
        return app

    async def control(self, request: web.Request) -> web.Response:
        given = await request.json()
        self.models.update(given.pop("models", {}))
        self.settings.update(given)
        self.tokens, self.filled = float(self.settings["burst"]), time.monotonic()
        return web.json_response({})

    async def stats(self, _: web.Request) -> web.Response:
        scored = {str(item): number for item, number in self.scored.items()}
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        found = {"counts": self.counts, "scored": scored, "bodies": self.bodies[-50:], "span": span, "peak": self.peak}
        return web.json_response({**found, "batches": list(self.batches.values())})

    async def brief(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": self.counts["requests"]})

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response({"id": name, "object": "model", **self.models.get(name, {})})

    def limited(self) -> bool:
        rate = self.settings["rate"]
        if not rate:
            return False
        now = time.monotonic()
        self.tokens = min(float(self.settings["burst"]), self.tokens + (now - self.filled) * rate)
        self.filled = now
        if self.tokens < 1:
            return True
        self.tokens -= 1
        return False

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.counts["requests"] += 1
        self.times.append(time.monotonic())
        if len(self.times) > 2:
            del self.times[1:-1]
        if len(self.bodies) < 200:
            self.bodies.append({"body": body, "authorization": bool(request.headers.get("authorization"))})
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            if self.limited():
                self.counts["limited"] += 1
                headers = {"Retry-After": "0.2"}
                return web.json_response({"error": STATUS["429"][1]}, status=429, headers=headers)
            script, kinds = self.settings["script"], self.settings["kinds"]
            kind = script.pop(0) if script else "ok"
            item = ITEM.search(message_text(body))
            kind = self.settings["items"].get(item[1], kind) if item else kind
            if kinds and self.random.random() < self.settings["share"]:
                kind = self.random.choice(kinds)
            self.counts[kind] += 1
            return await self.answer(kind, body, request)
        finally:
            self.running -= 1

    async def answer(self, kind: str, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self.settings["latency"])
        if kind in STATUS:
            status, error = STATUS[kind]
            headers = {"Retry-After": str(self.settings.get("retry_after", 1))} if kind == "429-after" else {}
            return web.json_response({"error": error}, status=status, headers=headers)
        if kind == "redirect":
            return web.Response(status=307, headers={"Location": self.settings["location"]})
        if kind in ECHOES:
            return echo(kind, request.headers["Authorization"].removeprefix("Bearer "))
        if kind.startswith("reply:"):
            return web.Response(text=reply_with(kind.removeprefix("reply:")), content_type="application/json")
        if kind in BODIES:
            text = BODIES[kind]
            found = b'{"choices": "\xff\xfe"}' if text == "latin" else text.encode("utf-8", "surrogatepass")
            return web.Response(body=found, content_type="application/json")
        if (reply := packed(kind)) is not None:
            return reply
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "slow":
            await asyncio.sleep(1.0)
        if kind == "cut":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        text = json.dumps(completion(kind, body, self.settings.get("text", "")))
        if kind == "truncated":
            return web.Response(text=text[: len(text) // 2], content_type="application/json")
        found = ITEM.search(message_text(body))
        if kind in ("ok", "slow") and found:
            self.scored[int(found[1])] += 1
        return web.Response(text=text, content_type="application/json")

    # --- Batch API

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"].file.read().decode()  # type: ignore[union-attr]
        self.counts["files"] += 1
        return web.json_response({"id": name, "object": "file", "purpose": "batch", "bytes": 1, "created_at": 1,
                                  "filename": "x", "status": "processed"})  # fmt: skip

    async def download(self, request: web.Request) -> web.Response:
        return web.Response(text=self.files[request.match_info["name"]])

    async def create_batch(self, request: web.Request) -> web.Response:
        given = await request.json()
        name = f"batch_{len(self.batches)}"
        self.counts["batches"] += 1
        self.batches[name] = {
            "id": name, "object": "batch", "endpoint": given["endpoint"], "input_file_id": given["input_file_id"],
            "completion_window": "24h", "status": "in_progress", "created_at": int(time.time()),
            "metadata": given.get("metadata"), "output_file_id": None, "error_file_id": None,
        }  # fmt: skip
        if self.settings.get("die_after_batch"):  # the batch exists, its answer never arrives
            self.settings["die_after_batch"] = False
            assert request.transport is not None
            request.transport.close()
        return web.json_response(self.batches[name])

    async def list_batches(self, _: web.Request) -> web.Response:
        found = list(self.batches.values())
        return web.json_response({"object": "list", "data": found, "has_more": False,
                                  "first_id": found[0]["id"] if found else None, "last_id": None})  # fmt: skip

    async def get_batch(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["name"]]
        if batch["status"] == "in_progress" and not self.settings.get("hold"):
            self.finish(batch)
        return web.json_response(batch)

    def finish(self, batch: dict[str, Any]) -> None:
        """Answer the rows; ``script`` gives kinds: ok, expired, failed, bad, prose, ..."""
        out, bad, status = [], [], "completed"
        script = self.settings["script"]
        for line in self.files[batch["input_file_id"]].splitlines():
            row = json.loads(line)
            kind = script.pop(0) if script else "ok"
            self.counts[kind] += 1
            self.counts["rows"] += 1
            name = {"id": "r", "custom_id": row["custom_id"]}
            if kind == "expired":
                status = "expired"
                error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                bad.append({**name, "response": None, "error": error})
            elif kind in STATUS:
                code, error = STATUS[kind]
                bad.append({**name, "response": {"status_code": code, "body": {"error": error}}, "error": None})
            else:
                found = ITEM.search(message_text(row["body"]))
                if kind == "ok" and found:
                    self.scored[int(found[1])] += 1
                found_body = completion(kind, row["body"], self.settings.get("text", ""))
                response = {"status_code": 200, "request_id": "q", "body": found_body}
                out.append({**name, "response": response, "error": None})
                if again := self.settings.get("again", {}).pop(row["custom_id"], ""):  # a second row with that id
                    second = {**response, "body": completion(again, row["body"])}
                    out.append({**name, "response": second, "error": None})
                if self.settings.get("also", {}).get(row["custom_id"]):  # and one in the file of errors
                    code, error = STATUS[self.settings["also"].pop(row["custom_id"])]
                    bad.append({**name, "response": {"status_code": code, "body": {"error": error}}, "error": None})
        self.random.shuffle(out)
        for field, rows in (("output_file_id", out), ("error_file_id", bad)):
            if rows:
                batch[field] = f"file-{len(self.files)}"
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                self.files[batch[field]] = lines.replace('"REPLACED"', self.settings.get("replaced", "null"))
        batch["status"] = status


def message_text(body: dict[str, Any]) -> str:
    """All text of the last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def completion(kind: str, body: dict[str, Any], text: str = "") -> dict[str, Any]:
    """A chat completion of that kind; ``text`` is what ``say`` says."""
    found = ITEM.search(message_text(body))
    score = grade(int(found[1])) if found else 3
    verdict = "yes" if score >= 3 else "no"
    asked = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {})
    stated = {"reason": "seen", **({"verdict": verdict} if "verdict" in asked else {}), "score": score}
    message: dict[str, Any] = {"role": "assistant", "content": json.dumps(stated)}
    if "response_format" not in body:
        line = f"VERDICT: {verdict}\n" if "VERDICT:" in message_text(body) else ""
        message["content"] = f"It was seen.\n{line}SCORE: {score}"
    if kind in BAD_BODIES:
        message["content"] = BAD_BODIES[kind]
    if kind == "say":
        message["content"] = text
    if kind == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    finish = {"filter": "content_filter", "length": "length"}.get(kind, "stop")
    usage: Any = {"prompt_tokens": 200, "completion_tokens": 20, "total_tokens": 220}
    if kind == "odd-usage":
        usage = "REPLACED"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"] + "-0613",
            "system_fingerprint": "fp_1", "choices": [choice], "usage": usage}  # fmt: skip


async def serve(port: int, seed: int) -> None:
    """Serve until killed; prints the port."""
    runner = web.AppRunner(Server(seed).app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # ends with whoever started it


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.seed))
