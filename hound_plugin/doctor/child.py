"""Runs a script in a child process, where a crash, a hang or a broken package can do no harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import Any, TextIO

TIMEOUT_SECONDS = 180

# Every script starts with this: stages report on their own, so that a crash leaves what came before it.
_PREAMBLE = """
import json, sys, warnings
warnings.filterwarnings("ignore")

def report(stage, **facts):
    print("\\n@hound " + json.dumps({"stage": stage, **facts}), flush=True)

def attempt(stage, function):
    try:
        report(stage, ok=True, facts=function())
    except BaseException as error:
        text = " ".join(str(error).split())[:300]
        cause = error.__cause__
        if cause is not None:
            text += f" [{type(cause).__name__}: {' '.join(str(cause).split())[:200]}]"
        report(stage, ok=False, error=f"{type(error).__name__}: {text}")
"""


@dataclass(frozen=True)
class Stage:
    """The outcome of one stage of a script: ``facts`` where it succeeded, else ``error`` in one line."""

    ok: bool
    facts: Any = None
    error: str = ""


class Outcome:
    """What a child process reported.

    Args:
        stages: stage name -> outcome, for the stages that were reached.
        ending: how the child ended if it did not end well, in words, or "".
    """

    def __init__(self, stages: dict[str, Stage] | None = None, ending: str = "") -> None:
        self._stages = dict(stages or {})
        self._ending = ending

    def stage(self, name: str) -> Stage:
        """The named stage; one that was never reached has failed."""
        return self._stages.get(name, Stage(False, error=self._ending or "not reached"))

    def stop(self) -> None:
        """End the child if it is still running."""


class _Child(Outcome):
    """A running child: a stage is available as soon as the child has reported it."""

    def __init__(self, process: subprocess.Popen[str], stderr: TextIO, timeout: float) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._is_over = False
        self._process = process
        threading.Thread(target=self._read, args=(process, stderr, timeout), daemon=True).start()

    def stage(self, name: str) -> Stage:
        """The named stage; waits until the child has reported it or has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or name in self._stages)
            return super().stage(name)

    def stop(self) -> None:
        """End the child if it is still running."""
        self._process.kill()

    def _read(self, process: subprocess.Popen[str], stderr: TextIO, timeout: float) -> None:
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        with process, stderr:
            for line in process.stdout or ():
                if line.startswith("@hound "):
                    record = json.loads(line.removeprefix("@hound "))
                    with self._changed:
                        self._stages[record["stage"]] = Stage(
                            record["ok"], record.get("facts"), record.get("error", "")
                        )
                        self._changed.notify_all()
            code = process.wait()
            timer.cancel()
            stderr.seek(0)
            ending = f"no answer within {timeout:.0f} s" if late.is_set() else _ending(code, stderr.read())
        with self._changed:
            self._is_over, self._ending = True, ending
            self._changed.notify_all()


def run_script(script: str, timeout: float = TIMEOUT_SECONDS) -> Outcome:
    """Start ``script`` (which calls ``attempt`` and ``report``) in a child of this interpreter.

    The current folder is kept off its path (``-P``), as it is for the host's own command.

    Args:
        script: Python.
        timeout: seconds after which the child is killed.

    Returns:
        At once; its ``stage`` waits for the child.
    """
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "LLAMAFACTORY_VERBOSITY": "ERROR"}
    stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed by the reader)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PREAMBLE + script],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        stderr.close()
        return Outcome(ending=f"no child process could be started: {error}")
    return _Child(process, stderr, timeout)


def _ending(code: int, stderr: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"the process crashed with signal {-code}"
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"the process ended with code {code}: {last[:300]}"
