"""Joining a Ray cluster, or starting one on this machine, and checking that the work fits in it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hound_plugin.engines.settings import EngineSettings
from hound_plugin.errors import EnvironmentMismatchError, SettingsError

TRIES = 3  # a busy machine may need longer than the 30 seconds that Ray gives itself to start
GIBIBYTE = 1 << 30


@contextmanager
def joined(settings: EngineSettings, reads_ahead: bool) -> Iterator[None]:
    """Be part of a cluster for a block; what was started for it is ended with it.

    Args:
        settings: the engine's.
        reads_ahead: whether there will be processes that read clips.

    Raises:
        SettingsError: there is no cluster at the address, or it is too small for one process of each kind.
        EnvironmentMismatchError: Ray does not start here.
    """
    import ray

    was_there = ray.is_initialized()
    if not was_there:
        _join(settings, reads_ahead)
    try:
        check_room(settings, reads_ahead, ray.cluster_resources())
        yield
    finally:
        if not was_there:
            ray.shutdown()


def _join(settings: EngineSettings, reads_ahead: bool) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address != "local":
        try:
            ray.init(address=settings.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise SettingsError(
                f"engine.address: expected a Ray cluster at {settings.address!r}: {error}. Start one with `ray start "
                "--head`, or use `local`.",
                "engine.address",
            ) from error
        return
    store: dict[str, Any] = (
        {} if settings.object_store is None else {"object_store_memory": int(settings.object_store * GIBIBYTE)}
    )
    for number in range(1, TRIES + 1):
        try:
            ray.init(address="local", num_cpus=_cores(settings, reads_ahead), include_dashboard=False, **store, **quiet)
            return
        except Exception as error:  # Ray raises a plain Exception if its own processes are slow to start
            ray.shutdown()
            if number == TRIES:
                raise EnvironmentMismatchError(
                    f"Ray did not start on this machine in {TRIES} tries: {error}. See /tmp/ray/session_latest/logs; "
                    "on a busy machine, try again later."
                ) from error


def _cores(settings: EngineSettings, reads_ahead: bool) -> int:
    """Cores that a cluster on this machine counts with: enough for every process that is asked for to start."""
    wanted = settings.actors * settings.cpus + (settings.decoders if reads_ahead else 0)
    return max(os.cpu_count() or 1, math.ceil(wanted))


def check_room(settings: EngineSettings, reads_ahead: bool, there: dict[str, float]) -> None:
    """Compare what one process of each kind needs with what a cluster has; too little would wait forever.

    Raises:
        SettingsError: it is too little.
    """
    needed = {"CPU": settings.cpus + (1 if reads_ahead else 0), "GPU": settings.gpus}
    for name, amount in needed.items():
        if amount > there.get(name, 0):
            key = {"CPU": "cpus", "GPU": "gpus"}[name]
            also = " and one for a process that reads clips (`decoders: 0` saves it)" if key == "cpus" else ""
            raise SettingsError(
                f"engine.{key}: expected a cluster with at least {amount:g} {name} ({getattr(settings, key):g} for a "
                f"process with a model{also if reads_ahead else ''}); it has {there.get(name, 0):g}. Lower the "
                "setting, or wait until the cluster's machines have joined.",
                f"engine.{key}",
            )
