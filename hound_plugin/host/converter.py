"""Dataset format ``hound``: the original's SFT and DPO records, as they lie on the hub, for the host.

SFT: ``{"id", "video" | "image", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, ...]}``.
DPO: ``{"id", "video", "prompt", "chosen", "rejected"}`` with texts, or ``conversations`` holding the question and
answers as ``{"from", "value"}``, ``{"role", "content"}`` or lists of such messages.
Source: llava/train/train.py and dpo_scripts/run_dpo.py of github.com/RifleZhang/LLaVA-Hound-DPO.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from llamafactory.data.converter import DATASET_CONVERTERS, DatasetConverter, register_dataset_converter

from hound_plugin.errors import DataError, MediaNotFoundError, PlaceholderError
from hound_plugin.host.row_source import row_of
from hound_plugin.host.settings_state import settings
from hound_plugin.processing.processor import is_image_path
from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN, normalise_question

NAME = "hound"
_VIDEO_FIELDS = ("video", "videos")
_IMAGE_FIELDS = ("image", "images", "frame")
_QUESTION_FIELDS = ("prompt", "question")
_USER, _ASSISTANT = ("human", "user"), ("gpt", "assistant")


@dataclass
class HoundDatasetConverter(DatasetConverter):
    """Turns one record into the host's aligned form; a record that cannot be used is an error that names it."""

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        """Convert one record.

        Raises:
            DataError: a field is missing or empty.
            PlaceholderError: ``<video>`` / ``<image>`` and media do not match in number.
            MediaNotFoundError: the record's clip or image does not exist.
        """
        example, self._number, self._file = row_of(example)
        self._example = example
        videos = self._media(example, (self.dataset_attr.videos, *_VIDEO_FIELDS))
        images = self._media(example, (self.dataset_attr.images, *_IMAGE_FIELDS))
        if videos and images:
            raise self._error("a clip or an image in one record (the `sharegpt` format takes both)", [videos, images])
        token = VIDEO_TOKEN if videos else IMAGE_TOKEN
        if self.dataset_attr.ranking:
            prompt, response = self._pair(example, token if videos or images else None)
        else:
            prompt, response = self._conversation(example, token)
        self._check_placeholders(prompt, token, videos or images)
        return {
            "_prompt": prompt,
            "_response": response,
            "_system": example.get(self.dataset_attr.system or "system") or "",
            "_tools": "",
            "_images": images or None,
            "_videos": videos or None,
            "_audios": None,
        }

    # --- records

    def _conversation(self, example: dict[str, Any], token: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        turns = example.get(self.dataset_attr.messages or "conversations")
        if not isinstance(turns, list) or not turns:
            raise self._error("a non-empty list `conversations`", turns)
        messages = [self._message(turn) for turn in turns]
        if messages[0]["role"] == "assistant":  # the original drops it
            messages = messages[1:]
        roles = [message["role"] for message in messages]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise self._error("human and gpt in turn, ending with gpt", [turn.get("from") for turn in turns])
        for message in messages:
            if message["role"] == "user":
                message["content"] = normalise_question(message["content"], (token,))
            elif not message["content"]:
                raise self._error("an answer in every turn (the original masks the whole sample)", "an empty answer")
        tag = self.dataset_attr.kto_tag
        if tag and isinstance(example.get(tag), bool):  # KTO: the host wants the other side empty
            empty = {"role": "assistant", "content": ""}
            return messages[:-1], [messages[-1], empty] if example[tag] else [empty, messages[-1]]
        return messages[:-1], messages[-1:]

    def _pair(self, example: dict[str, Any], token: str | None) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        question = next((example[key] for key in _QUESTION_FIELDS if example.get(key)), None)
        if question is None and isinstance(example.get("conversations"), list) and example["conversations"]:
            question = self._message(example["conversations"][0])["content"]
        if isinstance(question, list) and question:  # [{"role": "user", "content": ...}]
            question = self._message(question[-1])["content"]
        if not isinstance(question, str):
            raise self._error("a text in `prompt` (or a question in `conversations`)", question)
        if token is not None:  # always put in front, whether the record has one or not
            question = normalise_question(token + question.replace(token, "").strip(), (token,))
        answers = []
        for side in (self.dataset_attr.chosen or "chosen", self.dataset_attr.rejected or "rejected"):
            answer = example.get(side)
            if isinstance(answer, list) and answer:
                answer = answer[-1]
            if isinstance(answer, dict):
                answer = answer.get("value", answer.get("content"))
            if not isinstance(answer, str) or not answer:
                raise self._error(f"a non-empty text in `{side}` (an empty answer has no log-probability)", answer)
            answers.append({"role": "assistant", "content": answer})
        return [{"role": "user", "content": question}], answers

    def _message(self, turn: Any) -> dict[str, str]:
        role = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
        text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if role not in (*_USER, *_ASSISTANT) or not isinstance(text, str):
            raise self._error('turns {"from": "human" or "gpt", "value": text}', turn)
        return {"role": "user" if role in _USER else "assistant", "content": text}

    def _check_placeholders(self, prompt: list[dict[str, str]], token: str, media: list[Any]) -> None:
        questions = [message["content"] for message in prompt if message["role"] == "user"]
        found = sum(text.count(token) for text in questions)
        if found != len(media):
            raise PlaceholderError(
                f"{self._where()}: expected {len(media)} question(s) with {token} for {len(media)} item(s), found "
                f"{found}. The original would {'leave the clip out' if found < len(media) else 'fail'} without a word; "
                "correct the record."
            )

    # --- media

    def _media(self, example: dict[str, Any], names: tuple[str | None, ...]) -> list[Any]:
        value = next((example[name] for name in names if name and example.get(name)), None)
        if value is None:
            return []
        flat = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if flat and "image" not in names and all(is_image_path(item) for item in value):
            return [[self._find(item) for item in value]]  # one clip as a list of frames
        items = value if isinstance(value, list) else [value]
        return [[self._find(frame) for frame in item] if isinstance(item, list) else self._find(item) for item in items]

    def _find(self, item: Any) -> Any:
        if not isinstance(item, str):
            return item
        path = find_media(item, self.data_args.media_dir)
        if path is None and settings().on_bad_media == "skip":
            return os.path.join(self.data_args.media_dir, item)  # left out and listed with all other bad media
        if path is None:
            raise MediaNotFoundError(
                f"{self._where()}: expected a file or a folder of frames {item!r} under media_dir "
                f"{os.path.abspath(self.data_args.media_dir)}; there is none. Set `media_dir` to the folder that the "
                "records' paths begin in, or `hound: {on_bad_media: skip}` to leave such rows out.",
                item,
            )
        return path

    # --- errors

    def _error(self, expected: str, found: Any) -> DataError:
        text = repr(found)
        return DataError(f"{self._where()}: expected {expected}, found {text[:200]}. Correct or remove the record.")

    def _where(self) -> str:
        """The record's place: data set, file, row and id."""
        name = self.dataset_attr.dataset_name
        file = "" if self._file in (None, name) else f", {self._file}"
        row = "row unknown" if self._number is None else f"row {self._number}"
        return f"dataset {name!r}{file}, {row}, id {self._example.get('id')!r}"


def find_media(name: str, media_dir: str | None) -> str | None:
    """The path of a clip, a folder of frames or an image: under ``media_dir``, or else as it is; None if absent."""
    for candidate in (os.path.join(media_dir, name) if media_dir else name, name):
        if os.path.exists(candidate):
            return candidate
    return None


def register() -> None:
    """Add the format to the host, once."""
    if NAME not in DATASET_CONVERTERS:
        register_dataset_converter(NAME, HoundDatasetConverter)
