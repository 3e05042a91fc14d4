"""Combine a language model, two towers and a projector into a trainable checkpoint, from which pre-training starts."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer

from hound_plugin.errors import CheckpointError, SettingsError
from hound_plugin.model.checkpoint import find_tower, read_tensors, read_tower
from hound_plugin.model.checkpoint_conversion import keep_tokenizer, model_shapes
from hound_plugin.model.checkpoint_files import fetch, stored_shapes, stored_tensors, weight_files
from hound_plugin.model.checkpoint_writer import CheckpointWriter, parse_size
from hound_plugin.model.completeness import check_complete, tensor_shapes
from hound_plugin.model.configuration import IMAGE_TOWER, VIDEO_TOWER, LlavaHoundConfig, read_tower_config
from hound_plugin.model.key_mapping import IGNORED
from hound_plugin.model.projector import build_projector
from hound_plugin.processing.processor import LlavaHoundProcessor

_PROJECTOR_KEY = re.compile(r"(?:model\.)?mm_projector\.(.+)")


def assemble(
    language_model: str,
    target: str | os.PathLike[str],
    image_tower: str = IMAGE_TOWER,
    video_tower: str = VIDEO_TOWER,
    projector: str | None = None,
    projector_type: str = "mlp2x_gelu",
    seed: int = 0,
    shard_size: str = "5GB",
    progress: bool = True,
) -> Path:
    """Write a checkpoint in our layout from its parts.

    Args:
        language_model: folder or hub id of a LLaMA (Vicuna) with its tokenizer.
        target: a new or an empty folder.
        image_tower, video_tower: LanguageBind folders or hub ids.
        projector: ``mm_projector.bin`` (or .safetensors) as saved by the original's pre-training; fresh random
            weights if None.
        projector_type: of a fresh projector, or of the given one.
        seed: of a fresh projector.
        shard_size: largest file.
        progress: show a bar.

    Raises:
        CheckpointError: a part cannot be found, lacks tensors, or has others, or the parts do not fit together.
        SettingsError: the target folder is not empty.
    """
    folder = Path(language_model)
    if not folder.is_dir():
        folder = fetch(language_model)
    text = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if text.model_type != "llama":
        raise CheckpointError(f"Expected a LLaMA or Vicuna in {language_model}, found model_type {text.model_type!r}.")
    config = LlavaHoundConfig(
        text_config=text.to_dict(),
        image_tower_config=read_tower_config(image_tower).to_dict(),
        video_tower_config=read_tower_config(video_tower).to_dict(),
        mm_projector_type=projector_type,
        mm_image_tower=image_tower,
        mm_video_tower=video_tower,
        architectures=["LlavaHoundForConditionalGeneration"],
        dtype=text.dtype,
        tie_word_embeddings=bool(text.tie_word_embeddings),
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
    )
    projector_weights = _projector(config, projector, seed)
    files = {
        name: find_tower(location, None, {})
        for name, location in (("image_tower", image_tower), ("video_tower", video_tower))
    }
    for name, file in files.items():
        if file is None:
            raise CheckpointError(
                f"Expected weights of the {name.replace('_', ' ')} in {getattr(config, 'mm_' + name)!r}, found none. "
                "Check the folder or hub id."
            )
    check_complete(model_shapes(config), _shapes(folder, files, projector_weights, config), f"made of {language_model}")
    parts = ", ".join(filter(None, (language_model, image_tower, video_tower, projector)))
    with CheckpointWriter(Path(target), parse_size(shard_size), parts) as writer:
        for name, tensor in tqdm(_parts(folder, files, projector_weights, config), unit="tensor", disable=not progress):
            writer.add(name, tensor)
        config.save_pretrained(writer.part)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        LlavaHoundProcessor.from_config(config, tokenizer).save_pretrained(writer.part)
        keep_tokenizer(folder, writer.part)
    return Path(target)


def _ours(name: str, folder: Path) -> str:
    """Our name of a LLaMA's tensor."""
    if name != "lm_head.weight" and not name.startswith("model."):
        raise CheckpointError(f"Expected the keys of a LLaMA in {folder}, found {name!r}.")
    return name if name == "lm_head.weight" else "model.language_model." + name.removeprefix("model.")


def _shapes(
    folder: Path, towers: dict[str, Any], projector: dict[str, torch.Tensor], config: LlavaHoundConfig
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors to be written, from the headers of their files."""
    shapes = {_ours(name, folder): shape for name, shape in stored_shapes(weight_files(folder)).items()}
    shapes |= {f"model.multi_modal_projector.{name}": tuple(value.shape) for name, value in projector.items()}
    for tower, file in towers.items():
        with contextlib.ExitStack() as stack:
            found = tensor_shapes(read_tower(file, getattr(config, f"{tower}_config"), stack))
            shapes |= {f"model.{tower}.{name}": shape for name, shape in found.items()}
    return shapes


def _parts(
    folder: Path, towers: dict[str, Any], projector: dict[str, torch.Tensor], config: LlavaHoundConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in stored_tensors(weight_files(folder), lambda name: not IGNORED.search(name)):
        yield _ours(name, folder), value
    yield from ((f"model.multi_modal_projector.{name}", value) for name, value in projector.items())
    for tower, file in towers.items():
        with contextlib.ExitStack() as stack:
            for name, value in read_tower(file, getattr(config, f"{tower}_config"), stack).items():
                yield f"model.{tower}.{name}", value if torch.is_tensor(value) else value[...]


def _projector(config: LlavaHoundConfig, file: str | None, seed: int) -> dict[str, torch.Tensor]:
    widths = config.video_tower_config.hidden_size, config.text_config.hidden_size
    if config.image_tower_config.hidden_size != widths[0]:
        raise CheckpointError(
            f"Expected towers of one width for the shared projector, got {config.image_tower_config.hidden_size} "
            f"(images) and {widths[0]} (clips)."
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = build_projector(config.mm_projector_type, *widths).to(config.dtype or torch.float32).state_dict()
    if file is None:
        return expected
    if not Path(file).is_file():
        raise SettingsError(f"Expected a projector file; {file} is not a file. Check the path.")
    with contextlib.ExitStack() as stack:
        stored = read_tensors([file], stack)
        others = sorted(name for name in stored if not _PROJECTOR_KEY.fullmatch(name))
        if others:
            raise CheckpointError(
                f"Expected a projector alone in {file}, found {', '.join(others[:3])} too: trained embeddings or other "
                "parts, which a pre-training with `mm_use_im_start_end` saves and LLaVA-Hound has no tokens for. Give "
                "a projector of a pre-training without it."
            )
        tensors = {
            _PROJECTOR_KEY.sub(r"\1", name): value if torch.is_tensor(value) else value[...]
            for name, value in stored.items()
        }
        if len(tensors) < len(stored):
            raise CheckpointError(f"Expected each tensor of the projector once in {file}; some have two names.")
    expected_shapes = {name: tuple(value.shape) for name, value in expected.items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected_shapes != shapes:
        raise CheckpointError(
            f"Expected a projector {config.mm_projector_type} with the shapes {expected_shapes}, found {shapes} in "
            f"{file}. Name another file, or set the projector type."
        )
    return tensors
