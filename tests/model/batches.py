"""Recorded rows as model inputs."""

from __future__ import annotations

import torch

from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import Turn, encode_conversation, normalise_question
from tests.goldens import ROOT, load_json, rows

CONVERSATIONS = {case["name"]: case for case in load_json("b_sft_tokenization.json")}


def media_path(name: str) -> str:
    """A recorded clip's folder of frames, or an image."""
    folder = ROOT / "frames" / name
    return str(folder if folder.is_dir() else ROOT / "media" / name)


def sft_batch(processor: LlavaHoundProcessor, selected: list[int | str]) -> dict[str, torch.Tensor]:
    """Right-padded inputs of rows of ``sft.jsonl`` (numbers) and of text-only conversations (names)."""
    records = rows("sft.jsonl")
    encoded, images, videos = [], [], []
    for choice in selected:
        record = CONVERSATIONS[choice] if isinstance(choice, str) else records[choice]
        token = ""
        if "video" in record:
            token, number = "<video>", processor.tokens_per_video
            videos.append(processor.read_video(media_path(record["video"])))
        elif "image" in record:
            token, number = "<image>", processor.tokens_per_image
            images.append(processor.read_image(media_path(record["image"])))
        texts = [turn["value"] for turn in record["conversations"]]
        if token:
            texts = [normalise_question(text, (token,)).replace(token, token * number) for text in texts]
        turns = [Turn(*pair) for pair in zip(texts[0::2], texts[1::2], strict=True)]
        encoded.append(encode_conversation(processor.tokenizer, turns))
    batch = pad(encoded)
    if images:
        batch["pixel_values_images"] = torch.stack(images)
    if videos:
        batch["pixel_values_videos"] = torch.stack(videos)
    return batch


def pad(encoded: list[list[tuple[list[int], list[int]]]], side: str = "right") -> dict[str, torch.Tensor]:
    """Rows of ``encode_conversation`` as tensors."""
    ids = [[token for source, target in row for token in source + target] for row in encoded]
    labels = [[token for source, target in row for token in [-100] * len(source) + target] for row in encoded]
    longest = max(map(len, ids))
    batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for row, label in zip(ids, labels, strict=True):
        gap = longest - len(row)
        for name, values, filler in (
            ("input_ids", row, 0), ("labels", label, -100), ("attention_mask", [1] * len(row), 0),
        ):  # fmt: skip
            batch[name].append([filler] * gap + values if side == "left" else values + [filler] * gap)
    return {name: torch.tensor(values) for name, values in batch.items()}
