"""The template ``llava_hound``: the original's prompt, tokenised as the original tokenises it.

The host encodes message by message, which differs from the second turn on; this class encodes whole conversations
(:mod:`hound_plugin.processing.prompt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamafactory.data.formatter import EmptyFormatter, StringFormatter
from llamafactory.data.template import TEMPLATES, Template, register_template

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.host.mm_plugin import get_plugin
from hound_plugin.host.models import TEMPLATE
from hound_plugin.processing.chat_template import chat_template
from hound_plugin.processing.prompt import (
    IMAGE_TOKEN,
    PLACEHOLDER,
    SYSTEM,
    VIDEO_TOKEN,
    Turn,
    add_placeholder_tokens,
    encode_conversation,
    shield,
)


class LlavaHoundTemplate(Template):
    """``vicuna_v1`` with exact tokens. Prompt and answer of each turn come from one encoding of the conversation."""

    def fix_special_tokens(self, tokenizer: Any) -> None:
        """Add the placeholders, and the unknown token as padding as the original has it."""
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.unk_token
        super().fix_special_tokens(tokenizer)
        add_placeholder_tokens(tokenizer)

    def fix_jinja_template(self, tokenizer: Any) -> None:
        """Give the tokenizer the chat template that takes messages of parts, with this template's system prompt."""
        tokenizer.chat_template = chat_template(self.default_system)

    def settle_system(self, given: str | None, processor: Any) -> None:
        """Choose the system prompt of conversations that have none: the recipe's, else that of the model's training.

        Args:
            given: ``default_system`` of the recipe, or None.
            processor: the model's; it is saved with what is trained.

        Raises:
            SettingsError: it names a placeholder.
        """
        if given is None:
            self.default_system = processor.system
        else:
            check_system(given)
        if self.default_system != processor.system:
            processor.set_system(self.default_system)

    def encode_oneturn(
        self,
        tokenizer: Any,
        messages: list[dict[str, str]],
        system: str | None = None,
        tools: str | None = None,
    ) -> tuple[list[int], list[int]]:
        """Token ids of everything up to the last answer, and of the last answer (empty: ready to generate)."""
        pairs = self._pairs(tokenizer, messages, system, tools)
        prompt: list[int] = []
        for source, target in pairs[:-1]:
            prompt += source + target
        source, target = pairs[-1]
        return prompt + source, target

    def encode_multiturn(
        self,
        tokenizer: Any,
        messages: list[dict[str, str]],
        system: str | None = None,
        tools: str | None = None,
        discarding_history_cot: bool = False,
    ) -> list[tuple[list[int], list[int]]]:
        """Token ids of question and answer, turn by turn.

        Raises:
            DataError: an answer is empty; the original silently masks such a sample.
        """
        pairs = self._pairs(tokenizer, messages, system, tools)
        if not all(target for _, target in pairs):
            raise DataError(
                f"Expected an answer in every turn, found an empty one in {shorten(messages)}. Remove the row."
            )
        return pairs

    def _pairs(
        self, tokenizer: Any, messages: Sequence[dict[str, str]], system: str | None, tools: str | None
    ) -> list[tuple[list[int], list[int]]]:
        if tools:
            raise DataError("Expected no tools: LLaVA-Hound cannot call functions. Remove the `tools` column.")
        roles = [message["role"] for message in messages]
        if not roles or len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
            raise DataError(
                f"Expected messages of user and assistant in turn, found the roles {roles} in {shorten(messages)}."
            )
        turns = [
            Turn(question["content"], answer["content"])
            for question, answer in zip(messages[0::2], messages[1::2], strict=True)
        ]
        return encode_conversation(tokenizer, turns, _as_text(system) if system else self.default_system)


def _as_text(system: str) -> str:
    """A row's system prompt, in which the names of placeholders are ordinary text, as they are in a chat."""
    return shield(shield(system, IMAGE_TOKEN), VIDEO_TOKEN)


def check_system(given: str) -> None:
    """Refuse a ``default_system`` that names a placeholder.

    Raises:
        SettingsError: it does.
    """
    if PLACEHOLDER.search(given):
        raise SettingsError(f"Expected a `default_system` without <image> and <video>, got {given!r}. Remove them.")


def shorten(messages: Any, limit: int = 300) -> str:
    """Messages for an error text."""
    text = repr([message["content"] for message in messages])
    return text if len(text) <= limit else text[:limit] + "..."


def register() -> None:
    """Add the template to the host, once."""
    if TEMPLATE in TEMPLATES:
        return
    register_template(
        name=TEMPLATE,
        format_user=StringFormatter(slots=["USER: {{content}} ASSISTANT:"]),
        format_assistant=StringFormatter(slots=[" {{content}}", {"eos_token"}]),
        format_system=StringFormatter(slots=["{{content}} "]),
        format_prefix=EmptyFormatter(slots=[{"bos_token"}]),
        default_system=SYSTEM,
        replace_jinja_template=True,
        mm_plugin=get_plugin(),
        template_class=LlavaHoundTemplate,
    )
