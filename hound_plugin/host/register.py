"""Registration of this package with transformers and the host, one module at a time; repeating it is harmless."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
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


_AUTO = "transformers.models.auto."


def _auto_configs(module: Any) -> None:
    import_module("hound_plugin.model.configuration")  # registers itself


def _auto_models(module: Any) -> None:
    import_module("hound_plugin.model.modeling")


def _auto_processors(module: Any) -> None:
    import_module("hound_plugin.model.auto_processing")
    if f"{_AUTO}modeling_auto" in sys.modules:
        import_module("hound_plugin.model.modeling")


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
    f"{_AUTO}configuration_auto": _auto_configs,
    f"{_AUTO}modeling_auto": _auto_models,
    f"{_AUTO}processing_auto": _auto_processors,
    "llamafactory.extras.constants": _constants,
    "llamafactory.data.mm_plugin": _mm_plugin,
    "llamafactory.data.template": _template,
    "llamafactory.data.converter": _converter,
    "llamafactory.data.loader": _patch("patch_data_loader"),
    "llamafactory.data.collator": _patch("patch_collator"),
    "llamafactory.hparams.parser": _patch("patch_parser"),
    "llamafactory.model.model_utils.visual": _composite,
    "llamafactory.model.loader": _patch("patch_model_loader"),
    "llamafactory.train.sft.trainer": _patch("patch_trainers"),
    "llamafactory.train.dpo.trainer": _patch("patch_trainers"),
    "llamafactory.train.kto.trainer": _patch("patch_trainers"),
    "llamafactory.train.rm.trainer": _patch("patch_trainers"),
    "llamafactory.webui.common": _patch("patch_web_common"),
    "llamafactory.webui.chatter": _patch("patch_web_chat"),
    "llamafactory.webui.engine": _patch("patch_web_engine"),
    "llamafactory.webui.interface": _patch("patch_web_interface"),
    "llamafactory.webui.components.export": _patch("patch_web_export"),
    "deepspeed.runtime.zero.partition_parameters": _patch("patch_zero3"),
    "llamafactory.chat.hf_engine": _patch("patch_engine"),
    "llamafactory.chat.chat_model": _patch("patch_chat_model"),
    "llamafactory.api.app": _patch("patch_api_app"),
}
HOOKED_MODULES = tuple(_ACTIONS)
