"""The host's chat engine for our template: what is asked, where answers end, and what is kept between questions.

``llamafactory-cli chat``, ``api``, ``webchat`` and the web UI all answer through ``HuggingfaceEngine``; the patches are
listed in :mod:`hound_plugin.host.patches`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import llamafactory.data  # noqa: F401  (first: importing it registers the modules of ours below)
import torch

from hound_plugin.errors import ContextLengthError
from hound_plugin.host.mm_plugin import is_ours
from hound_plugin.media.cancellation import client_disconnected
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.model.feature_cache import FeatureCache
from hound_plugin.model.generation import (
    Cancelled,
    cut_roles,
    new_tokens,
    refuse_overlong,
    stop_criteria,
    stream_text,
    wants_sampling,
)
from hound_plugin.model.modeling import LlavaHoundModel
from hound_plugin.processing.prompt import IMAGE_TOKEN, PLACEHOLDER, VIDEO_TOKEN, shield, unshield

Messages = list[dict[str, str]]


def set_up_engine(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """``HuggingfaceEngine.__init__``: settle the system prompt, and keep the last clips.

    A conversation then decodes and encodes each clip once. The weights take ``infer_dtype``, which the host reads for
    exports alone.
    """
    original(self, *args, **kwargs)
    if is_ours(self.template) and self.can_generate:
        model_args = kwargs["model_args"] if "model_args" in kwargs else args[0]
        data_args = kwargs["data_args"] if "data_args" in kwargs else args[1]
        if model_args.infer_dtype != "auto" and getattr(self.model, "quantization_method", None) is None:
            for parameter in self.model.parameters():  # not the buffers: angles of positions stay exact
                parameter.data = parameter.data.to(getattr(torch, model_args.infer_dtype))
        self.template.settle_system(data_args.default_system, self.processor)
        self.processor.pixel_cache = PixelCache()
        for module in self.model.modules():  # it may be wrapped by adapters
            if isinstance(module, LlavaHoundModel):
                module.feature_cache = FeatureCache()


def escape_placeholders(text: str) -> str:
    """A user's text in which the names of placeholders are ordinary characters."""
    return shield(shield(text, IMAGE_TOKEN), VIDEO_TOKEN)


def insert_placeholders(messages: Messages, images: list[Any] | None, videos: list[Any] | None) -> Messages:
    """A copy of the messages with a placeholder for each item.

    If no question has one, they go before the first question. The name of a kind that was not given is ordinary text.
    """
    messages = deepcopy(messages)
    questions = [message for message in messages if message["role"] == "user"]
    for token, items in ((IMAGE_TOKEN, images), (VIDEO_TOKEN, videos)):
        if not items:
            for question in questions:
                question["content"] = shield(question["content"], token)
        elif questions and not any(token in question["content"] for question in questions):
            questions[0]["content"] = token * len(items) + questions[0]["content"]
    return messages


def prepare(
    engine: Any,
    messages: Messages,
    system: str | None = None,
    tools: str | None = None,
    images: list[Any] | None = None,
    videos: list[Any] | None = None,
    audios: list[Any] | None = None,
) -> tuple[Messages, str | None, list[torch.Tensor] | None, list[torch.Tensor] | None]:
    """Check a conversation and read its media, before anything is generated: :func:`check`, then :func:`read_pixels`.

    Args:
        engine: anything with ``model``, ``tokenizer``, ``processor`` and ``template``.
        messages, system, tools, images, videos, audios: as the host's engine takes them.

    Returns:
        Messages, system prompt and pixels, which the engine takes instead.

    Raises:
        DataError: roles, tools, audio, or placeholders that do not match.
        ContextLengthError: there is no room for an answer.
        MediaError: a clip or an image cannot be used.
    """
    messages, system = check(engine, messages, system, tools, images, videos, audios)
    return messages, system, *read_pixels(engine.processor, images, videos)


