"""The ``hound:`` block: settings of this package in any YAML that the host reads.

Priority: the block (or ``hound.key=value`` on the command line), then ``HOUND_<KEY>`` environment variables, then
the defaults. Unknown names and bad values are refused with the names and values that exist.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from hound_plugin.errors import SettingsError

ENVIRONMENT_PREFIX = "HOUND_"


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    text = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value  # YAML 1.1's on and off
    if text not in allowed:
        raise SettingsError(f"hound.{name}: expected one of {', '.join(allowed)}; got {value!r}.")
    return str(text)


def _number(name: str, value: Any, kind: type, minimum: float) -> Any:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = kind(value)
        if kind is int and float(value) != number:
            raise ValueError
    except (TypeError, ValueError):
        number = None
    if number is None or not minimum <= number < float("inf"):
        what = "a whole number" if kind is int else "a number of seconds"
        raise SettingsError(f"hound.{name}: expected {what} of at least {minimum:g}; got {value!r}.")
    return number


def _off(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str) and value.lower() in {"off", "none", "null", ""})


@dataclass(frozen=True)
class HoundSettings:
    """Validated settings of the ``hound:`` block. Every field's help text is its documentation."""

    num_frames: int | None = field(
        default=None, metadata={"help": "frames taken from a clip; the model's own number (8) if not given"}
    )
    frame_sampling: str = field(
        default="uniform",
        metadata={
            "help": "which frames: `uniform` over the whole clip, `first_10s` (the original's decord rule), `fps`"
        },
    )
    decoder: str = field(default="auto", metadata={"help": "`auto`, `decord`, `torchcodec` or `pyav`"})
    frame_cache: str | None = field(
        default=None, metadata={"help": "folder where processed clips are kept, or off; 4.6 MiB a clip at full size"}
    )
    on_bad_media: str = field(
        default="error", metadata={"help": "`error`, or `skip`: rows with bad media are left out and listed"}
    )
    check_media: str = field(
        default="sample",
        metadata={"help": "check before training: `all` media, a `sample` of at most 20000, or `off`"},
    )
    decode_timeout: float | None = field(
        default=None, metadata={"help": "seconds after which decoding one clip is killed, or off"}
    )
    prefix_sharing: bool = field(default=False, metadata={"help": "not available in this version; only off"})
    reference_log_probs: str | None = field(default=None, metadata={"help": "not available in this version; only off"})

    def __post_init__(self) -> None:
        """Check and normalise every value.

        Raises:
            SettingsError: a bad value; the message names the key and what it accepts.
        """
        set_field = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 (frozen dataclass)
        if self.num_frames is not None:
            set_field("num_frames", _number("num_frames", self.num_frames, int, 1))
        set_field("frame_sampling", _choice("frame_sampling", self.frame_sampling, ("uniform", "first_10s", "fps")))
        set_field("decoder", _choice("decoder", self.decoder, ("auto", "decord", "torchcodec", "pyav")))
        set_field("on_bad_media", _choice("on_bad_media", self.on_bad_media, ("error", "skip")))
        set_field("check_media", _choice("check_media", self.check_media, ("all", "sample", "off")))
        set_field("frame_cache", None if _off(self.frame_cache) else os.path.expanduser(str(self.frame_cache)))
        timeout = None if _off(self.decode_timeout) else _number("decode_timeout", self.decode_timeout, float, 0.1)
        set_field("decode_timeout", timeout)
        for name in ("prefix_sharing", "reference_log_probs"):
            value = getattr(self, name)
            if not _off(value):
                raise SettingsError(f"hound.{name}: not available in this version; got {value!r}. Leave it off.")
            set_field(name, False if name == "prefix_sharing" else None)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(item.name for item in fields(cls))

    @classmethod
    def build(
        cls, block: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
    ) -> HoundSettings:
        """Settings from a block and the environment.

        Args:
            block: the ``hound:`` mapping, or None.
            environment: variables to read; ``os.environ`` if None.

        Raises:
            SettingsError: an unknown key or a bad value.
        """
        environment = os.environ if environment is None else environment
        if block is not None and not isinstance(block, Mapping):
            raise SettingsError(
                f"hound: expected a block of `key: value` lines ({', '.join(cls.keys())}); got {block!r}."
            )
        values: dict[str, Any] = {}
        known = cls.keys()
        for name in known:
            variable = ENVIRONMENT_PREFIX + name.upper()
            if environment.get(variable) not in (None, ""):
                values[name] = environment[variable]
        for name, value in (block or {}).items():
            if name not in known:
                close = get_close_matches(str(name), cls.keys(), n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise SettingsError(f"hound.{name}: unknown key.{hint} Known keys: {', '.join(cls.keys())}.")
            values[name] = value
        return cls(**values)
