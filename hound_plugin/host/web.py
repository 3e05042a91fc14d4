"""What the host's web pages do when something is wrong: the reason on the page in place of the bare word "Error"."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from hound_plugin.errors import HoundError


def told(original: Callable[..., Iterator[str]]) -> Callable[..., Iterator[str]]:
    """Wrap a generator of status lines, so that an error of this package becomes its last line, and a warning.

    A generator function again, because gradio asks whether it is one.
    """

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Iterator[str]:
        try:
            yield from original(*args, **kwargs)
        except HoundError as error:
            import gradio

            gradio.Warning(str(error))
            yield str(error)

    return wrapped


def answered(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wrap ``WebChatModel.stream``: a question that fails gets the reason as its answer and leaves the conversation.

    The conversation that goes into the next turn holds the texts as they were typed: the host writes placeholders
    into it, and a next question without the clip would have one too many.
    """

    @functools.wraps(original)
    def wrapped(self: Any, chatbot: list[Any], messages: list[Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        from hound_plugin.host.mm_plugin import LlavaHoundPlugin

        if not isinstance(self.engine.template.mm_plugin, LlavaHoundPlugin):
            yield from original(self, chatbot, messages, *args, **kwargs)
            return
        shown = list(chatbot)
        try:
            for chat, conversation in original(self, chatbot, [dict(item) for item in messages], *args, **kwargs):
                yield chat, [*messages, conversation[-1]]
        except (HoundError, ValueError, OSError) as error:
            yield [*shown, {"role": "assistant", "content": f"Error: {error}"}], messages[:-1]

    return wrapped
