"""Field names in use: which are synonyms, which have no effect, which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDS = ("id", "idx", "question_id", "sample_id", "uid", "qid")
VIDEOS = ("video", "videos", "video_path", "video_name", "clip")
IMAGES = ("image", "images", "frame", "image_path", "image_file")
NAMES_OF_MEDIA = frozenset(("video_path", "video_name", "clip", "image_path", "image_file"))
"""Next to another field with the media, these may be just its name: the path without its folder or suffix."""
LAST_VIDEOS = ("video_id",)  # a clip only if no other field names one
SYSTEMS = ("system", "system_prompt")
CONVERSATIONS = ("conversations", "conversation", "messages")
QUESTIONS = ("prompt", "question", "query", "instruction", "q")
ANSWERS = ("answer", "response", "output", "completion", "a")
MORE_OF_QUESTION = "input"
HISTORY = "history"
CHOSEN = ("chosen", "preferred", "chosen_response")
REJECTED = ("rejected", "dispreferred", "rejected_response")
REJECTED_MESSAGES = "rejected_messages"
LABELS = ("label", "kto_tag")
CAPTIONS = ("caption", "description")
TEXT = "text"
REFERENCES = ("reference",)
ACCEPTED = ("accepted", "references")
OPTIONS = ("options", "choices", "candidates")
STARTS = ("start", "video_start", "start_time", "start_sec")
ENDS = ("end", "video_end", "end_time", "end_sec")
SOURCES = ("source", "kind", "dataset", "data_source", "origin_dataset")

READ = frozenset(
    (
        *IDS, *VIDEOS, *IMAGES, *LAST_VIDEOS, *SYSTEMS, *CONVERSATIONS, *QUESTIONS, *ANSWERS,
        MORE_OF_QUESTION, HISTORY, *CHOSEN, *REJECTED, REJECTED_MESSAGES, *LABELS, *CAPTIONS, TEXT,
        *REFERENCES, *ACCEPTED, *OPTIONS, *STARTS, *ENDS, *SOURCES,
    )
)  # fmt: skip

REFUSED = {
    "fps": "frames are chosen by `hound.frame_sampling` and `hound.num_frames`; remove it",
    "max_frames": "frames are chosen by `hound.frame_sampling` and `hound.num_frames`; remove it",
    "min_frames": "frames are chosen by `hound.frame_sampling` and `hound.num_frames`; remove it",
    "nframes": "frames are chosen by `hound.frame_sampling` and `hound.num_frames`; remove it",
    "audio": "LLaVA-Hound sees only frames; remove it",
    "audios": "LLaVA-Hound sees only frames; remove it",
    "tools": "LLaVA-Hound calls no tools; remove it",
    "tool_calls": "LLaVA-Hound calls no tools; remove it",
    "functions": "LLaVA-Hound calls no tools; remove it",
    "function_call": "LLaVA-Hound calls no tools; remove it",
    "start_frame": "a part of a clip is given in seconds, by `start` and `end`",
    "end_frame": "a part of a clip is given in seconds, by `start` and `end`",
    "frame_indices": "frames are chosen by `hound.frame_sampling` and `hound.num_frames`; remove it",
    "rejected_images": "both answers of a pair share the same images; remove it",
    "rejected_videos": "both answers of a pair share the same clips; remove it",
    "rejected_conversations": "give the rejected answer as `rejected`",
    "rejected_conversation": "give the rejected answer as `rejected`",
    "train": "every answer of a row is trained on; remove it, or split the row",
    "train_on_turn": "every answer of a row is trained on; remove it, or split the row",
    "loss": "every answer of a row is trained on; remove it, or split the row",
    "loss_mask": "every answer of a row is trained on; remove it, or split the row",
    "weight": "all rows and turns have the same weight; remove it",
}
"""Fields that ask for something unsupported, with what to do. Refused only where they are filled."""

INSIDE_ONLY = frozenset(("fps", "nframes", "train", "train_on_turn"))
"""In a row these describe the file or the split, and nothing reads them; in a clip or a turn they ask for something."""

NEUTRAL = frozenset(
    (
        "raw", "score", "scores", "reward", "rewards", "margin", "rank", "type", "task", "task_type",
        "category", "split", "origin_split", "origin_idx", "duration", "length", "width", "height", "size",
        "resolution", "url", "link", "license", "language", "lang", "date", "timestamp", "created", "author",
        "annotator", "worker", "version", "model", "judge", "judge_model", "judge_protocol", "judge_endpoint",
        "protocol", "sampler", "sampler_model", "policy", "temperature", "top_p", "seed", "tokens",
        "num_tokens", "num_turns", "metadata", "meta", "info", "tags", "topic", "answer_type",
        "question_type", "ds_name", "image_id", "video_duration", "fingerprint", "sampler_fingerprint",
        "synthetic", "judges", "k", "candidate", "finish",
    )
)  # fmt: skip
"""Provenance and scores: kept when a row is rewritten, without effect on training."""
NEUTRAL_ENDS = ("_score", "_scores", "_candidate", "_model", "_fingerprint", "_source", "_reason", "_judge", "_rating")
IN_MESSAGES = frozenset(("from", "role", "value", "content", "name", "id", "type"))


def is_neutral(name: str) -> bool:
    """Whether a field is known and has no effect on training."""
    return name in NEUTRAL or name.endswith(NEUTRAL_ENDS)


def first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of these fields that is filled; None if none is."""
    name = first_name(row, names)
    return row[name] if name else None


def first_name(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these fields that is filled; empty if none is."""
    if row.keys().isdisjoint(names):
        return ""
    return next((name for name in names if row.get(name) not in (None, "", [], {})), "")
