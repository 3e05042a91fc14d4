"""The host's web pages: labels, and the reason in place of the bare word "Error" when something is wrong."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hound_plugin.errors import HoundError
from hound_plugin.host.engine import is_ours
from hound_plugin.host.models import TEMPLATE

CUTOFF = 4096
"""`cutoff_len` of the recipes."""


def one_at_a_time(lock: threading.RLock) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wrap functions so that of all with the same lock one runs at a time."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return original(*args, **kwargs)

        return wrapped

    return wrap


def with_room_for_a_clip(original: Callable[..., dict[str, Any]], engine: Any) -> dict[str, Any]:
    """A tab of the page whose *Cutoff length* becomes what a clip needs when our template is chosen."""
    elements = original(engine)
    template, cutoff = engine.manager.get_elem_by_id("top.template"), elements["cutoff_len"]
    template.change(room_for_a_clip, [template, cutoff], [cutoff], queue=False)
    return elements


def room_for_a_clip(template: str, cutoff_len: float) -> float:
    """``cutoff_len`` for a template: at least that of our recipes, whose clips take 2,048 tokens, or as it is."""
    return max(cutoff_len, CUTOFF) if template == TEMPLATE else cutoff_len


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
        if not is_ours(self.engine.template):
            yield from original(self, chatbot, messages, *args, **kwargs)
            return
        shown = list(chatbot)
        try:
            for chat, conversation in original(self, chatbot, [dict(item) for item in messages], *args, **kwargs):
                yield chat, [*messages, conversation[-1]]
        except (HoundError, ValueError, OSError) as error:
            yield [*shown, {"role": "assistant", "content": f"Error: {error}"}], messages[:-1]

    return wrapped


def stream_chat(original: Callable[..., Iterator[str]], self: Any, *args: Any, **kwargs: Any) -> Iterator[str]:
    """``WebChatModel.stream_chat``: as the recipe says, until the user moves the slider of temperature or of top-p.

    Then the answer is sampled (a temperature means that), with both as the page shows them.
    """
    if is_ours(self.engine.template):
        sliders = {name: self.manager.get_elem_by_id(f"infer.{name}").value for name in ("temperature", "top_p")}
        if all(kwargs.get(name) in (None, first) for name, first in sliders.items()):
            kwargs = {name: value for name, value in kwargs.items() if name not in sliders}
    return original(self, *args, **kwargs)


def labelled(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wrap ``Engine.resume``, which a page runs when it is opened: `webchat` gets its labels at once.

    The host writes them when the language changes, and on that page it is "en" from the beginning.
    """

    @functools.wraps(original)
    def wrapped(self: Any) -> Iterator[Any]:
        yield from original(self)
        if self.pure_chat and is_ours(getattr(self.chatter.engine, "template", None)):
            from llamafactory.webui.common import load_config

            yield self.change_lang(load_config().get("lang") or "en")

    return wrapped
