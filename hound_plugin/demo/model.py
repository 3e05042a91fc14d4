"""A tiny LLaVA-Hound of the real architecture, temporal attention on, with random weights."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, set_seed

from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.model.vision import LlavaHoundTower, TowerBlock
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.records.files import whole_path

IMAGE_SIZE = 32
PATCH_SIZE = 8
TOWER_WIDTH, TOWER_LAYERS, TOWER_HEADS = 96, 3, 4
WIDTH, LAYERS, HEADS = 128, 2, 4
# Wider than is usual: with 0.02 a tower this small takes far longer to find what differs between frames.
TOWER_STD, TEXT_STD, EMBEDDING_STD = 0.1, 0.08, 0.5
MAX_POSITIONS = 1024


def tiny_config(vocab_size: int) -> LlavaHoundConfig:
    """Configuration of the demo model: the released model's structure with every size reduced."""
    tower = {
        "hidden_size": TOWER_WIDTH,
        "intermediate_size": 4 * TOWER_WIDTH,
        "num_hidden_layers": TOWER_LAYERS,
        "num_attention_heads": TOWER_HEADS,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "initializer_range": TOWER_STD,
    }
    text = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        intermediate_size=WIDTH * 8 // 3,
        initializer_range=TEXT_STD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlavaHoundConfig(
        text_config=text,
        image_tower_config=LlavaHoundTowerConfig(**tower),
        video_tower_config=LlavaHoundTowerConfig(**tower, add_time_attn=True, num_frames=8),
        mm_image_tower=None,
        mm_video_tower=None,
    )


def smooth_rows(number: int, width: int) -> torch.Tensor:
    """Random embeddings of ``number`` neighbouring places, ``[number, width]``: the nearer, the more alike; variance 1.

    Random directions for the cosines of a discrete cosine transform, weighted by 1 / frequency. Embeddings of trained
    towers are smooth as well; with independent ones a tower must first learn which frame follows which.
    """
    frequency = torch.arange(1, number, dtype=torch.float32)
    cosines = torch.cos(math.pi * (torch.arange(number).unsqueeze(1) + 0.5) * frequency / number) / frequency
    return cosines / cosines.square().sum(1).mean().sqrt() @ torch.randn(number - 1, width)


@torch.no_grad()
def _smooth_embeddings(tower: LlavaHoundTower) -> None:
    """Give a tower smooth embeddings of time (every block has its own) and of places; the CLS token's is random."""
    for block in tower.encoder.layers:
        if isinstance(block, TowerBlock) and block.num_frames is not None:
            block.temporal_embedding[0] = EMBEDDING_STD * smooth_rows(block.num_frames, TOWER_WIDTH)
    side = IMAGE_SIZE // PATCH_SIZE
    rows, columns = smooth_rows(side, TOWER_WIDTH).unsqueeze(1), smooth_rows(side, TOWER_WIDTH).unsqueeze(0)
    position = tower.embeddings.position_embedding.weight
    position[0] = EMBEDDING_STD * torch.randn(TOWER_WIDTH)
    position[1:] = EMBEDDING_STD * ((rows + columns) / math.sqrt(2)).flatten(0, 1)


def write_model(tokenizer_folder: Path, out_folder: Path, seed: int = 0) -> None:
    """Write model, processor and tokenizer with random weights; the same seed gives the same bytes.

    The folder appears under its name only when it is complete.
    """
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, trust_remote_code=False)
    config = tiny_config(len(tokenizer))
    set_seed(seed)
    model = LlavaHoundForConditionalGeneration(config).to(torch.float32)
    for tower in (model.model.image_tower, model.model.video_tower):
        _smooth_embeddings(tower)
    with whole_path(out_folder) as part:
        model.save_pretrained(part)
        LlavaHoundProcessor.from_config(config, tokenizer).save_pretrained(part)
        shutil.rmtree(out_folder, ignore_errors=True)
