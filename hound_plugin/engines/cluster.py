"""Joining a Ray cluster, or starting one on this machine, and checking that the work fits in it."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hound_plugin.engines.settings import EngineSettings
from hound_plugin.errors import EnvironmentMismatchError, InUseError, SettingsError
from hound_plugin.records.files import HeldLock, hold

TRIES = 3  # a busy machine may need longer than the 30 seconds that Ray gives itself to start
GIBIBYTE = 1 << 30
OURS = "hound.lock"  # in the folder of each cluster that a command started; locked while the command runs
_CHATTY = ("ray._private.authentication.authentication_token_setup", "ray.data._internal.progress")


@contextmanager
def joined(settings: EngineSettings, reads_ahead: bool) -> Iterator[None]:
    """Be part of a cluster for a block; what was started for it is ended with it.

    Args:
        settings: the engine's.
        reads_ahead: whether there will be processes that read clips.

    Raises:
        SettingsError: there is no cluster at the address, or it is too small for one process with a model.
        EnvironmentMismatchError: Ray does not start here.
    """
    import ray

    if ray.is_initialized():
        check_room(settings, ray.cluster_resources())
        yield
        return
    session = _join(settings, reads_ahead)
    try:
        check_room(settings, ray.cluster_resources())
        yield
    except BaseException:
        ray.shutdown()
        if session is not None:
            session.release()  # what Ray logged stays until the next start
        raise
    ray.shutdown()
    if session is not None:
        _remove(session)


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


def check_room(settings: EngineSettings, there: dict[str, float]) -> None:
    """Compare what one process with a model needs with what a cluster has; too little would wait forever.

    Raises:
        SettingsError: it is too little.
    """
    needed = {"cpus": ("CPU", settings.cpus), "gpus": ("GPU", settings.gpus)}
    for key, (name, amount) in needed.items():
        if amount > there.get(name, 0):
            raise SettingsError(
                f"engine.{key}: expected a cluster with at least {amount:g} {name}, for one process with a model; it "
                f"has {there.get(name, 0):g}. Lower the setting, or wait until the cluster's machines have joined.",
                f"engine.{key}",
            )
