"""The pool of requests for a caption, of which each clip draws one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

from hound_plugin.errors import SettingsError
from hound_plugin.records.placeholders import TOKENS
from hound_plugin.records.record import MediaKind
from hound_plugin.records.seeds import make_seed
from hound_plugin.validation import Settings, build, read_yaml

BUILT_IN = ("detailed",)


class InstructionFile(Settings):
    """A file of requests."""

    name: str = Field(min_length=1, description="name of the pool")
    version: str = Field(min_length=1, description="its version; change it with the words")
    video: list[str] = Field(min_length=1, description="requests about a clip")
    image: list[str] = Field(min_length=1, description="requests about an image")

    @field_validator("video", "image")
    @classmethod
    def _have_words(cls, texts: list[str]) -> list[str]:
        for number, text in enumerate(texts, 1):
            if not text.strip() or any(token in text for token in TOKENS):
                raise ValueError(f"request {number}: expected words without a placeholder, got {text!r}")
        return [text.strip() for text in texts]


@dataclass(frozen=True)
class Instructions:
    """A pool of requests.

    Attributes:
        id: name, version and digest of the words, for everything that is made with them.
        requests: by kind of medium.
    """

    id: str
    requests: dict[MediaKind, tuple[str, ...]]

    def draw(self, kind: MediaKind, seed: int, clip: str) -> str:
        """One request, by the seed and the clip's id alone."""
        pool = self.requests[kind]
        return pool[make_seed("instruction", seed, clip) % len(pool)]


def read_instructions(name: str) -> Instructions:
    """A built-in pool by name, or one from a YAML file.

    Raises:
        SettingsError: no such name or file, not valid YAML, or a key that is unknown, missing or bad.
    """
    if name in BUILT_IN:
        text = resources.files("hound_plugin.evaluation").joinpath("instructions", f"{name}.yaml").read_text("utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"--instructions: expected {', '.join(BUILT_IN)} or a YAML file; {name}: {error}."
            ) from error
    try:
        values: Any = read_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"--instructions: {name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"--instructions: {name}: expected the keys name, version, video and image.")
    pool = build(InstructionFile, values, f"--instructions: {name}: ")
    digest = hashlib.sha256(repr((pool.video, pool.image)).encode()).hexdigest()[:12]
    return Instructions(
        f"{pool.name}/{pool.version}/{digest}", {"video": tuple(pool.video), "image": tuple(pool.image)}
    )
