"""The engine that settings name."""

from __future__ import annotations

import os

from hound_plugin.engines.settings import CLIENT, EngineSettings
from hound_plugin.engines.work import LOCAL, Engine
from hound_plugin.errors import SettingsError


def check_alone(settings: EngineSettings, processes: int) -> None:
    """Refuse Ray in a process of torchrun: each would do all of the work.

    Raises:
        SettingsError: ``kind`` is ``ray`` and there are several processes.
    """
    if settings.kind == "ray" and processes > 1:
        raise SettingsError(
            f"engine.kind: expected local under torchrun ({processes} processes); got ray. Start the command without "
            "torchrun: engine.actors says how many processes Ray starts.",
            "engine.kind",
        )


def check_environment(settings: EngineSettings) -> None:
    """Compare the address with ``RAY_ADDRESS``, which Ray's own commands follow.

    Raises:
        SettingsError: the variable names a cluster and the settings name none, or it names a Ray Client.
    """
    there = os.environ.get("RAY_ADDRESS", "")
    if settings.kind != "ray" or not there:
        return
    if "address" not in settings.model_fields_set:
        raise SettingsError(
            f"engine.address: expected it to be given where RAY_ADDRESS is set ({there}). Use `auto` for that cluster, "
            "or `local` to start Ray on this machine for this command.",
            "engine.address",
        )
    if settings.address == "auto" and there.startswith(CLIENT):
        raise SettingsError(
            f"RAY_ADDRESS: expected HOST:PORT with engine.address `auto`; got {there!r}. Ray Data does not run through "
            "Ray Client: start the command on a machine of the cluster, or with `ray job submit`.",
            "engine.address",
        )


def make_engine(settings: EngineSettings) -> Engine:
    """The engine; a cluster is joined when it first runs something.

    Raises:
        EnvironmentMismatchError: ``ray`` is not installed.
        SettingsError: ``RAY_ADDRESS`` is set and contradicts the settings.
    """
    if settings.kind == "local":
        return LOCAL
    check_environment(settings)
    from hound_plugin.engines.ray_data import RayEngine

    return RayEngine(settings)
