"""``hound reward ref-logps``: the file of ``hound.reference_log_probs``, written before the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hound_plugin.errors import SettingsError
from hound_plugin.host import settings_state
from hound_plugin.host.models import TEMPLATE
from hound_plugin.host.reference import stored


def write_reference(recipe: str, overrides: Sequence[str]) -> str:
    """Compute what is missing of the file that a recipe names; under torchrun, each process its share.

    Args:
        recipe: the YAML file of the training.
        overrides: ``key=value``, as for ``llamafactory-cli train``.

    Returns:
        The path of the file.

    Raises:
        SettingsError: the recipe names no such file, or is not one of a training that has a reference.
        DataError: the file is damaged or of another reference.
    """
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    try:
        model_args, data_args, training_args, _, _ = get_train_args(_read(recipe, overrides))
    except ValueError as error:  # the host's own checks
        raise SettingsError(f"{recipe}: {error}") from error
    path = settings_state.settings().reference_log_probs
    if not settings_state.is_ours():
        raise SettingsError(f"{recipe}: expected `template: {TEMPLATE}`; got {data_args.template!r}.")
    if path is None:
        raise SettingsError(
            f"{recipe}: expected the file to write in `hound: {{reference_log_probs: FILE}}`; got none. Add it, or "
            "give `hound.reference_log_probs=FILE` behind the YAML file."
        )
    tokens = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data_args)
    stage = {"dpo": "rm"}.get(str(settings_state.stage()), str(settings_state.stage()))
    with stored.completing():
        get_dataset(template, model_args, data_args, training_args, stage=stage, **tokens)
    return path


def _read(recipe: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The recipe as the host reads it, for a forward pass: without DeepSpeed, and whatever its output folder has."""
    from omegaconf import OmegaConf

    if not Path(recipe).is_file():
        raise SettingsError(f"Expected the YAML file of a training; {recipe} is not a file.")
    merged = OmegaConf.merge(OmegaConf.load(recipe), OmegaConf.from_cli(list(overrides)))
    values = OmegaConf.to_container(merged)
    if not isinstance(values, dict):
        raise SettingsError(f"Expected `key: value` lines in {recipe}.")
    kept = {str(key): value for key, value in values.items() if key not in ("deepspeed", "resume_from_checkpoint")}
    return {**kept, "overwrite_output_dir": True}
