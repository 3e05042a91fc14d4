"""Ray Data: clips are read by CPU processes, tasks are done by actors that hold a model, results come to the driver.

The driver writes everything. So a ledger and a file of results have one writer, on the driver's own disk, and a
cluster needs no shared folder but that of the clips (and of the model, if it is a folder).

What is lost with a process is the block that it was at; Ray gives it to another one. A task that raises does not end
its process: the error is sent back, and raised where the job was started.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import time
from collections import Counter
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from hound_plugin.engines.cluster import check_version, joined
from hound_plugin.engines.settings import EngineSettings
from hound_plugin.engines.work import Result, Task, Work
from hound_plugin.errors import EnvironmentMismatchError, HoundError

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

IN_FLIGHT = 2  # blocks of an actor: one that it is at, one that waits
WATCH_SECONDS = 5.0
KEPT = "Finished tasks are kept: start the command again. Look for too little memory: fewer engine.actors on a machine."


class RayEngine:
    """An :class:`~hound_plugin.engines.work.Engine` on a Ray cluster.

    Raises:
        EnvironmentMismatchError: ``ray`` is not installed, or in another version than those tested.
    """

    keeps_order = False

    def __init__(self, settings: EngineSettings) -> None:
        try:
            import ray.data
        except ImportError as error:
            raise EnvironmentMismatchError(
                f"--engine ray needs Ray Data: {error}. Install the extra: pip install 'hound-plugin[ray]'."
            ) from error
        check_version(ray.__version__)
        self.settings = settings

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Generator[tuple[int, Result], None, None]:
        """See :class:`~hound_plugin.engines.work.Engine`; the cluster is left at the end.

        Raises:
            HoundError: whatever a task raised; or process after process was lost over one.
            SettingsError: the cluster is too small for one process with a model, or there is none.
        """
        if not tasks:
            return
        reads_ahead = work.reader is not None and self.settings.decoders > 0
        with joined(self.settings, reads_ahead), contextlib.closing(_blocks(work, tasks, self.settings)) as blocks:
            for block in blocks:
                for number, packed in zip(block["number"].to_pylist(), block["result"].to_pylist(), strict=True):
                    result, error = pickle.loads(packed)
                    if error is not None:
                        raise error
                    yield number, result


def _blocks(work: Work[Any, Any], tasks: Sequence[Any], settings: EngineSettings) -> Generator[pa.Table, None, None]:
    """Blocks of results as they are done.

    Raises:
        HoundError: a part of Ray is lost that it does not start again.
    """
    import ray
    from ray import cloudpickle
    from ray.exceptions import RayError

    packed = cloudpickle.dumps(work)
    rows = [{"number": number, "task": cloudpickle.dumps(task)} for number, task in enumerate(tasks)]
    blocks = math.ceil(len(rows) / settings.batch)
    data: Dataset = ray.data.from_items(rows, override_num_blocks=blocks)
    del rows
    data.context.enable_progress_bars = False
    watches: list[Any] = [_Watch]  # by its methods, not by its base
    data.context.custom_execution_callback_classes = watches
    if work.reader is not None and settings.decoders:
        # No core is reserved for them: after the loss of a machine, models that start again could take them all.
        # Ray Data spreads them over the machines by itself.
        data = data.map_batches(_Reading, **_pool(min(settings.decoders, blocks), packed), num_cpus=0)
    attempts = _start_counting(settings.retries + 1)
    gpus = settings.gpus or None
    actors = _pool(min(settings.actors, blocks), packed, attempts)  # more would find nothing to do
    data = data.map_batches(_Doing, **actors, num_cpus=settings.cpus, num_gpus=gpus)
    try:
        yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except RayError as error:
        *_, last = str(error).splitlines() or [""]  # of a stack, what it led to
        raise HoundError(f"Ray stopped: {type(error).__name__}: {last:.300}. {KEPT}") from error


def _pool(size: int, *arguments: Any) -> dict[str, Any]:
    """Arguments of ``map_batches`` for a pool of actors; Ray starts a lost one again, any number of times."""
    from ray.data import ActorPoolStrategy

    return {
        "fn_constructor_args": arguments,
        "batch_size": 1,
        "batch_format": "pyarrow",
        "compute": ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=IN_FLIGHT),
    }


class _Watch:
    """Ray Data's callbacks of an execution: ends it if this machine's own part of the cluster was lost.

    Ray itself would wait for it without end.
    """

    def __init__(self) -> None:
        self.next_look = time.monotonic() + WATCH_SECONDS

    def before_execution_starts(self, executor: object) -> None:
        """Nothing to do."""

    def on_execution_step(self, executor: object) -> None:
        """Look now and then whether the cluster still counts this machine in.

        Raises:
            HoundError: it does not.
        """
        import ray

        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + WATCH_SECONDS
        here = ray.get_runtime_context().get_node_id()
        if not any(node["Alive"] and node["NodeID"] == here for node in ray.nodes()):
            raise HoundError(
                f"Ray's own process on this machine (raylet) ended, was killed, or was suspended for too long. {KEPT}"
            )

    def after_execution_succeeds(self, executor: object) -> None:
        """Nothing to do."""

    def after_execution_fails(self, executor: object, error: Exception) -> None:
        """Nothing to do."""


class _Attempts:
    """Counts how often each unfinished task was begun, so that none takes process after process with it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> bool:
        """Whether a task may be tried once more."""
        self.begun[number] += 1
        return self.begun[number] <= self.most

    def done(self, number: int) -> None:
        """Forget a task."""
        self.begun.pop(number, None)


