"""Options of exports and of answers: what would damage a model's folder, and values that cannot generate."""

from __future__ import annotations

import os
from typing import Any

from hound_plugin.errors import SettingsError

# What generation takes, as (option, least, most, an example); None: no bound.
_VALUES: tuple[tuple[str, float, float | None, float], ...] = (
    ("temperature", 0, None, 0.2),
    ("top_p", 0, 1, 0.9),
    ("top_k", 0, None, 50),
    ("num_beams", 1, None, 1),
)


def check_generation(generating: Any) -> None:
    """Check the host's generation options.

    Raises:
        SettingsError: a value is outside of its range; transformers would say so at the first question, or never.
    """
    for name, least, most, example in _VALUES:
        value = getattr(generating, name)
        if not value >= least or (most is not None and value > most):
            bound = f"at least {least}" if most is None else f"from {least} to {most}"
            raise SettingsError(f"Expected `{name}` to be {bound}, got {value}. Set `{name}: {example}`, for example.")
    if not generating.repetition_penalty > 0:
        raise SettingsError(
            f"Expected `repetition_penalty` to be above 0, got {generating.repetition_penalty}. Set "
            "`repetition_penalty: 1.0` for none."
        )


def check_export(model: Any) -> None:
    """Check where an export goes, before the model is loaded.

    Raises:
        SettingsError: the folder has the export's source in it, or an adapter that would be applied again whenever
            the exported model is loaded; an adapter and weights of few bits; or files smaller than 1 GB.
    """
    folder = model.export_dir
    if folder is None:
        return
    if model.export_size < 1:
        raise SettingsError(
            f"Expected `export_size` to be at least 1 (GB in a file of weights), got {model.export_size}. Set "
            "`export_size: 5`."
        )
    if model.quantization_bit is not None and model.adapter_name_or_path is not None:
        raise SettingsError(
            f"`quantization_bit: {model.quantization_bit}` leaves weights that no adapter can be merged into. Remove "
            "the key: an adapter that was trained in 4 bits is merged into the whole weights. Set it where the "
            "exported model is loaded."
        )
    if _same(folder, model.model_name_or_path):
        raise SettingsError(
            f"`export_dir: {folder}` is the folder of `model_name_or_path`, whose files would be replaced while they "
            "are read. Choose another folder."
        )
    if os.path.isfile(os.path.join(folder, "adapter_config.json")):
        raise SettingsError(
            f"`export_dir: {folder}` has an adapter in it, which transformers would apply to the exported model "
            "whenever it is loaded from there. Choose another folder."
        )


def _same(first: str, second: str) -> bool:
    return os.path.isdir(first) and os.path.isdir(second) and os.path.samefile(first, second)
