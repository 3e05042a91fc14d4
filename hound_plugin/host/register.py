"""Registration of this package with transformers and the host, one module at a time; repeating it is harmless."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hound_plugin.errors import EnvironmentMismatchError

# Tested ranges; setup.cfg repeats them for the installer.
SUPPORTED = {"llamafactory": ("0.9.5", "0.9.6"), "transformers": ("5.5", "5.6")}


def check_versions() -> None:
    """Refuse a host or a transformers outside the tested range.

    Raises:
        EnvironmentMismatchError: names the package, what is installed, what is supported and the command to run.
    """
    from packaging.version import Version

    for name, (lowest, beyond) in SUPPORTED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue  # a source checkout on PYTHONPATH
        if not Version(lowest) <= Version(found) < Version(beyond):
            raise EnvironmentMismatchError(
                f"Expected {name} >= {lowest} and < {beyond} for hound_plugin, found {found}. "
                f"Run: pip install '{name}>={lowest},<{beyond}'"
            )


def register_for(name: str) -> None:
    """Register what belongs to module ``name``, which has just been executed.

    Raises:
        EnvironmentMismatchError: the host or transformers is outside the tested range.
    """
    action = _ACTIONS.get(name)
    if action is not None:
        check_versions()
        action(sys.modules[name])


def _configs(module: Any) -> None:
    from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig, OriginalLlavaConfig

    for config in (LlavaHoundConfig, LlavaHoundTowerConfig, OriginalLlavaConfig):
        module.AutoConfig.register(config.model_type, config, exist_ok=True)


def _models(module: Any) -> None:
    from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig
    from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration, LlavaHoundModel
    from hound_plugin.model.vision import LlavaHoundTower

    module.AutoModel.register(LlavaHoundConfig, LlavaHoundModel, exist_ok=True)
    module.AutoModel.register(LlavaHoundTowerConfig, LlavaHoundTower, exist_ok=True)
    module.AutoModelForImageTextToText.register(LlavaHoundConfig, LlavaHoundForConditionalGeneration, exist_ok=True)


def _processors(module: Any) -> None:
    from hound_plugin.model.configuration import LlavaHoundConfig
    from hound_plugin.processing.processor import LlavaHoundProcessor

    module.AutoProcessor.register(LlavaHoundConfig, LlavaHoundProcessor, exist_ok=True)


def _constants(module: Any) -> None:
    from hound_plugin.host.models import register_names

    register_names()


def _composite(module: Any) -> None:
    from hound_plugin.host.models import register_composite

    register_composite()


def _mm_plugin(module: Any) -> None:
    from hound_plugin.host.mm_plugin import register

    register()


def _template(module: Any) -> None:
    from hound_plugin.host.compat import patch_template
    from hound_plugin.host.template import register

    register()
    patch_template(module)


def _converter(module: Any) -> None:
    from hound_plugin.host.compat import patch_converter
    from hound_plugin.host.converter import register

    register()
    patch_converter(module)


def _patch(name: str) -> Callable[[Any], None]:
    def action(module: Any) -> None:
        from hound_plugin.host import compat

        getattr(compat, name)(module)

    return action


_ACTIONS: dict[str, Callable[[Any], None]] = {
    "transformers.models.auto.configuration_auto": _configs,
    "transformers.models.auto.modeling_auto": _models,
    "transformers.models.auto.processing_auto": _processors,
    "llamafactory.extras.constants": _constants,
    "llamafactory.data.mm_plugin": _mm_plugin,
    "llamafactory.data.template": _template,
    "llamafactory.data.converter": _converter,
    "llamafactory.data.loader": _patch("patch_data_loader"),
    "llamafactory.data.collator": _patch("patch_collator"),
    "llamafactory.hparams.parser": _patch("patch_parser"),
    "llamafactory.model.model_utils.visual": _composite,
    "llamafactory.model.loader": _patch("patch_model_loader"),
    "llamafactory.train.kto.trainer": _patch("patch_kto"),
}
HOOKED_MODULES = tuple(_ACTIONS)
