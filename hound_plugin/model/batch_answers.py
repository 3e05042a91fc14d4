"""Answers to many questions, a batch at a time, in which one bad clip or one long question spoils no other."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hound_plugin.errors import ContextLengthError, HoundError, MediaError
from hound_plugin.model.answer_sampling import sample_answers
from hound_plugin.model.generation import GeneratedAnswer, wants_sampling
from hound_plugin.model.inference import HoundModel
from hound_plugin.processing.prompt import medium_of

READERS = 8
"""Clips that are decoded at the same time, at most."""

Answer = GeneratedAnswer | HoundError


def answer_batch(
    hound: HoundModel,
    items: Sequence[tuple[str, Any]],
    seeds: Sequence[int],
    *,
    temperature: float = 0.0,
    top_p: float = 0.9,
    max_new_tokens: int = 512,
) -> list[Answer]:
    """One answer each; a clip that several questions share is read and encoded once.

    Args:
        hound: the loaded model.
        items: ``(question, clip)``, the clip as :meth:`HoundModel.chat_many` takes it, or None.
        seeds: one for each item; without effect on greedy answers.
        temperature: 0 means greedy; otherwise an answer depends only on its seed, not on its batch.
        top_p: as in :func:`~hound_plugin.model.answer_sampling.sample_answers`.
        max_new_tokens: limit for each answer.

    Returns:
        For each item its answer, or the error why there is none: a clip that cannot be read (:class:`MediaError`), or a
        question that leaves no room for an answer (:class:`ContextLengthError`).
    """
    clips = _shared(items)
    errors = _read_errors(hound, {id(clip): clip for clip in clips if clip is not None})
    answers: list[Answer | None] = [errors.get(id(clip)) for clip in clips]
    open_items = [number for number, answer in enumerate(answers) if answer is None]
    if wants_sampling(temperature, None):
        settings = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
        for number in open_items:
            answers[number] = _sampled(hound, items[number][0], clips[number], seeds[number], settings)
    else:
        greedy = _greedy(hound, [(items[number][0], clips[number]) for number in open_items], max_new_tokens)
        for number, answer in zip(open_items, greedy, strict=True):
            answers[number] = answer
    return [answer for answer in answers if answer is not None]


def _shared(items: Sequence[tuple[str, Any]]) -> list[Any]:
    """The clips, equal ones as one object, which is what a batch recognises lists of frames by."""
    first: dict[Hashable, Any] = {}
    keys = [clip_key(clip) for _, clip in items]
    return [first.setdefault(key, clip) for key, (_, clip) in zip(keys, items, strict=True)]


def clip_key(clip: Any) -> Hashable:
    """What two questions about one clip have in common: its paths, or the object in memory."""
    if isinstance(clip, list) and all(isinstance(frame, str) for frame in clip):
        return tuple(clip)
    return clip if isinstance(clip, str) else id(clip)


def _read_errors(hound: HoundModel, clips: dict[int, Any]) -> dict[int, MediaError]:
    """Read every clip into the pixel cache, where the batch finds it; returns the errors by the clip's ``id``."""

    def read(clip: Any) -> MediaError | None:
        try:
            (hound.processor.read_image if medium_of(clip) == "image" else hound.processor.read_video)(clip)
        except MediaError as error:
            return error
        return None

    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as readers:
        results = dict(zip(clips, readers.map(read, clips.values()), strict=True))
    return {key: error for key, error in results.items() if error is not None}


def _greedy(hound: HoundModel, items: Sequence[tuple[str, Any]], max_new_tokens: int) -> list[Answer]:
    """One batch; if its longest question has no room, each question by itself."""
    if not items:
        return []
    questions, clips = [question for question, _ in items], [clip for _, clip in items]
    try:
        return list(hound.answer_many(questions, clips, do_sample=False, max_new_tokens=max_new_tokens))
    except ContextLengthError as error:
        if len(items) == 1:
            return [error]
    return [answer for item in items for answer in _greedy(hound, [item], max_new_tokens)]


def _sampled(hound: HoundModel, question: str, clip: Any, seed: int, settings: dict[str, Any]) -> Answer:
    try:
        answer = sample_answers(hound, question, clip, [seed], **settings)[0]
        return GeneratedAnswer(answer.text, answer.finish)
    except ContextLengthError as error:
        return error