def check(
    engine: Any,
    messages: Messages,
    system: str | None = None,
    tools: str | None = None,
    images: list[Any] | None = None,
    videos: list[Any] | None = None,
    audios: list[Any] | None = None,
) -> tuple[Messages, str | None]:
    """Whether a conversation can be answered, before one of its media is opened.

    Args:
        engine, messages, system, tools, images, videos, audios: as for :func:`prepare`; media are only counted.

    Returns:
        Messages and system prompt, as the engine takes them.

    Raises:
        DataError: roles, tools, audio, or placeholders that do not match.
        ContextLengthError: there is no room for an answer; what is far too long is not tokenised.
    """
    template, processor = engine.template, engine.processor
    messages = insert_placeholders(messages, images, videos)
    system = None if system is None else escape_placeholders(system)
    texts = [unshield(PLACEHOLDER.sub("", message["content"])) for message in messages]
    visual = len(images or []) * processor.tokens_per_image + len(videos or []) * processor.tokens_per_video
    refuse_overlong(engine.model.config, engine.tokenizer, [*texts, system or ""], visual, len(messages) // 2)
    expanded = template.mm_plugin.process_messages(messages, images or [], videos or [], audios or [], processor)
    paired = [*expanded, {"role": "assistant", "content": ""}]
    prompt, _ = template.encode_oneturn(engine.tokenizer, paired, system, tools)
    new_tokens(engine.model.config, len(prompt))
    return messages, system


def read_pixels(
    processor: Any, images: list[Any] | None, videos: list[Any] | None
) -> tuple[list[torch.Tensor] | None, list[torch.Tensor] | None]:
    """Images and clips as pixels; what is read already stays as it is.

    Raises:
        MediaError: a clip or an image cannot be used.
    """
    pixels = [
        None if items is None else [item if torch.is_tensor(item) else read(item) for item in items]
        for items, read in ((images, processor.read_image), (videos, processor.read_video))
    ]
    return pixels[0], pixels[1]


class _Parts:
    """The engine's parts, as its static functions are given them."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any, template: Any) -> None:
        self.model, self.tokenizer, self.processor, self.template = model, tokenizer, processor, template


def process_args(
    original: Callable[..., Any],
    model: Any,
    tokenizer: Any,
    processor: Any,
    template: Any,
    generating_args: dict[str, Any],
    messages: Messages,
    system: str | None = None,
    tools: str | None = None,
    images: Any = None,
    videos: Any = None,
    audios: Any = None,
    input_kwargs: Any = None,
) -> tuple[dict[str, Any], int]:
    """``HuggingfaceEngine._process_args``: checks media, and keeps the answer within the context.

    A temperature means sampling, even if the recipe is greedy.
    """
    input_kwargs = {} if input_kwargs is None else input_kwargs
    if is_ours(template):
        # the host would leave a temperature without effect where the recipe is greedy
        input_kwargs["do_sample"] = wants_sampling(input_kwargs.get("temperature"), input_kwargs.get("do_sample"))
        parts = _Parts(model, tokenizer, processor, template)
        messages, system, images, videos = prepare(parts, messages, system, tools, images, videos, audios)
    arguments, prompt = original(
        model, tokenizer, processor, template, generating_args, messages, system, tools, images, videos, audios,
        input_kwargs,
    )  # fmt: skip
    if is_ours(template):
        config = arguments["generation_config"]
        wanted = config.max_new_tokens
        if wanted is None and config.max_length is not None:
            wanted, config.max_length = config.max_length - prompt, None
            if wanted < 1:
                raise ContextLengthError(
                    f"The conversation has {prompt} tokens, and `max_length` allows {wanted + prompt} with the answer. "
                    "Set `max_new_tokens` instead."
                )
        config.max_new_tokens = new_tokens(model.config, prompt, wanted)
        arguments["stopping_criteria"] = stop_criteria(tokenizer, prompt)
        disconnected = client_disconnected.get()
        if disconnected is not None:
            arguments["stopping_criteria"].append(Cancelled(disconnected))
    return arguments, prompt


def chat(
    original: Callable[..., Any], model: Any, tokenizer: Any, processor: Any, template: Any, *args: Any, **kwargs: Any
) -> Any:
    """``HuggingfaceEngine._chat``: answers end at the name of a role."""
    responses = original(model, tokenizer, processor, template, *args, **kwargs)
    if is_ours(template):
        for response in responses:
            answer = cut_roles(response.response_text)
            if answer != response.response_text:
                response.response_text, response.finish_reason = answer, "stop"
    return responses


def stream_chat(
    original: Callable[..., Any], model: Any, tokenizer: Any, processor: Any, template: Any, *args: Any, **kwargs: Any
) -> Callable[[], str]:
    """``HuggingfaceEngine._stream_chat``: errors reach the reader, and media are not read on the event loop."""
    if not is_ours(template):
        stream: Callable[[], str] = original(model, tokenizer, processor, template, *args, **kwargs)
        return stream

    from llamafactory.chat.hf_engine import HuggingfaceEngine  # which imports this module

    def pieces() -> Iterator[str]:
        arguments, prompt = HuggingfaceEngine._process_args(model, tokenizer, processor, template, *args, **kwargs)
        config = arguments["generation_config"]
        skip = getattr(config, "skip_special_tokens", True)
        if (config.num_beams or 1) > 1:  # which beam wins is known at the end: the answer comes in one piece
            best = model.generate(**arguments)[0, prompt:]
            yield cut_roles(tokenizer.decode(best, skip_special_tokens=skip, clean_up_tokenization_spaces=True))
        else:
            yield from stream_text(model.generate, arguments, tokenizer, skip)

    answer = pieces()

    def following() -> str:
        try:
            return next(answer)
        except StopIteration:
            raise StopAsyncIteration from None

    return following
