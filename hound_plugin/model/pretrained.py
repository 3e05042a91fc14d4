"""What both model classes share: loading checkpoints of either layout, quantised or not, and initialisation."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hound_plugin.model.adapters import check_no_adapter
from hound_plugin.model.checkpoint import read_as_ours
from hound_plugin.model.checkpoint_files import check_files, saving
from hound_plugin.model.completeness import check_finite
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.releases import CACHE_FIELD
from hound_plugin.model.vision import LlavaHoundTower


class LlavaHoundPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation; see :mod:`hound_plugin.model.checkpoint` for the original layout."""

    config_class = LlavaHoundConfig
    config: LlavaHoundConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("TowerBlock", "LlamaDecoderLayer")
    _skip_keys_device_placement = (CACHE_FIELD,)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not isinstance(module, LlavaHoundTower):
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args: Any, quantization_config: Any = None, **kwargs: Any) -> Any:
        """Load as every transformers model; ``quantization_config`` reaches the language model's blocks alone.

        Towers, projector and head stay as they are unless the configuration names other modules to skip: a tower of
        4 bits changes what the model sees, and saves little next to the language model. Code in the checkpoint is not
        run unless ``trust_remote_code=True`` is given: transformers would ask on the terminal.
        """
        kwargs.setdefault("trust_remote_code", False)
        if quantization_config is not None:
            quantization_config = _spare_towers(quantization_config)
            kwargs["quantization_config"] = quantization_config
        if args and args[0] is not None and os.path.isdir(args[0]):
            check_files(args[0], with_tokenizer=False)
        return super().from_pretrained(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save as every transformers model, and replace the model that was there: see :func:`saving`.

        Raises:
            CheckpointError: there is an adapter in the folder, with which the model could not be loaded.
        """
        if os.path.isfile(save_directory) or kwargs.get("push_to_hub") or not kwargs.get("is_main_process", True):
            return super().save_pretrained(save_directory, *args, **kwargs)
        if not getattr(self, "_hf_peft_config_loaded", False):  # which saves an adapter alone
            check_no_adapter(save_directory)
        with saving(Path(save_directory)):
            return super().save_pretrained(save_directory, *args, **kwargs)

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, expected_keys: Any = None
    ) -> Any:
        """Read an original checkpoint through the key table; leave our own layout to transformers.

        Raises:
            CheckpointError: tensors are missing, of another shape, or not finite.
        """
        with read_as_ours(model, state_dict, checkpoint_files, load_config) as renamed:
            loaded = PreTrainedModel._load_pretrained_model(
                model, renamed, checkpoint_files, load_config, expected_keys
            )
        check_finite(model.named_parameters(), f"the checkpoint {load_config.pretrained_model_name_or_path}")
        composite = model.model if hasattr(model, "lm_head") else model
        composite.set_towers_trainable(not model.config.freeze_towers)  # loading makes new parameters with gradients
        return loaded


# Both with and without the composite's prefix: names are matched from their beginning.
_UNQUANTISED = [
    *(
        f"{prefix}{part}"
        for part in ("image_tower", "video_tower", "multi_modal_projector")
        for prefix in ("", "model.")
    ),
    "lm_head",
]
_SKIP_FIELDS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")  # bitsandbytes; most others; HQQ


def _spare_towers(config: Any) -> Any:
    """A copy of a quantisation configuration (object or dict) that skips all but the language model's blocks."""
    config = copy.deepcopy(config)
    if isinstance(config, dict):
        if not any(config.get(field) for field in _SKIP_FIELDS):
            bitsandbytes = config.get("quant_method", "bitsandbytes") == "bitsandbytes"
            config[_SKIP_FIELDS[0] if bitsandbytes else _SKIP_FIELDS[1]] = list(_UNQUANTISED)
        return config
    for name in _SKIP_FIELDS:
        if hasattr(config, name) and not getattr(config, name):
            setattr(config, name, list(_UNQUANTISED))
    return config
