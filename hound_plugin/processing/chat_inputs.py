"""Chat messages to model inputs, with exactly the tokens that the host's template trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hound_plugin.errors import DataError, PlaceholderError, SettingsError
from hound_plugin.processing.chat_template import is_own
from hound_plugin.processing.media_inputs import as_clips, as_images
from hound_plugin.processing.messages import ChatConversation, read_messages
from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN, ExpandedPrompt, encode_conversation
from hound_plugin.processing.token_rows import Row

_DEFAULT = "auto"  # what newer releases of transformers write for "the processor's own default"


class ChatInputs:
    """``apply_chat_template`` of the processor; transformers' own renders templates that are not ours."""

    tokenizer: Any
    chat_template: Any
    system: str
    num_frames: Any
    _settings: Any
    _inputs: Any
    visual_tokens: Any

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        tools: Any = None,
        documents: Any = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: Any = _DEFAULT,
        return_dict: bool = False,
        load_audio_from_video: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Messages to a prompt, to its tokens, or to everything that the model takes.

        Literal control tokens and placeholders in an answer are ordinary text, as in training.

        Args:
            conversation: messages, or a list of such lists. Contents are texts or lists of parts: ``text``; ``image``
                or ``video`` with what it shows under its own name, ``url``, ``path`` or ``base64``. A clip is anything
                that :meth:`LlavaHoundProcessor.read_video` takes. A part that names nothing takes the next of
                ``images`` or ``videos`` in ``processor_kwargs``.
            chat_template: another template than the processor's.
            tools, documents, load_audio_from_video: nothing; LLaVA-Hound calls no tools and hears nothing.
            add_generation_prompt: whether an answer follows, after a question. A question ends in
                ``ASSISTANT:`` in any case.
            continue_final_message: leave the last answer open.
            return_assistant_tokens_mask: also ``assistant_masks``, 1 for every token that is learnt.
            tokenize: token ids, where False gives the text.
            return_tensors: "pt" (by default), "np" or None.
            return_dict: with ``tokenize``, everything that the model takes; else the token ids alone.
            processor_kwargs: settings as the processor takes them in a call.
            kwargs: more of them, and variables of a template of one's own.

        Raises:
            DataError: a message or a part that cannot be honoured, by its place.
            PlaceholderError: placeholders and media differ in number.
            SettingsError: a setting cannot be honoured.
            MediaError: a clip or an image cannot be used.
        """
        flags = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "return_assistant_tokens_mask": return_assistant_tokens_mask,
        }
        if not is_own(self.chat_template) or chat_template not in (None, self.chat_template):
            extra = {} if return_tensors == _DEFAULT else {"return_tensors": return_tensors}
            return super().apply_chat_template(  # type: ignore[misc]  # ProcessorMixin's
                conversation, chat_template, tools=tools, documents=documents, tokenize=tokenize,
                return_dict=return_dict, load_audio_from_video=load_audio_from_video,
                processor_kwargs=dict(processor_kwargs or {}), **flags, **extra, **kwargs,
            )  # fmt: skip
        if tools or documents or load_audio_from_video:
            raise DataError("Expected no tools, documents or sound: LLaVA-Hound knows none of them. Leave them out.")
        is_batch = bool(conversation) and isinstance(conversation[0], list | tuple)
        chats = [read_messages(messages) for messages in (conversation if is_batch else [conversation])]
        for chat in chats:
            check_end(chat, **flags)
        if not tokenize:
            kwargs.pop("sanitize_control_tokens", None)
            texts = super().apply_chat_template([chat.messages() for chat in chats], **flags, **kwargs)  # type: ignore[misc]
            return texts if is_batch else texts[0]
        call = {**(processor_kwargs or {}), **kwargs}
        call.pop("sanitize_control_tokens", None)  # they always are
        if return_tensors != _DEFAULT:
            call["return_tensors"] = return_tensors
        media = _media(chats, as_images(call.pop("images", None)), as_clips(call.pop("videos", None)))
        settings = self._settings(**call)
        rows = self._chat_rows(chats, settings, continue_final_message, return_assistant_tokens_mask)
        if not return_dict:
            return self._inputs(rows, [], [], settings)["input_ids"]
        return self._inputs(rows, media[IMAGE_TOKEN], media[VIDEO_TOKEN], settings)

    def _chat_rows(
        self, chats: Sequence[ChatConversation], settings: Mapping[str, Any], is_open: bool, with_masks: bool
    ) -> list[Row]:
        tokens = self.visual_tokens(settings["videos_kwargs"].get("num_frames") or self.num_frames)
        rows = []
        for chat in chats:
            pairs = encode_conversation(self.tokenizer, chat.turns(tokens), chat.system or self.system)
            ids = [token for pair in pairs for side in pair for token in side]
            mask = [int(is_answer) for pair in pairs for is_answer, side in enumerate(pair) for _ in side]
            if is_open:  # without the last `</s>`
                del ids[-1], mask[-1]
            rows.append(Row(ExpandedPrompt(ids, [], []), mask if with_masks else None))
        return rows


def check_end(
    chat: ChatConversation,
    add_generation_prompt: bool,
    continue_final_message: Any,
    return_assistant_tokens_mask: bool = False,
) -> None:
    """Whether what is to follow can follow the last message; arguments as ``apply_chat_template`` has them.

    Raises:
        SettingsError: arguments that exclude each other.
        DataError: a question is to go on, or an answer to be answered.
    """
    if continue_final_message not in (True, False):
        raise SettingsError(
            f"continue_final_message: expected true or false, got {continue_final_message!r}.", "continue_final_message"
        )
    for name, given in (
        ("add_generation_prompt", add_generation_prompt),
        ("return_assistant_tokens_mask", return_assistant_tokens_mask),
    ):
        if continue_final_message and given:
            raise SettingsError(
                f"{name}: expected nothing next to continue_final_message. Leave one of them out.", name
            )
    is_answered = len(chat.questions) == len(chat.answers)
    if continue_final_message and not is_answered:
        raise DataError("continue_final_message: expected an answer as the last message, got a question.")
    if add_generation_prompt and is_answered:
        raise DataError(
            "add_generation_prompt: expected a question as the last message, got an answer. Leave it out, or set "
            "continue_final_message to go on with that answer."
        )


def _media(chats: Sequence[ChatConversation], images: list[Any], videos: list[Any]) -> dict[str, list[Any]]:
    """Media of all conversations in order, with those given separately for parts that name nothing."""
    media: dict[str, list[Any]] = {}
    for token, separate in ((IMAGE_TOKEN, images), (VIDEO_TOKEN, videos)):
        items = [item for chat in chats for item in chat.media[token]]
        free = sum(item is None for item in items)
        if free != len(separate):
            raise PlaceholderError(
                f"Expected something to show for each of {free} {token} part(s) that name nothing, got {len(separate)}."
                " Name it in the part (`path`, `url`), or give it in `processor_kwargs`."
            )
        rest = iter(separate)
        media[token] = [next(rest) if item is None else item for item in items]
    return media
