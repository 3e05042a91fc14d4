"""What stored log-probabilities depend on: the reference, and the content of each row."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from llamafactory.extras.misc import infer_optim_dtype
from transformers import AutoConfig

from hound_plugin.errors import DataError
from hound_plugin.host.mm_plugin import media_key
from hound_plugin.host.reference.state import Arguments
from hound_plugin.model.checkpoint_identity import adapter_digests, checkpoint_digests
from hound_plugin.records.media_identity import media_identity

COLUMNS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "dpo": (("chosen_input_ids", "chosen_labels"), ("rejected_input_ids", "rejected_labels")),
    "kto": (("input_ids", "labels"), ("kl_input_ids", "kl_labels")),
}
"""By stage: tokens and labels of the two sequences of a row."""
_MEDIA = ("videos", "images")
_BATCH = 500


def reference_identity(arguments: Arguments, processor: Any) -> dict[str, Any]:
    """Which reference a training has, as JSON: its weights, adapters, type, template, and how it sees clips.

    Args:
        arguments: of the training.
        processor: of the policy, whose pixels the reference is given.

    Raises:
        CheckpointError: the reference has no weights.
    """
    model, finetuning = arguments.model, arguments.finetuning
    hub = {"cache_dir": model.cache_dir, "revision": model.model_revision, "token": model.hf_hub_token}
    own = finetuning.ref_model is None
    name = model.model_name_or_path if own else finetuning.ref_model
    adapters = (model.adapter_name_or_path if own else finetuning.ref_model_adapters) or []
    if isinstance(adapters, str):
        adapters = [part.strip() for part in adapters.split(",")]
    if model.adapter_folder:
        adapters = [os.path.join(adapter, model.adapter_folder) for adapter in adapters]
    bits = model.quantization_bit if own else finetuning.ref_model_quantization_bit
    method = getattr(model.quantization_method, "value", model.quantization_method)
    return {
        "stage": finetuning.stage,
        "weights": checkpoint_digests(name, hub),
        "adapters": [adapter_digests(adapter, hub) for adapter in adapters],
        "quantization": f"{method} {model.quantization_type} {bits} bits" if bits else None,
        "dtype": _dtype(model, name, hub),
        "template": arguments.data.template,
        "clips": {
            **{key: getattr(processor, key) for key in ("num_frames", "frame_sampling", "image_aspect_ratio")},
            "frames to pixels": _steps(processor.video_processor),
            "images to pixels": _steps(processor.image_processor),
        },
    }


def _dtype(model: Any, name: str, hub: Mapping[str, Any]) -> str:
    """The floating-point type in which the host loads the reference."""
    if model.compute_dtype is not None:
        return str(model.compute_dtype)
    if model.infer_dtype != "auto":
        return f"torch.{model.infer_dtype}"
    config = AutoConfig.from_pretrained(name, **hub, trust_remote_code=False)
    return str(infer_optim_dtype(getattr(config, "torch_dtype", None)))


def _steps(part: Any) -> dict[str, Any]:
    """How pictures become pixels."""
    steps: dict[str, Any] = json.loads(json.dumps(asdict(part.steps())))
    return steps


def row_keys(dataset: Any, stage: str, known: dict[Hashable, Hashable]) -> Iterator[str]:
    """A key for each row of a tokenised data set: its tokens, its labels, and the identity of its media.

    Args:
        dataset: of the host.
        stage: ``dpo`` or ``kto``.
        known: identities of media that were looked at before.

    Raises:
        DataError: the identity of a clip or an image is unknown.
    """
    columns = [column for sequence in COLUMNS[stage] for column in sequence]
    present = [name for name in _MEDIA if name in dataset.column_names]
    for batch in dataset.select_columns([*columns, *present]).iter(batch_size=_BATCH):
        for number in range(len(batch[columns[0]])):
            digest = hashlib.sha256()
            for column in columns:
                values = np.asarray(batch[column][number], dtype=np.int64)
                digest.update(b"%d\x00" % len(values))
                digest.update(values.tobytes())
            media = [[_identity(item, known) for item in batch[name][number] or []] for name in present]
            digest.update(json.dumps(dict(zip(present, media, strict=True)), sort_keys=True).encode())
            yield digest.hexdigest()[:32]


def _identity(item: Any, known: dict[Hashable, Hashable]) -> Hashable:
    content = item.get("bytes") if isinstance(item, dict) else None
    if content is not None:
        return media_identity(content, in_process=True)
    key = media_key(item)
    if key not in known:
        identity = media_identity(item["path"] if isinstance(item, dict) else item)
        if identity is None:
            raise DataError(
                f"hound.reference_log_probs: expected a file or a folder of frames that can be read, to tell its rows; "
                f"got {item!r:.200}. Check the path."
            )
        known[key] = identity
    return known[key]
