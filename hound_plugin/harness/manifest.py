"""The entry point ``lmms_eval.models``."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers: the model's name and where its class is."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("llava_hound", simple_class_path="hound_plugin.harness.lmms_model.LlavaHound")
