"""Runs a probe in a child process, where a crash, a hang or a broken package can do no harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_SECONDS = 180

# Every probe starts with this: stages report on their own, so that a crash leaves what came before it.
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
    """The outcome of one stage of a probe: ``facts`` where it succeeded, else ``error`` in one line."""

    ok: bool
    facts: Any = None
    error: str = ""


@dataclass(frozen=True)
class Probe:
    """The outcome of a child process.

    Attributes:
        stages: Stage name -> outcome, for the stages that were reached.
        ending: How the child ended where it did not end well, in words, or "".
    """

    stages: dict[str, Stage] = field(default_factory=dict)
    ending: str = ""

    def stage(self, name: str) -> Stage:
        """The named stage; one that was never reached has failed."""
        return self.stages.get(name, Stage(False, error=self.ending or "not reached"))


def run_probe(script: str, timeout: float = TIMEOUT_SECONDS) -> Probe:
    """Run ``script`` (which calls ``attempt`` and ``report``) in a child of this interpreter.

    The current folder is kept off its path (``-P``), as it is for the host's own command.
    """
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "LLAMAFACTORY_VERBOSITY": "ERROR"}
    command = [sys.executable, "-P", "-c", _PREAMBLE + script]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output
        return Probe(_stages(text), f"no answer within {timeout:.0f} s")
    except OSError as error:
        return Probe({}, f"no child process could be started: {error}")
    return Probe(_stages(done.stdout), _ending(done.returncode, done.stderr))


def _stages(output: str) -> dict[str, Stage]:
    stages = {}
    for line in output.splitlines():
        if line.startswith("@hound "):
            record = json.loads(line.removeprefix("@hound "))
            stages[record["stage"]] = Stage(record["ok"], record.get("facts"), record.get("error", ""))
    return stages


def _ending(code: int, stderr: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"the process crashed with signal {-code}"
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"the process ended with code {code}: {last[:300]}"
