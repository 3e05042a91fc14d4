"""What a call of the processor may be given, sorted by text, images and clips as transformers sorts it."""

# no `from __future__ import annotations` here: transformers looks at the annotations themselves
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers.processing_utils import ProcessingKwargs

from hound_plugin.errors import SettingsError
from hound_plugin.processing.pixels import tensor_kind

DEFAULTS: dict[str, dict[str, Any]] = {
    # left, so that `model.generate` goes on where the prompts end
    "text_kwargs": {"padding": True, "padding_side": "left", "return_tensors": "pt"},
    "images_kwargs": {"return_tensors": "pt"},
    "videos_kwargs": {"return_tensors": "pt"},
}
# of each chunk between placeholders alone, these would say nothing about the whole prompt
_NOT_HONOURED = (
    "text_pair", "text_target", "text_pair_target", "stride", "is_split_into_words", "return_overflowing_tokens",
    "return_special_tokens_mask", "return_length", "return_token_type_ids",
)  # fmt: skip


class LlavaHoundProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    """Settings of a call, as :class:`transformers.ProcessorMixin` takes them; the video processor adds its own."""

    _defaults = DEFAULTS


@dataclass(frozen=True)
class TextSettings:
    """Settings of a call for its text.

    Attributes:
        padding: as the tokenizers': True or "longest", "max_length", False.
        side: "left" or "right".
        max_length, pad_to_multiple_of: as the tokenizers'.
        truncates: whether prompts beyond ``max_length`` are to be cut, which is refused.
        adds_bos: put BOS in front of a text that does not begin with it.
        kind: of tensors: ``pt``, ``np`` or None.
        attention_mask, token_types, offsets, replacements: what is wanted besides the ids.
    """

    padding: bool | str = True
    side: str = "left"
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    truncates: bool = False
    adds_bos: bool = True
    kind: str | None = "pt"
    attention_mask: bool = True
    token_types: bool = False
    offsets: bool = False
    replacements: bool = False

    @classmethod
    def of(cls, sorted_kwargs: Mapping[str, Any]) -> "TextSettings":
        """Out of what ``ProcessorMixin._merge_kwargs`` gives.

        Raises:
            SettingsError: a setting that cannot be honoured.
        """
        text = sorted_kwargs["text_kwargs"]
        for name in _NOT_HONOURED:
            if text.get(name):
                raise SettingsError(
                    f"{name}: expected nothing, since a prompt is tokenised in chunks between its placeholders; got "
                    f"{text[name]!r:.80}. Leave it out.",
                    name,
                )
        padding, truncation = (getattr(text.get(name), "value", text.get(name)) for name in ("padding", "truncation"))
        on_top = ("return_mm_token_type_ids", "return_text_replacement_offsets")  # newer releases hold them there
        token_types, replacements = (bool(sorted_kwargs.get(name) or text.get(name)) for name in on_top)
        return cls(
            padding=False if padding in (None, "do_not_pad") else padding,
            side=text.get("padding_side") or "left",
            max_length=text.get("max_length"),
            pad_to_multiple_of=text.get("pad_to_multiple_of"),
            truncates=truncation not in (None, False, "do_not_truncate"),
            adds_bos=text.get("add_special_tokens") is not False,
            kind=tensor_kind(text.get("return_tensors")),
            attention_mask=text.get("return_attention_mask") is not False,
            token_types=token_types,
            offsets=bool(text.get("return_offsets_mapping")),
            replacements=replacements,
        )
