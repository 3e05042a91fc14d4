"""Which parts of the model are trained or adapted, as the recipe says: towers, projector and language model."""

from __future__ import annotations

from typing import Any

from llamafactory.extras import logging
from torch import nn

from hound_plugin.errors import SettingsError

logger = logging.get_logger(__name__)

PROJECTOR = "multi_modal_projector"


def settle_targets(model: Any, finetuning_args: Any) -> None:
    """Bring ``lora_target`` and ``additional_target`` in line with the host's other options, before it reads them.

    * ``freeze_multi_modal_projector: false`` trains the projector in full, as the original's LoRA does.
    * A name of ``lora_target`` that stands for a part of the model means the linear layers in it.

    Args:
        model: the composite.
        finetuning_args: the host's; its two lists are changed.

    Raises:
        SettingsError: a name is not in the model, or nothing is left to adapt or train.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    targets = list(finetuning_args.lora_target)
    if "all" in targets and len(targets) > 1:
        raise SettingsError(
            f"Expected `lora_target` to be `all` alone or names of layers, got {','.join(targets)!r}. `all` holds them."
        )
    if targets == ["all"]:
        _check_frozen([name for name in linear if PROJECTOR not in name and name != "lm_head"], finetuning_args)
    else:
        targets = _linear_targets(targets, linear)
        _check_frozen([name for name in linear if any(target in name for target in targets)], finetuning_args)
        finetuning_args.lora_target = targets
    modules = {piece for name, _ in model.named_modules() for piece in name.split(".")}
    for name in finetuning_args.additional_target or []:
        if not set(name.split(".")) <= modules:
            raise SettingsError(
                f"Expected `additional_target` to name modules of the model, such as embed_tokens, lm_head or "
                f"{PROJECTOR}; got {name!r}, which is none of them and would be left out."
            )
    if not finetuning_args.freeze_multi_modal_projector:
        additional = list(finetuning_args.additional_target or [])
        adapted = any(PROJECTOR in target for target in targets)
        if not adapted and not any(PROJECTOR in name for name in additional):
            finetuning_args.additional_target = [*additional, PROJECTOR]
            logger.info_rank0("freeze_multi_modal_projector: false: the projector is trained in full, next to LoRA.")


def _linear_targets(targets: list[str], linear: list[str]) -> list[str]:
    """Names of linear layers; the host matches each anywhere in a module's full name."""
    settled: list[str] = []
    for target in targets:
        parts = target.split(".")
        within = [name for name in linear if _holds(name.split("."), parts)]
        if not within:
            kinds = sorted({_kind(name) for name in linear})
            raise SettingsError(
                f"Expected `lora_target` to name linear layers of the model; got {target!r}, which neither is one nor "
                f"holds any. Write `all`, or choose from: {', '.join(kinds)}."
            )
        ends = [name for name in within if name.split(".")[-len(parts) :] == parts]
        settled += [target] if ends else within
    return settled


def _holds(name: list[str], parts: list[str]) -> bool:
    return any(name[start : start + len(parts)] == parts for start in range(len(name) - len(parts) + 1))


def _kind(name: str) -> str:
    last = name.split(".")[-1]
    return PROJECTOR if last.isdigit() else last


def _check_frozen(adapted: list[str], finetuning_args: Any) -> None:
    """Refuse targets that are all frozen: the host would leave nothing for LoRA, and peft gives no reason."""
    left = [name for name in adapted if not any(part in name for part in _frozen(finetuning_args))]
    if not left:
        keys = sorted({key for part, key in _frozen(finetuning_args).items() if any(part in name for name in adapted)})
        raise SettingsError(
            f"`lora_target: {','.join(finetuning_args.lora_target)}` leaves no layer to adapt: all are frozen by "
            f"{' and '.join(f'`{key}: true`' for key in keys)}. Set one to false or name other layers; to train the "
            "projector alone, set `finetuning_type: full`."
        )


def check_trainable(model: Any, finetuning_args: Any) -> None:
    """Refuse a training in which nothing is trained.

    Raises:
        SettingsError: names the options that freeze the parts.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        keys = sorted(set(_frozen(finetuning_args).values()))
        raise SettingsError(
            "Expected something to train, but every parameter is frozen"
            + (f" by {' and '.join(f'`{key}: true`' for key in keys)}. Set one of them to false." if keys else ".")
        )


def _frozen(finetuning_args: Any) -> dict[str, str]:
    """Parts of the model that are frozen, with the option that freezes them."""
    options = {
        "image_tower": "freeze_vision_tower",
        "video_tower": "freeze_vision_tower",
        PROJECTOR: "freeze_multi_modal_projector",
        "language_model": "freeze_language_model",
        "lm_head": "freeze_language_model",
    }
    return {part: option for part, option in options.items() if getattr(finetuning_args, option)}
