"""Where answers end: the context's length, ``</s>``, and a role's name that a model writes of itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from hound_plugin.errors import ContextLengthError, SettingsError

GREEDY = 0.01
"""Temperatures below this mean the most probable token, as in the original."""
_ROLES = ("USER:", "ASSISTANT:")
_NAMES = "|".join(_ROLES)
_BEGUN = "|".join(sorted({name[:end] for name in _ROLES for end in range(1, len(name))}, key=len, reverse=True))
# a role's name begins an answer or follows white space; and the end of a text that may go on to be one
_ROLE, _PERHAPS = re.compile(rf"(?:^|\s+)(?:{_NAMES})"), re.compile(rf"(?:\s+|^)(?:{_BEGUN})?$")
_LATER_ROLE, _PERHAPS_LATER = re.compile(rf"\s+(?:{_NAMES})"), re.compile(rf"\s+(?:{_BEGUN})?$")
_WINDOW = 16  # tokens; a role's name in characters is shorter


def context_length(config: Any) -> int:
    """Tokens that the model was made for, question and answer together; a scaled rotary embedding takes more."""
    text = config.get_text_config()
    limit: int = text.max_position_embeddings
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default" and rope.get("factor"):
        limit = max(limit, int(rope.get("original_max_position_embeddings", limit) * rope["factor"]))
    return limit


def new_tokens(config: Any, prompt: int, wanted: int | None = None, at_least: int = 1) -> int:
    """How many tokens an answer may have: what was asked for, within what the context leaves.

    Args:
        config: the model's.
        prompt: tokens of the conversation, visual ones included.
        wanted: None: as many as there is room for.
        at_least: tokens that must be left.

    Raises:
        ContextLengthError: there is no room.
        SettingsError: ``wanted`` is below 1.
    """
    if wanted is not None and wanted < 1:
        raise SettingsError(f"max_new_tokens: expected at least 1, got {wanted}.")
    context = context_length(config)
    if prompt + at_least > context:
        raise ContextLengthError(
            f"The conversation no longer fits: it has {prompt} tokens, visual ones included, and this model's context "
            f"holds {context}, the answer included. Begin a new conversation, or show fewer or shorter clips "
            "(`num_frames`)."
        )
    return context - prompt if wanted is None else min(wanted, context - prompt)


def cut_roles(text: str) -> str:
    """The answer without a role's name and all that follows it, where a model goes on to play both parts."""
    found = _ROLE.search(text)
    return text if found is None else text[: found.start()]


def filter_roles(pieces: Iterable[str]) -> Iterator[str]:
    """:func:`cut_roles` for an answer that comes in pieces; holds back what may become a role's name."""
    held, role, perhaps = "", _ROLE, _PERHAPS
    for piece in pieces:
        held += piece
        found = role.search(held)
        if found is not None:
            if found.start():
                yield held[: found.start()]
            return
        waits = perhaps.search(held)
        end = len(held) if waits is None else waits.start()
        if end:
            yield held[:end]
            held, role, perhaps = held[end:], _LATER_ROLE, _PERHAPS_LATER
    if held:
        yield held


class RoleStop(StoppingCriteria):
    """Ends a row when its answer goes on with a role's name; ``</s>`` ends it anyway.

    Args:
        tokenizer: of the model.
        prompt: tokens before the answer.
    """

    def __init__(self, tokenizer: Any, prompt: int) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> Any:
        """For ``input_ids`` [B, S], which rows are done: bool ``[B]``."""
        start = max(self.prompt, input_ids.shape[1] - _WINDOW)
        texts = self.tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
        found = [_ROLE.search(text) for text in texts]
        done = [match is not None and (start == self.prompt or match.group()[0].isspace()) for match in found]
        return torch.tensor(done, device=input_ids.device)


class Cancelled(StoppingCriteria):
    """Ends every row once ``event`` is set.

    Args:
        event: set by whoever no longer wants the answer, from any thread.
    """

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> Any:
        """For ``input_ids`` [B, S], which rows are done: bool ``[B]``."""
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def stop_criteria(tokenizer: Any, prompt: int) -> StoppingCriteriaList:
    """For ``model.generate(stopping_criteria=...)``."""
    return StoppingCriteriaList([RoleStop(tokenizer, prompt)])


def stream_text(
    generate: Callable[..., Any], inputs: dict[str, Any], tokenizer: Any, skip_special_tokens: bool = True
) -> Iterator[str]:
    """Pieces of an answer while ``generate(**inputs)`` makes it in a thread of its own.

    What ends the thread is raised here. A reader who stops early ends the generation.
    """
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=skip_special_tokens)
    gone = threading.Event()
    criteria = StoppingCriteriaList([*inputs.get("stopping_criteria", ()), Cancelled(gone)])
    failure: list[BaseException] = []

    def run() -> None:
        try:
            generate(**{**inputs, "stopping_criteria": criteria}, streamer=streamer)
        except BaseException as error:  # handed to the reader's thread below
            failure.append(error)
            streamer.end()

    thread = threading.Thread(target=run, name="generate", daemon=True)
    thread.start()
    try:
        yield from filter_roles(streamer)
        thread.join()
    finally:
        gone.set()
    if failure:
        raise failure[0]
