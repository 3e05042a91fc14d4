"""Work as engines see it: one function, called once for each task; and the engine that is this process.

The tasks of a job do not depend on each other, nor on the process that does them. So an engine only decides where and
in which order they are done, and results are the same, task for task.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

Task = TypeVar("Task")
Result = TypeVar("Result")


@runtime_checkable
class ReadsAhead(Protocol):
    """A model whose clips another process, without a GPU, may read for it."""

    def read_media(self, media: Sequence[Any]) -> Any:
        """What the model will need of these clips and images, to be sent to it; what is broken is left out.

        No weights are loaded.
        """

    def keep_media(self, read: Any) -> None:
        """Take what :meth:`read_media` gave, before the task that needs it."""


@dataclass(frozen=True)
class Work(Generic[Task, Result]):
    """What is done to each task. It is sent to other processes, so heavy parts are loaded at the first call.

    Attributes:
        do: gives the result; an error that it raises ends the job.
        media: the clips and images of a task.
        reader: the model, if its media may be read ahead.
    """

    do: Callable[[Task], Result]
    media: Callable[[Task], Sequence[Any]] | None = None
    reader: ReadsAhead | None = None


class Engine(Protocol):
    """Does the tasks of a job somewhere."""

    @property
    def keeps_order(self) -> bool:
        """Whether results come in the order of the tasks."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Generator[tuple[int, Result], None, None]:
        """The position of each task with its result, as soon as it is there; each exactly once.

        Raises:
            HoundError: whatever a task raised; the results before it have been given.
        """


class LocalEngine:
    """One task after the other, in this process."""

    keeps_order = True

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Generator[tuple[int, Result], None, None]:
        """See :class:`Engine`."""
        for number, task in enumerate(tasks):
            yield number, work.do(task)


LOCAL = LocalEngine()


def media_reader(model: object) -> ReadsAhead | None:
    """The model, if its media may be read ahead."""
    return model if isinstance(model, ReadsAhead) else None
