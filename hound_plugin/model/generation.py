"""Where answers end: the context's length, ``</s>``, and a role's name that a model writes of itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from hound_plugin.errors import ContextLengthError, SettingsError
from hound_plugin.processing.token_bounds import fewest_tokens

GREEDY = 0.01
"""Temperatures below this mean the most probable token, as in the original."""
ROLES = ("USER:", "ASSISTANT:")
_NAMES = "|".join(ROLES)
_BEGUN = "|".join(sorted({name[:end] for name in ROLES for end in range(1, len(name))}, key=len, reverse=True))
# a role's name begins an answer or follows white space; and the end of a text that may go on to be one
_ROLE, _PERHAPS = re.compile(rf"(?:^|\s+)(?:{_NAMES})"), re.compile(rf"(?:\s+|^)(?:{_BEGUN})?$")
_LATER_ROLE, _PERHAPS_LATER = re.compile(rf"\s+(?:{_NAMES})"), re.compile(rf"\s+(?:{_BEGUN})?$")
_WINDOW = 16  # tokens; a role's name in characters is shorter


@dataclass(frozen=True)
class GeneratedAnswer:
    """An answer; ``finish`` is ``stop``, or ``length`` if it reached the limit of tokens: its end is missing."""

    text: str
    finish: str


def wants_sampling(temperature: float | None, do_sample: bool | None = None) -> bool | None:
    """Whether who asks wants an answer to be sampled; None if neither argument is given.

    A temperature means sampling, whatever is usual where it is asked; below :data:`GREEDY` the most probable token.

    Raises:
        SettingsError: a negative temperature, or one that ``do_sample`` contradicts.
    """
    if temperature is None:
        return do_sample
    if not temperature >= 0:
        raise SettingsError(f"temperature: expected 0 or more, got {temperature}.", "temperature")
    if temperature < GREEDY:
        return False
    if do_sample is False:
        raise SettingsError(
            f"do_sample: expected true with temperature {temperature}, which means sampling; got false. Leave one of "
            "them out.",
            "do_sample",
        )
    return True


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
        raise _no_room(str(prompt), context)
    return context - prompt if wanted is None else min(wanted, context - prompt)


def refuse_overlong(config: Any, tokenizer: Any, texts: Iterable[str], visual: int = 0, turns: int = 0) -> None:
    """Refuse a conversation whose mere length shows that it leaves no room for an answer, before it is tokenised.

    Args:
        config: the model's.
        tokenizer: of the model.
        texts: all texts of the conversation, without placeholders.
        visual: visual tokens of its media.
        turns: answers in it; each ends with a token of its own.

    Raises:
        ContextLengthError: it cannot fit.
    """
    fewest = fewest_tokens(tokenizer, texts) + visual + turns
    if fewest > context_length(config):
        raise _no_room(f"at least {fewest}", context_length(config))


def _no_room(tokens: str, context: int) -> ContextLengthError:
    return ContextLengthError(
        f"The conversation no longer fits: it has {tokens} tokens, visual ones included, and this model's context "
        f"holds {context}, the answer included. Begin a new conversation, or show fewer or shorter clips "
        "(`num_frames`)."
    )


def cut_roles(text: str) -> str:
    """The answer without a role's name and all that follows it, where a model goes on to play both parts."""
    found = _ROLE.search(text)
    return text if found is None else text[: found.start()]


class AnswerText:
    """The text of one answer while it grows: what may be shown of it, and where it ends.

    It ends before a role's name, and before the first of the given strings to be complete. What may become either is
    held back, so the result does not depend on how the text is cut into pieces.

    Args:
        stops: strings that end the answer; none of them is empty.

    Attributes:
        has_ended: a role's name or one of ``stops`` was found; what follows is not part of the answer.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.has_ended = False
        self._stops = tuple(stops)
        self._held, self._role, self._perhaps = "", _ROLE, _PERHAPS

    def push(self, piece: str) -> str:
        """Take the next piece; gives what can be shown now, which may be nothing."""
        if self.has_ended:
            return ""
        self._held += piece
        found = self._end()
        self.has_ended = found is not None
        end = self._settled() if found is None else found
        text, self._held = self._held[:end], "" if self.has_ended else self._held[end:]
        if text:
            self._role, self._perhaps = _LATER_ROLE, _PERHAPS_LATER
        return text

    def rest(self) -> str:
        """What was held back, now that nothing follows."""
        text, self._held = self._held, ""
        return text

    def _end(self) -> int | None:
        """Where the answer ends: the start of what is complete first."""
        role = self._role.search(self._held)
        found = [] if role is None else [(role.end(), role.start())]
        for stop in self._stops:
            start = self._held.find(stop)
            if start >= 0:
                found.append((start + len(stop), start))
        return min(found)[1] if found else None

    def _settled(self) -> int:
        """How much of what is held can no longer become a role's name or one of the strings."""
        waits = self._perhaps.search(self._held)
        places = [len(self._held) if waits is None else waits.start()]
        for stop in self._stops:
            longest = min(len(stop) - 1, len(self._held))
            begun = next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
            places.append(len(self._held) - begun)
        return min(places)


def filter_roles(pieces: Iterable[str]) -> Iterator[str]:
    """:func:`cut_roles` for an answer that comes in pieces; holds back what may become a role's name."""
    answer = AnswerText()
    for piece in pieces:
        text = answer.push(piece)
        if text:
            yield text
        if answer.has_ended:
            return
    rest = answer.rest()
    if rest:
        yield rest


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


class PlaceholdersHidden(LogitsProcessorList):
    """A processor list that sees id 0 instead of ids above the vocabulary."""

    def __init__(self, processors: LogitsProcessorList, vocab_size: int) -> None:
        super().__init__(processors)
        self._vocab_size = vocab_size

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Process ``scores`` [B, vocab] for ``input_ids`` [B, S]."""
        return super().__call__(input_ids.masked_fill(input_ids >= self._vocab_size, 0), scores, **kwargs)
