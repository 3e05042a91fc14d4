"""Registration of this package with transformers and the host, one module at a time; repeating it is harmless."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from hound_plugin.errors import EnvironmentMismatchError
from hound_plugin.host.presence import SUPPORTED, requirement

# Auto classes of transformers -> modules of ours that register themselves with them.
_AUTO = "transformers.models.auto."
AUTO_CLASSES = {
    f"{_AUTO}configuration_auto": ("hound_plugin.model.configuration",),
    f"{_AUTO}modeling_auto": ("hound_plugin.model.modeling",),
    f"{_AUTO}image_processing_auto": ("hound_plugin.model.auto_processing",),
    f"{_AUTO}video_processing_auto": ("hound_plugin.model.auto_processing",),
    f"{_AUTO}processing_auto": ("hound_plugin.model.auto_processing",),
}


def register_for(name: str, patches_only: bool = False) -> None:
    """Register what belongs to module ``name``, which has just been executed.

    Args:
        name: of a hooked module.
        patches_only: of the host; the rest follows in a second call, when our own modules are complete.

    Raises:
        EnvironmentMismatchError: the host or transformers is outside the supported range, or lacks what this run needs.
    """
    if name in AUTO_CLASSES:
        check_version("transformers")
        for module in AUTO_CLASSES[name]:
            import_module(module)
        if name == f"{_AUTO}processing_auto" and f"{_AUTO}modeling_auto" in sys.modules:
            import_module("hound_plugin.model.modeling")
        return
    from hound_plugin.host import patching

    check_version("llamafactory")
    patching.apply_to(sys.modules[name], patches_only)


def check_version(package: str) -> None:
    """Refuse a release outside the supported range; what moved within it is found by the probes.

    Raises:
        EnvironmentMismatchError: names the package, what is installed, what is supported and the command to run.
    """
    from packaging.version import Version

    lowest, beyond = SUPPORTED[package]
    try:
        installed = version(package)
    except PackageNotFoundError:
        return  # a source checkout on PYTHONPATH
    if Version(installed) < Version(lowest) or (beyond and Version(installed) >= Version(f"{beyond}.dev0")):
        bounds = f">= {lowest}" + (f" and < {beyond}" if beyond else "")
        raise EnvironmentMismatchError(
            f"Expected {package} {bounds} for hound_plugin, found {installed}. "
            f"Run: pip install '{requirement(package)}'"
        )
