"""A command at a pseudo-terminal, as a person uses it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Sequence


class Terminal:
    """A child process whose input and output are a terminal."""

    def __init__(self, command: Sequence[str], cwd: str, env: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        env = {**env, "TERM": "dumb", "INPUTRC": "/dev/null", "COLUMNS": "400"}
        self.process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str, seconds: float = 120) -> str:
        """What was shown since the last call, up to ``text``."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            try:
                chunk = os.read(self.master, 65536) if ready else b""
            except OSError:  # the child is gone
                chunk = b""
            if not chunk:
                raise AssertionError(f"{text!r} was not shown; the last was:\n{self.shown[-3000:]}")
            self.shown += chunk.decode("utf-8", "replace").replace("\r\n", "\n")
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal tells every process of the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ask(self, line: str) -> str:
        """Enter a line; what is shown until the next prompt, the echo left out."""
        self.type(line + "\n")
        return self.wait_for("\nUser: ").rpartition(line)[2].strip()

    def close(self, patience: float = 5) -> int:
        """Wait for the child to end, and kill it after ``patience`` seconds; its exit status."""
        if self.process.poll() is None:
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        return self.process.wait()
