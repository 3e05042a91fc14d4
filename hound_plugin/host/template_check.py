"""Template and model must belong together; the host silently trains with any pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import AutoConfig

from hound_plugin.errors import SettingsError
from hound_plugin.host.model_loading import OURS
from hound_plugin.host.models import TEMPLATE
from hound_plugin.processing.processor import LlavaHoundProcessor


def check_template(original: Callable[..., Any], tokenizer: Any, data_args: Any) -> Any:
    """``get_template_and_fix_tokenizer``, before any data is read.

    Raises:
        SettingsError: the template is not the model's.
    """
    ours = getattr(tokenizer, OURS, False)
    if ours and data_args.template != TEMPLATE:
        raise SettingsError(
            f"Expected `template: {TEMPLATE}` for a LLaVA-Hound model, got {data_args.template!r}. Change it in the "
            "YAML or in the web UI's field `Chat template`."
        )
    if data_args.template == TEMPLATE and not ours:
        raise SettingsError(
            f"`template: {TEMPLATE}` belongs to LLaVA-Hound models, but `model_name_or_path` "
            f"({tokenizer.name_or_path}) does not load as one: {_why_not_ours(tokenizer.name_or_path)}"
        )
    return original(tokenizer, data_args)


def _why_not_ours(model: str) -> str:
    """The reason, which the host's ``load_tokenizer`` has swallowed."""
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        if config.model_type != TEMPLATE:
            return f"its model_type is {config.model_type!r}. Use the template of that model."
        LlavaHoundProcessor.from_pretrained(model)
    except Exception as error:
        return str(error)
    return "another class loaded its processor. Run `hound doctor`."
