"""Requests of vLLM's server and of ``LLM.chat`` to prompts: exactly the tokens and frames of the training.

vLLM's own way renders the chat template to a text, and tokenises that. There, a control token in a question counts as
one, and the tokens after a placeholder or ``</s>`` may differ from training; so messages are encoded here as everywhere
in this package. A template of one's own, given with the request or the checkpoint, goes vLLM's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from vllm.inputs import TextPrompt, TokensPrompt
from vllm.multimodal.media.connector import global_thread_pool
from vllm.renderers.chat_utils import parse_chat_messages, parse_chat_messages_async
from vllm.renderers.hf import HfRenderer
from vllm.renderers.params import ChatParams, TokenizeParams

from hound_plugin.errors import HoundError, SettingsError
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.processing.chat_inputs import check_end
from hound_plugin.processing.chat_template import is_own
from hound_plugin.processing.messages import read_messages
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import encode_conversation, expand_prompt
from hound_plugin.records.placeholders import TOKENS
from hound_plugin.vllm.media import for_our_models, read_media, refused

_NOT_TAKEN = ("tools", "documents")
_FLAGS = ("add_generation_prompt", "continue_final_message")


class LlavaHoundRenderer(HfRenderer):
    """vLLM's renderer for models of this package.

    Raises:
        SettingsError: ``--media-io-kwargs`` has settings for clips, which only other loaders take.
    """

    def __init__(self, config: Any, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        multimodal = config.model_config.multimodal_config
        if multimodal is not None:
            _check_loader_settings(multimodal.media_io_kwargs)
        self._processor: LlavaHoundProcessor | None = None
        if self.mm_processor is not None:
            self._processor = self.mm_processor.info.get_hf_processor()
            self._processor.pixel_cache = PixelCache()

    def render_messages(self, messages: list[Any], params: ChatParams) -> tuple[list[Any], Any]:
        """A conversation and its prompt.

        Raises:
            VLLMValidationError: it cannot be honoured; the message says what is.
        """
        processor = self._processor
        if processor is None or not _is_ours(processor, params):
            return super().render_messages(messages, params)
        messages, prompt = self._encoded(processor, messages, params)
        with for_our_models():
            conversation, media, uuids = parse_chat_messages(
                messages, self.model_config, content_format="openai", mm_processor_kwargs=params.mm_processor_kwargs
            )
        reader = self._reader(params)
        read = {kind: [_read(reader, kind, item) for item in _listed(media, kind)] for kind in media or ()}
        return conversation, _with_media(prompt, read, uuids)

    async def render_messages_async(self, messages: list[Any], params: ChatParams) -> tuple[list[Any], Any]:
        """As :meth:`render_messages`; several clips are fetched and decoded at a time."""
        processor = self._processor
        if processor is None or not _is_ours(processor, params):
            return await super().render_messages_async(messages, params)
        messages, prompt = self._encoded(processor, messages, params)
        with for_our_models():
            conversation, media, uuids = await parse_chat_messages_async(
                messages, self.model_config, content_format="openai", mm_processor_kwargs=params.mm_processor_kwargs
            )
        reader, loop = self._reader(params), asyncio.get_running_loop()
        read = {}
        for kind in media or ():
            items = [loop.run_in_executor(global_thread_pool, _read, reader, kind, i) for i in _listed(media, kind)]
            read[kind] = list(await asyncio.gather(*items))
        return conversation, _with_media(prompt, read, uuids)

    def _encoded(
        self, processor: LlavaHoundProcessor, messages: list[Any], params: ChatParams
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Messages that can be read twice, and their tokens, each placeholder once."""
        settled = [_settled(message) for message in messages]
        given = params.chat_template_kwargs
        try:
            _check_loader_settings(params.media_io_kwargs)
            for name in _NOT_TAKEN:
                if given.get(name):
                    raise SettingsError(f"{name}: expected none: LLaVA-Hound knows none. Leave it out.", name)
            chat = read_messages(settled)
            is_open = bool(given.get("continue_final_message"))
            adds = bool(given.get("add_generation_prompt")) and not is_open
            check_end(chat, add_generation_prompt=adds, continue_final_message=is_open)
            turns = chat.turns({})
            pairs = encode_conversation(self.get_tokenizer(), turns, chat.system or processor.system)
        except HoundError as error:
            raise refused(error) from error
        ids = [token for pair in pairs for side in pair for token in side]
        return settled, {"prompt_token_ids": ids[:-1] if is_open else ids}

    def _reader(self, params: ChatParams) -> LlavaHoundProcessor:
        """The processor with the request's own settings, such as ``num_frames``."""
        assert self.mm_processor is not None
        try:
            processor: LlavaHoundProcessor = self.mm_processor.info.get_hf_processor(
                **(params.mm_processor_kwargs or {})
            )
            processor.visual_tokens(processor.num_frames)  # refuses what the video tower does not take
        except HoundError as error:
            raise refused(error) from error
        return processor

    def _tokenize_prompt(self, prompt: TextPrompt, params: TokenizeParams) -> TokensPrompt:
        """Tokens of a ready prompt, encoded in chunks between its placeholders as in training."""
        text = prompt["prompt"]
        counts = {token: [1] * text.count(token) for token in TOKENS}
        expanded = expand_prompt(self.get_tokenizer(), text, counts, params.add_special_tokens)
        offsets = expanded.offsets if self._wants_offsets(prompt, params) else None
        return self._build_tokens_prompt(expanded.ids, prompt, offset_mapping=offsets)


def _is_ours(processor: LlavaHoundProcessor, params: ChatParams) -> bool:
    return is_own(processor.chat_template) and (params.chat_template is None or is_own(params.chat_template))


def _check_loader_settings(given: Mapping[str, Any] | None) -> None:
    """Refuse settings of vLLM's own video loaders.

    Raises:
        SettingsError: there are some; ours would not heed them.
    """
    video = (given or {}).get("video")
    if video:
        raise SettingsError(
            f"media_io_kwargs: expected nothing for `video`, got {video!r}. LLaVA-Hound's frames are set by "
            'mm_processor_kwargs, such as {"num_frames": 16}.',
            "media_io_kwargs",
        )


def _settled(message: Any) -> dict[str, Any]:
    """A message whose parts may be read twice, with an image's path as an address, which vLLM asks for."""
    message = dict(message)
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        message["content"] = [_with_address(part) for part in content]
    return message


def _with_address(part: Any) -> Any:
    value = part.get("image_url") if isinstance(part, Mapping) else None
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str) or not url.startswith("/"):
        return part
    return {**part, "image_url": {**(value if isinstance(value, Mapping) else {}), "url": f"file://{quote(url)}"}}


def _listed(media: Any, kind: str) -> list[Any]:
    items = media[kind]
    return items if isinstance(items, list) else [items]


def _read(processor: LlavaHoundProcessor, kind: str, item: Any) -> Any:
    if item is None:  # known by its uuid
        return None
    try:
        return read_media(processor, kind, item)
    except HoundError as error:
        raise refused(error) from error


def _with_media(prompt: dict[str, Any], media: Mapping[str, Sequence[Any]], uuids: Any) -> dict[str, Any]:
    if media:
        prompt["multi_modal_data"] = dict(media)
    if uuids is not None:
        prompt["multi_modal_uuids"] = uuids
    return prompt
