"""The fault server as a process, and requests for it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.judge.prompts import JudgePrompt, read_template
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.limits import Limits
from hound_plugin.llm.openai_client import Endpoint, OpenAIClient
from hound_plugin.llm.requests import Request, request_key

REPO = Path(__file__).resolve().parents[2]
SECRET = "sk-test-secret-1234567890"


class FaultServer:
    """A running fault server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = self.url + "/v1"

    def control(self, **settings: Any) -> None:
        data = json.dumps(settings).encode()
        request = urllib.request.Request(self.url + "/control", data, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).read()

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + "/stats", timeout=10) as answer:
            return dict(json.load(answer))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.llm.fault_server"],
        cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield FaultServer(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def make_requests(number: int, first: int = 0) -> list[Request]:
    return [
        Request(
            request_key({"item": item}), f"q{item}", 0, 0,
            {"caption": "A dog runs.", "question": "What runs?", "answer": f"A dog. [item-{item}]"},
        )
        for item in range(first, first + number)
    ]  # fmt: skip


PROTOCOL = read_template("caption")
FAST = Limits(attempts=3, tries=4, backoff=0.01, concurrency=8)


def open_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.sqlite", PROTOCOL.id)


def make_client(server: FaultServer, ledger: Ledger, timeout: float = 5.0, answer_format: str = "json") -> OpenAIClient:
    endpoint = Endpoint("tiny", base_url=server.base_url, timeout=timeout, parameters={"temperature": 0})
    return OpenAIClient(endpoint, JudgePrompt(PROTOCOL, ledger.salt, answer_format))
