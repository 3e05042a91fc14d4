"""LLaVA-Hound as a model of lmms-eval, over our batched answers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.model import lmms

from hound_plugin.errors import HoundError, SettingsError
from hound_plugin.model.batch_answers import Answer, answer_batch
from hound_plugin.model.inference import load

NEW_TOKENS = 1024
READ = ("max_new_tokens", "temperature", "top_p", "do_sample", "until", "num_beams")
"""Generation arguments of tasks that are honoured; ``num_beams`` only if it is 1."""


class LlavaHound(lmms):
    """The model named ``llava_hound``.

    Args:
        pretrained: a checkpoint in either layout, or an adapter; a folder or a hub id.
        device: where it runs; by default a GPU for each process if there are any.
        dtype: as :func:`hound_plugin.load`.
        batch_size: questions at a time.
        num_frames: frames per clip; the model's own number if not given.

    Raises:
        SettingsError: an argument that it does not know.
    """

    def __init__(
        self,
        pretrained: str = "ShareGPTVideo/LLaVA-Hound-DPO",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str = 1,
        num_frames: int | str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        given = sorted(name for name, value in unknown.items() if value not in (None, ""))
        if set(given) - {"max_batch_size"}:
            raise SettingsError(
                f"model_args: unknown {', '.join(given)}; known: pretrained, device, dtype, batch_size, num_frames."
            )
        accelerator = Accelerator()
        if accelerator.num_processes > 1:
            device = str(accelerator.device)
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        self.accelerator = accelerator
        self._batch_size = int(batch_size)
        self._hound = load(pretrained, device if device not in (None, "cuda") else None, dtype)
        if num_frames is not None:
            self._hound.processor.num_frames = int(num_frames)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer to each request, in order; empty, with a warning, where its clip cannot be read."""
        answers: dict[int, str] = {}
        items = [self._item(request) for request in requests]
        order = sorted(range(len(items)), key=lambda number: (repr(items[number][2]), -len(items[number][0])))
        while order:
            settings = items[order[0]][2]
            chunk = [number for number in order[: self._batch_size] if items[number][2] == settings]
            order = order[len(chunk) :]
            chosen = [(items[number][0], items[number][1]) for number in chunk]
            for number, answer in zip(chunk, self._answers(chosen, settings), strict=True):
                answers[number] = answer
                self.cache_hook.add_partial("generate_until", requests[number].args[:2], answer)
        return [answers[number] for number in range(len(items))]

    def _item(self, request: Any) -> tuple[str, Any, dict[str, Any]]:
        """Question, clip and generation arguments of one request."""
        text, settings, to_visual, number, task, split = request.args
        shown = to_visual(self.task_dict[task][split][number])
        shown = [] if shown is None else list(shown) if isinstance(shown, list | tuple) else [shown]
        unknown = sorted(name for name in settings if name not in READ)
        if unknown or settings.get("num_beams", 1) != 1:
            warnings.warn(f"{task}: generation arguments without effect here: {unknown or 'num_beams'}", stacklevel=2)
        return text, _clip(shown, task), settings

    def _answers(self, items: Sequence[tuple[str, Any]], settings: dict[str, Any]) -> list[str]:
        temperature = float(settings.get("temperature") or 0) if settings.get("do_sample", True) else 0.0
        answers = answer_batch(
            self._hound,
            items,
            [0] * len(items),
            temperature=temperature,
            top_p=float(settings.get("top_p") or 1.0),
            max_new_tokens=int(settings.get("max_new_tokens", NEW_TOKENS)),
        )
        return [self._text(answer, settings.get("until", ())) for answer in answers]

    def _text(self, answer: Answer, until: str | Sequence[str]) -> str:
        if isinstance(answer, HoundError):
            warnings.warn(f"a question has no answer: {answer}", stacklevel=2)
            return ""
        if answer.finish == "length":
            warnings.warn("answers were cut at max_new_tokens", stacklevel=2)
        text = answer.text
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop.strip() else text  # blank lines belong to an answer
        return text.strip()

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: the tasks for videos ask for text."""
        raise NotImplementedError("llava_hound answers in words; choose a task of output_type generate_until.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise NotImplementedError("llava_hound answers one question at a time; choose a task of one round.")


def _clip(shown: Sequence[Any], task: str) -> Any:
    """The one clip or image of a question: a path, a list of frames, or an image in memory.

    Raises:
        SettingsError: it shows several clips, or a clip and an image.
    """
    if len(shown) <= 1:
        return shown[0] if shown else None
    if all(isinstance(item, str | os.PathLike) for item in shown):
        return [os.fspath(item) for item in shown]
    raise SettingsError(f"{task}: a question shows {len(shown)} items; this model takes one clip or one image.")
