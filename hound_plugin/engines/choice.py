"""The engine that settings name."""

from __future__ import annotations

from hound_plugin.engines.settings import EngineSettings
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


def make_engine(settings: EngineSettings) -> Engine:
    """The engine; a cluster is joined when it first runs something.

    Raises:
        EnvironmentMismatchError: ``ray`` is not installed.
    """
    if settings.kind == "local":
        return LOCAL
    from hound_plugin.engines.ray_data import RayEngine

    return RayEngine(settings)