def _start_counting(most: int) -> Any:
    """A process on the driver's machine that counts attempts."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Attempts).options(num_cpus=0, scheduling_strategy=here).remote(most)


class _Reading:
    """An actor that reads the clips of a task; what it cannot read is left to the model's process, which says why."""

    def __init__(self, packed: bytes) -> None:
        self.work: Work[Any, Any] = pickle.loads(packed)

    def __call__(self, block: pa.Table) -> pa.Table:
        import pyarrow as pa

        (task,) = block["task"].to_pylist()
        read = None
        with contextlib.suppress(HoundError, OSError):
            assert self.work.media is not None
            assert self.work.reader is not None
            read = self.work.reader.read_media(self.work.media(pickle.loads(task)))
        column = pa.array([pickle.dumps(read)], pa.large_binary())
        return block.append_column("read", column)


class _Doing:
    """An actor that does tasks; it loads what they need at the first one."""

    def __init__(self, packed: bytes, attempts: Any) -> None:
        self.work: Work[Any, Any] = pickle.loads(packed)
        self.attempts = attempts

    def __call__(self, block: pa.Table) -> pa.Table:
        import pyarrow as pa
        import ray
        from ray.exceptions import RayActorError

        (number,), (task,) = block["number"].to_pylist(), block["task"].to_pylist()
        outcome: tuple[Any, Exception | None]
        try:
            if ray.get(self.attempts.begin.remote(number)):
                outcome = self._try(block, pickle.loads(task))
            else:
                outcome = (None, HoundError(_given_up(number, pickle.loads(task))))
            self.attempts.done.remote(number)
        except RayActorError as error:  # Ray ends small processes too where memory is short
            lost = f"The process that counts attempts was lost at task {number} ({type(error).__name__}). {KEPT}"
            outcome = (None, HoundError(lost))
        result = pa.array([pickle.dumps(outcome)], pa.large_binary())
        return pa.table({"number": block["number"], "result": result})

    def _try(self, block: pa.Table, task: Any) -> tuple[Any, Exception | None]:
        try:
            if "read" in block.column_names and self.work.reader is not None:
                (read,) = block["read"].to_pylist()
                if (kept := pickle.loads(read)) is not None:
                    self.work.reader.keep_media(kept)
            return self.work.do(task), None
        except Exception as error:
            return None, _sendable(error)


def _given_up(number: int, task: Any) -> str:
    return (
        f"Task {number} was given up, as process after process was lost over it (engine.retries): {task!r:.300}. "
        "Finished tasks are kept. Look for a clip that ends its process, or for too little memory: fewer engine.actors "
        "on a machine, a smaller batch."
    )


def _sendable(error: Exception) -> Exception:
    """The error itself, if another process can read it."""
    where = f"(process {os.getpid()} on {os.uname().nodename})"
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return HoundError(f"{type(error).__name__}: {error} {where}")
    return error if isinstance(error, HoundError | OSError) else HoundError(f"{type(error).__name__}: {error} {where}")
