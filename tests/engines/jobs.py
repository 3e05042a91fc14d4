"""Work for engines, without a model: what is done is checked, not what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from hound_plugin.errors import MediaDecodeError
from hound_plugin.evaluation.items import Prediction, Question
from hound_plugin.reward.candidates import SampledAnswer


class Double:
    """Twice a number; notes each call in a folder, by process."""

    def __init__(self, folder: Path | None = None, seconds: float = 0.0) -> None:
        self.folder, self.seconds = folder, seconds

    def __call__(self, number: int) -> int:
        time.sleep(self.seconds)
        if self.folder is not None:
            with (self.folder / f"{os.getpid()}.calls").open("a") as file:
                file.write(f"{number}\n")
        return 2 * number


def calls(folder: Path) -> list[int]:
    """The numbers that were asked for, by all processes."""
    return sorted(int(line) for file in folder.glob("*.calls") for line in file.read_text().split())


class EndsItsProcess:
    """Kills its own process at one number: the first time, or each time."""

    def __init__(self, folder: Path, number: int, always: bool = False) -> None:
        self.double, self.number, self.always = Double(folder), number, always
        self.mark = folder / "killed"

    def __call__(self, number: int) -> int:
        if number == self.number and (self.always or not self.mark.exists()):
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.double(number)


class EndsProcess:
    """Kills another process of its own cluster, by its title."""

    def __init__(self, title: str) -> None:
        self.title = title

    def __call__(self, number: int) -> int:
        for process in psutil.Process().parent().children():
            if process.cmdline()[:1] == [self.title]:
                process.kill()
        return number


def refuse(number: int) -> int:
    """Raises at 7 an error of ours with a path."""
    if number == 7:
        raise MediaDecodeError("seven.mp4: it is no clip", "seven.mp4")
    return number


class Ahead:
    """A model whose clips are read by another process; a clip that was not sent is an error."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.kept: dict[str, str] = {}
        self.seconds = seconds

    def read_media(self, media: Sequence[Any]) -> dict[str, str]:
        return {name: f"{name} read by {os.getpid()}" for name in media if name != "broken"}

    def keep_media(self, read: dict[str, str]) -> None:
        self.kept = read

    def __call__(self, name: str) -> tuple[str, int]:
        time.sleep(self.seconds)
        return self.kept.get(name, "not sent"), os.getpid()


def one_name(name: Any) -> list[Any]:
    return [name]


class Weigh:
    """Gives a large result for a small task."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, number: int) -> bytes:
        return number.to_bytes(4, "big") + bytes(self.size)


class Paced:
    """A model with large clips, each answered after a pause; what was read and done is counted in files."""

    def __init__(self, folder: Path, size: int, seconds: float) -> None:
        self.folder, self.size, self.seconds = folder, size, seconds

    def read_media(self, media: Sequence[Any]) -> bytes:
        _count(self.folder / "read")
        return bytes(self.size)

    def keep_media(self, read: bytes) -> None:
        assert len(read) == self.size

    def __call__(self, number: int) -> int:
        time.sleep(self.seconds)
        _count(self.folder / "done")
        return number


class Answers:
    """The paced model with large answers."""

    def __init__(self, model: Paced, size: int) -> None:
        self.model, self.size = model, size

    def __call__(self, number: int) -> bytes:
        self.model(number)
        return bytes(self.size)


class Counted:
    """Large results, made as fast as they can be, and counted in a file."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.weigh = folder, Weigh(size)

    def __call__(self, number: int) -> bytes:
        _count(self.folder / "read")
        return self.weigh(number)


def _count(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b".")


def counted(path: Path) -> int:
    """How many there are so far."""
    return path.stat().st_size if path.exists() else 0


class Parrot:
    """Answers that depend on the seed alone; one question has a broken clip."""

    def __init__(self, broken: str = "") -> None:
        self.identity: dict[str, Any] = {"model": "parrot"}
        self.broken = broken

    def sample(self, question: str, media: Any, seeds: Sequence[int]) -> list[SampledAnswer]:
        if self.broken and self.broken in question:
            raise MediaDecodeError(f"{media}: it is no clip", str(media))
        return [SampledAnswer(f"Perhaps {seed % 97}?", tokens=4) for seed in seeds]


class Echo:
    """Predictions without a model."""

    identity: dict[str, Any] = {"model": "echo"}  # noqa: RUF012

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        time.sleep(self.seconds)
        return [Prediction(question.id, f"answer to {question.id}") for question in questions]


def memory() -> dict[str, int]:
    """Bytes that this process, those with a model and those that read have for themselves, without shared pages."""
    here, sums = psutil.Process(), {"command": 0, "_Doing": 0, "_Reading": 0}
    for process in (here, *here.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            title, used = " ".join(process.cmdline()[:1]), process.memory_info()
            name = "command" if process is here else next((name for name in sums if name in title), None)
            if name is not None:
                sums[name] += used.rss - used.shared
    return sums
