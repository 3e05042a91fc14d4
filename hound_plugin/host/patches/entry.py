"""The two kinds of entries in the catalogue of :mod:`hound_plugin.host.patches`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patch:
    """A function of ours around one of the host's.

    Attributes:
        module: host module of the function.
        target: the function, or ``Class.method``.
        takes: the arguments that the body relies on, ``self`` left out: leading ones by name and position, ``...``
            where more are passed on, ``name=`` for one that is used by its name.
        body: ``"module:function"`` below :mod:`hound_plugin.host`; called with the original and its arguments.
        why: what the host does otherwise.
        removable: when the patch can go.
        without: what does not work where it is not applied.
        upstream: report of the fault, if there is one.
        essential_for: ``"every run"``, a stage (``"dpo"``) or ``""``: which runs are refused without it.
        ours_only: whether runs with other templates skip the body.
        needs: further names that the body uses, as ``"module:name"`` or ``"module:name(takes)"``.
    """

    module: str
    target: str
    takes: str
    body: str
    why: str
    removable: str
    without: str
    upstream: str = ""
    essential_for: str = ""
    ours_only: bool = False
    needs: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """``module:target``."""
        return (f"{self.module}:{self.target}",)


@dataclass(frozen=True)
class Setup:
    """A function of ours that is called, without arguments, when a host module has been executed.

    Attributes:
        module: the host module.
        body: ``"module:function"`` below :mod:`hound_plugin.host`; harmless when called again.
        needs: what it uses of the host, as ``"module:name"`` or ``"module:name(takes)"``.
        without: what does not work where that has moved.
        essential_for: as in :class:`Patch`.
    """

    module: str
    body: str
    needs: tuple[str, ...]
    without: str
    essential_for: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What it uses of the host, as ``module:name``."""
        return tuple(need.partition("(")[0] for need in self.needs)


Entry = Patch | Setup
EVERY_RUN = "every run"
