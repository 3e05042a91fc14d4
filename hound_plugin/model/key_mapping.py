"""One table of key names for both directions: original LLaVA-Hound / Video-LLaVA layout <-> ours.

The original stores the language model under ``model.``, the towers with a double prefix, and the projector as
``model.mm_projector``. Tensors are renamed, never changed, so that a round trip is exact to the bit.
"""

from __future__ import annotations

import re

from hound_plugin.errors import CheckpointError

# (original, ours), tried from top to bottom. `{}` is carried over.
KEY_TABLE: tuple[tuple[str, str], ...] = (
    ("model.image_tower.image_tower.{}", "model.image_tower.{}"),
    ("model.video_tower.video_tower.{}", "model.video_tower.{}"),
    ("model.mm_projector.{}", "model.multi_modal_projector.{}"),
    ("model.embed_tokens.{}", "model.language_model.embed_tokens.{}"),
    ("model.layers.{}", "model.language_model.layers.{}"),
    ("model.norm.{}", "model.language_model.norm.{}"),
    ("lm_head.{}", "lm_head.{}"),
)
# Buffers saved by older transformers; they contain nothing that cannot be recomputed.
IGNORED = re.compile(r"(^|\.)(position_ids|rotary_emb\.inv_freq)$")


def _compile(column: int) -> list[tuple[re.Pattern[str], str]]:
    rows = []
    for row in KEY_TABLE:
        source, target = row[column], row[1 - column]
        rows.append((re.compile(re.escape(source).replace(r"\{\}", "(.+)")), target.replace("{}", r"\1")))
    return rows


_TO_OURS = _compile(0)
_TO_ORIGINAL = _compile(1)


def is_original(keys: list[str]) -> bool:
    """Whether these are the keys of an original checkpoint."""
    return "model.embed_tokens.weight" in keys or any(key.startswith("model.mm_projector.") for key in keys)


def our_name(key: str) -> str:
    """The name of a tensor of either layout in ours; of one that is unknown, its own."""
    for pattern, target in _TO_OURS:
        if pattern.fullmatch(key):
            return pattern.sub(target, key)
    return key


def _rename(keys: list[str], rows: list[tuple[re.Pattern[str], str]], layout: str) -> dict[str, str]:
    renamed: dict[str, str] = {}
    unknown = []
    for key in keys:
        if IGNORED.search(key):
            continue
        for pattern, target in rows:
            if pattern.fullmatch(key):
                renamed[key] = pattern.sub(target, key)
                break
        else:
            unknown.append(key)
    if unknown:
        shown = ", ".join(sorted(unknown)[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        raise CheckpointError(
            f"Expected the keys of {layout}; {len(unknown)} of {len(keys)} are unknown: {shown}. "
            "If the checkpoint contains anything besides the model (optimizer, adapter), remove or merge it first."
        )
    return renamed


def to_ours(keys: list[str]) -> dict[str, str]:
    """Map original keys to ours, in the given order; ignored buffers are left out.

    Raises:
        CheckpointError: unknown keys, which are listed.
    """
    return _rename(keys, _TO_OURS, "an original LLaVA-Hound or Video-LLaVA checkpoint")


def to_original(keys: list[str]) -> dict[str, str]:
    """Map our keys to the original ones.

    Raises:
        CheckpointError: unknown keys, which are listed.
    """
    return _rename(keys, _TO_ORIGINAL, "a LLaVA-Hound checkpoint in Hugging Face layout")
