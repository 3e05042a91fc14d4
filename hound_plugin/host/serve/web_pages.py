"""The host's web pages: labels, and the reason instead of the bare word "Error" when something is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from hound_plugin.errors import HoundError
from hound_plugin.host.mm_plugin import is_ours
from hound_plugin.host.models import TEMPLATE

CUTOFF = 4096
"""`cutoff_len` of the recipes."""


_FILE_OF_PATHS = threading.RLock()  # saving loads first


def one_at_a_time(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``load_config`` and ``save_config``, of which one runs at a time."""
    with _FILE_OF_PATHS:
        return original(*args, **kwargs)


def with_room_for_a_clip(original: Callable[..., dict[str, Any]], engine: Any) -> dict[str, Any]:
    """A tab of the page whose *Cutoff length* becomes what a clip needs when our template is chosen."""
    elements = original(engine)
    template, cutoff = engine.manager.get_elem_by_id("top.template"), elements["cutoff_len"]
    template.change(room_for_a_clip, [template, cutoff], [cutoff], queue=False)
    return elements


def room_for_a_clip(template: str, cutoff_len: float) -> float:
    """``cutoff_len`` for a template: at least that of our recipes, whose clips take 2,048 tokens, or as it is."""
    return max(cutoff_len, CUTOFF) if template == TEMPLATE else cutoff_len


def show_errors(original: Callable[..., Iterator[str]], *args: Any, **kwargs: Any) -> Iterator[str]:
    """A generator of status lines, of which an error of this package becomes the last one, and a warning."""
    try:
        yield from original(*args, **kwargs)
    except HoundError as error:
        import gradio

        gradio.Warning(str(error))
        yield str(error)


def answer_with_errors(
    original: Callable[..., Iterator[Any]],
    self: Any,
    chatbot: list[Any],
    messages: list[Any],
    *args: Any,
    **kwargs: Any,
) -> Iterator[Any]:
    """``WebChatModel.stream``: a question that fails gets the reason as its answer and leaves the conversation.

    The conversation for the next turn has the texts as they were typed: the host writes placeholders into them, and a
    next question without the clip would have one too many.
    """
    if not is_ours(self.engine.template):
        yield from original(self, chatbot, messages, *args, **kwargs)
        return
    shown = list(chatbot)
    try:
        for chat, conversation in original(self, chatbot, [dict(item) for item in messages], *args, **kwargs):
            yield chat, [*messages, conversation[-1]]
    except (HoundError, ValueError, OSError) as error:
        yield [*shown, {"role": "assistant", "content": f"Error: {error}"}], messages[:-1]


def stream_chat(original: Callable[..., Iterator[str]], self: Any, *args: Any, **kwargs: Any) -> Iterator[str]:
    """``WebChatModel.stream_chat``: as the recipe says, until the user moves the slider of temperature or of top-p.

    Then the answer is sampled (a temperature means that), with both as the page shows them.
    """
    if is_ours(self.engine.template):
        sliders = {name: self.manager.get_elem_by_id(f"infer.{name}").value for name in ("temperature", "top_p")}
        if all(kwargs.get(name) in (None, first) for name, first in sliders.items()):
            kwargs = {name: value for name, value in kwargs.items() if name not in sliders}
    return original(self, *args, **kwargs)


def label_webchat(original: Callable[..., Iterator[Any]], self: Any) -> Iterator[Any]:
    """``Engine.resume``, which runs when a page is opened: `webchat` gets its labels at once.

    The host writes them when the language changes, and on that page it is "en" from the beginning.
    """
    yield from original(self)
    if self.pure_chat and is_ours(getattr(self.chatter.engine, "template", None)):
        from llamafactory.webui.common import load_config

        yield self.change_lang(load_config().get("lang") or "en")
