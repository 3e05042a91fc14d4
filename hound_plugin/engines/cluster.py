"""Joining a Ray cluster, or starting one on this machine, and checking that the work fits in it."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from hound_plugin.engines.settings import EngineSettings
from hound_plugin.errors import EnvironmentMismatchError, InUseError, SettingsError
from hound_plugin.records.files import HeldLock, hold

logger = logging.getLogger(__name__)

SUPPORTED = ">=2.59,<2.61"  # as in the extra `ray`
TRIES = 3  # a busy machine may need longer than the 30 seconds that Ray gives itself to start
GIBIBYTE = 1 << 30
OURS = "hound.lock"  # in the folder of each cluster that a command started; locked while the command runs
_CHATTY = ("ray._private.authentication.authentication_token_setup", "ray.data._internal.progress")


def check_version(version: str) -> None:
    """Refuse a release of Ray whose Ray Data may lack, or silently ignore, what is used here.

    Raises:
        EnvironmentMismatchError: it is not among those tested.
    """
    if not SpecifierSet(SUPPORTED).contains(version, prereleases=True):
        raise EnvironmentMismatchError(
            f"--engine ray: expected Ray {SUPPORTED}; got {version}. Install it: pip install 'ray[data]{SUPPORTED}'."
        )


@contextmanager
def joined(settings: EngineSettings, reads_ahead: bool) -> Iterator[None]:
    """Be part of a cluster for a block; what was started for it is ended with it.

    Args:
        settings: the engine's.
        reads_ahead: whether there will be processes that read clips.

    Raises:
        SettingsError: there is no cluster at the address, or none of its machines has room for a process with a model.
        EnvironmentMismatchError: Ray does not start here, or the cluster has another version of it.
    """
    import ray

    if ray.is_initialized():
        _check_machines(settings)
        yield
        return
    session = _join(settings, reads_ahead)
    try:
        with _ends_at_sigterm():
            _check_machines(settings)
            yield
    except BaseException:
        ray.shutdown()
        if session is not None:
            session.release()  # what Ray logged stays until the next start
        raise
    ray.shutdown()
    if session is not None:
        _remove(session)


@contextmanager
def _ends_at_sigterm() -> Iterator[None]:
    """At SIGTERM, leave the block by ``SystemExit``; Ray's own handler would abort three seconds later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        logger.warning("hound: SIGTERM received. Finished tasks are kept: start the command again to go on.")
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _join(settings: EngineSettings, reads_ahead: bool) -> HeldLock | None:
    """Join a cluster, or start one; returns the lock of the folder of one that was started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address == "local":
        return _start(settings, reads_ahead, quiet)
    _find(settings.address, quiet)
    return None


def _find(address: str, quiet: dict[str, Any]) -> None:
    import ray

    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if "ersion mismatch" in str(error):
            raise EnvironmentMismatchError(
                f"engine.address: expected the cluster at {address!r} to have Ray and Python in the versions of this "
                f"environment: {' '.join(str(error).split())} Install the same versions on all machines, and start "
                "the cluster again."
            ) from error
        raise SettingsError(
            f"engine.address: expected a Ray cluster at {address!r}: {error}. Start one with `ray start --head`, or "
            "use `local`. A cluster with a token is joined where RAY_AUTH_MODE=token is set and ~/.ray/auth_token (or "
            "RAY_AUTH_TOKEN) has that token.",
            "engine.address",
        ) from error


def _start(settings: EngineSettings, reads_ahead: bool, quiet: dict[str, Any]) -> HeldLock:
    import ray

    store: dict[str, Any] = (
        {} if settings.object_store is None else {"object_store_memory": int(settings.object_store * GIBIBYTE)}
    )
    cores = _cores(settings, reads_ahead)
    for number in range(1, TRIES + 1):
        try:
            started: Any = ray.init(address="local", num_cpus=cores, include_dashboard=False, **store, **quiet)
            break
        except Exception as error:  # Ray raises a plain Exception if its own processes are slow to start
            ray.shutdown()
            if number == TRIES:
                raise EnvironmentMismatchError(
                    f"Ray did not start on this machine in {TRIES} tries: {error}. On a busy machine, try again "
                    "later; where a path is too long, set RAY_TMPDIR=/tmp. Logs are in /tmp/ray/session_latest."
                ) from error
    session = Path(started.address_info["session_dir"])
    lock = hold(session / OURS)
    clear_sessions(session.parent)
    return lock


def clear_sessions(folder: Path) -> None:
    """Remove what earlier commands left: logs after an error, and after a kill also results that were on disk.

    Args:
        folder: where Ray keeps a folder for each cluster that was started on this machine.
    """
    for mark in folder.glob(f"session_*/{OURS}"):
        try:
            lock = hold(mark)
        except (InUseError, OSError):  # its command still runs, or it is another user's
            continue
        _remove(lock)


def _remove(session: HeldLock) -> None:
    shutil.rmtree(session.path.parent, ignore_errors=True)
    session.release()


def _cores(settings: EngineSettings, reads_ahead: bool) -> int:
    """Cores that a cluster on this machine counts with: enough for every process that is asked for to start."""
    wanted = settings.actors * settings.cpus + (settings.decoders if reads_ahead else 0)
    return max(os.cpu_count() or 1, math.ceil(wanted))


def _check_machines(settings: EngineSettings) -> None:
    import ray

    check_room(settings, [node["Resources"] for node in ray.nodes() if node["Alive"]], ray.available_resources())


def check_room(
    settings: EngineSettings, machines: Sequence[Mapping[str, float]], free: Mapping[str, float] | None = None
) -> None:
    """Compare what processes with a model need with what machines have; too little for one would wait forever.

    Room for fewer processes than ``engine.actors``, or none before other jobs have ended, is only said.

    Args:
        settings: the engine's.
        machines: cores and GPUs of each.
        free: what other jobs leave of them all; everything if not given.

    Raises:
        SettingsError: no machine has room for one.
    """
    needed = {"CPU": settings.cpus, "GPU": settings.gpus}
    places = sum(_places(needed, machine, settings.actors) for machine in machines)
    if not places:
        amounts = _in_words(needed)
        there = "; ".join(sorted(_in_words(machine) for machine in machines)) or "none"
        short = "gpus" if settings.gpus > max((machine.get("GPU", 0) for machine in machines), default=0) else "cpus"
        raise SettingsError(
            f"engine.{short}: expected a machine with at least {amounts}, for one process with a model; the "
            f"cluster's machines have {there}. Lower engine.cpus or engine.gpus, or wait until larger machines have "
            "joined.",
            f"engine.{short}",
        )
    if places < settings.actors:
        logger.warning(
            f"engine.actors: the cluster has room for {places} of {settings.actors} processes with a model; the others "
            "start when machines join."
        )
    elif free is not None and any(amount > free.get(name, 0) for name, amount in needed.items()):
        logger.warning(
            f"The cluster is busy: a process with a model needs {_in_words(needed)}, and {_in_words(free)} are free. "
            "The work starts when other jobs have ended."
        )


def _places(needed: Mapping[str, float], machine: Mapping[str, float], most: int) -> int:
    """How many processes fit on a machine, up to ``most``."""
    return min([most, *(math.floor(machine.get(name, 0) / amount) for name, amount in needed.items() if amount)])


def _in_words(amounts: Mapping[str, float]) -> str:
    words = [f"{amounts[name]:g} {name}" for name in ("CPU", "GPU") if amounts.get(name)]
    return " and ".join(words) or "0 CPU"
