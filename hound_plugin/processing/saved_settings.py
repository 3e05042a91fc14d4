"""Settings of a processor as a checkpoint's files hold them: transformers' layout, ours before it, or none at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils import (
    CHAT_TEMPLATE_DIR,
    CHAT_TEMPLATE_FILE,
    IMAGE_PROCESSOR_NAME,
    PROCESSOR_NAME,
    VIDEO_PROCESSOR_NAME,
    cached_file,
)

from hound_plugin.errors import CheckpointError, damage_named
from hound_plugin.processing.image_processor import LlavaHoundImageProcessor
from hound_plugin.processing.prompt import SYSTEM
from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
_SIZES = ("size", "crop_size")


def saved_settings(name: Any, **hub: Any) -> dict[str, Any]:
    """What the files of a checkpoint or an adapter say: the processor's own settings and those of its parts.

    Args:
        name: a folder or a hub id.
        hub: where on the hub, as transformers' ``cached_file`` takes it.

    Returns:
        ``image_processor`` and ``video_processor`` with their settings (empty where the files have none), and
        ``system`` where it is set: as :meth:`LlavaHoundProcessor.from_config` takes them.

    Raises:
        CheckpointError: a file is damaged.
    """
    values = _json(name, PROCESSOR_NAME, hub)
    image = values.pop("image_processor", None) or _json(name, IMAGE_PROCESSOR_NAME, hub, "image_processor_type")
    video = values.pop("video_processor", None) or _json(name, VIDEO_PROCESSOR_NAME, hub, "video_processor_type")
    if not video:  # before the video processor was a part of its own, both shared statistics
        video = {key: image[key] for key in ("image_mean", "image_std") if key in image}
        video.update({key: values.pop(key) for key in ("num_frames", "frame_sampling") if key in values})
    if "image_aspect_ratio" in values:
        image = {**image, "do_pad": values.pop("image_aspect_ratio") == "pad"}
    own = {"system": values["system"]} if "system" in values else {}
    return {**own, "image_processor": image, "video_processor": video}


def changed_settings(name: Any, config: Any) -> list[str]:
    """Names of the settings in a checkpoint's processor files that its configuration does not tell."""
    saved, side = saved_settings(name), config.video_tower_config.image_size
    usual: dict[str, Any] = {
        "image_processor": LlavaHoundImageProcessor(size=side, do_pad=config.image_aspect_ratio == "pad"),
        "video_processor": LlavaHoundVideoProcessor(size=side, num_frames=config.default_num_frames),
    }
    changed = [key for key in ("system",) if saved.get(key, SYSTEM) != SYSTEM]
    for part, processor in usual.items():
        known = json.loads(processor.to_json_string())
        settings = part_settings(saved[part], side, name)
        changed += [key for key, value in settings.items() if value != known.get(key)]
    return list(dict.fromkeys("image_aspect_ratio" if key == "do_pad" else key for key in changed))


def part_settings(part: dict[str, Any], side: int, name: Any) -> dict[str, Any]:
    """Settings of an image or a video processor, for towers that take squares of ``side`` pixels.

    Raises:
        CheckpointError: they say another size.
    """
    for key in _SIZES:
        edges = part.get(key)
        if edges is not None and set(edges.values() if isinstance(edges, dict) else [edges]) - {None} != {side}:
            raise CheckpointError(
                f"Expected `{key}` of {side} pixels in the processor's settings of {name}, as its towers take them, "
                f"found {edges!r}. Correct {PROCESSOR_NAME}."
            )
    return {
        key: value
        for key, value in part.items()
        if key not in (*_SIZES, "image_processor_type", "video_processor_type", "processor_class")
    }


def saved_template(name: Any, **hub: Any) -> str | dict[str, str] | None:
    """The chat template of a checkpoint; by name where there are several, None where there is none."""
    path = _cached(name, CHAT_TEMPLATE_FILE, hub)
    templates = {} if path is None else {"default": path.read_text(encoding="utf-8")}
    folder = Path(name) / CHAT_TEMPLATE_DIR
    if folder.is_dir():
        templates.update({file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.jinja"))})
    return templates.get("default") if set(templates) <= {"default"} else templates


def _json(name: Any, file: str, hub: dict[str, Any], kind: str = "") -> dict[str, Any]:
    """A JSON file of ours in a folder or on the hub; empty if there is none, or one of another class of processor."""
    path = _cached(name, file, hub)
    with damage_named(name, file):
        values: Any = json.loads(path.read_text(encoding="utf-8")) if path else {}
        if not isinstance(values, dict):
            raise TypeError(f"expected a JSON object, found a {type(values).__name__}")
    return values if not kind or str(values.get(kind)).startswith("LlavaHound") else {}


def _cached(name: Any, file: str, hub: dict[str, Any]) -> Path | None:
    path = cached_file(
        name, file, **hub, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return Path(path) if path else None


def check_tokenizer(tokenizer: Any, name: Any) -> None:
    """Refuse a tokenizer whose files lack something.

    Raises:
        CheckpointError: it does not know where a text begins and ends, or two of its tokens have one id.
    """
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"Expected a tokenizer that knows where a text begins and ends (bos_token, eos_token) in {name}. Is "
            "its tokenizer_config.json there and whole?"
        )
    tokens: dict[int, str] = {}
    for token, number in tokenizer.get_vocab().items():
        other = tokens.setdefault(number, token)
        if other is not token:
            raise CheckpointError(
                f"Expected an id for each token in {name}, found {number} for {other!r} and {token!r}. Its "
                "tokenizer is damaged; download it again."
            )
