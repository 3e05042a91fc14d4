"""Answers to many questions by vLLM's offline engine: the same prompts, frames and stops as our own model in Python."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError
from transformers import AutoConfig
from vllm import LLM, SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest

from hound_plugin.errors import CheckpointError, HoundError, MediaError, SettingsError, damage_named
from hound_plugin.model.adapters import chain_of, is_adapter
from hound_plugin.model.answer_sampling import SampledAnswer
from hound_plugin.model.batch_answers import READERS, clip_key
from hound_plugin.model.checkpoint_files import check_files
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.generation import ROLES, cut_roles, new_tokens, wants_sampling
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import Turn, encode_conversation, medium_of, with_placeholder
from hound_plugin.records.placeholders import token_of
from hound_plugin.vllm.adapters import WITH_ITS_SYSTEM, check_adapter
from hound_plugin.vllm.media import ReadMedia, read_media

_OURS = (
    "model",
    "dtype",
    "enable_lora",
    "tokenizer_mode",
    "enable_prefix_caching",
    "mm_processor_kwargs",
    "disable_log_stats",
)
_STOPS = [space + role for space in (" ", "\n") for role in ROLES]

Answers = list[SampledAnswer] | HoundError


@dataclass(frozen=True)
class _Prompt:
    ids: list[int]
    kind: str
    media: ReadMedia | None
    new_tokens: int


class VllmModel:
    """A checkpoint or an adapter in vLLM's engine, in this process.

    Args:
        model: a folder or a hub id, of either layout; or a folder of a LoRA adapter, which vLLM applies.
        dtype: ``auto`` is the checkpoint's own, also where that is float32.
        num_frames: frames of a clip; the model's own number if None.
        engine: further arguments of ``vllm.LLM``, such as ``tensor_parallel_size``.

    Raises:
        CheckpointError: it is of another architecture, or incomplete; or an adapter that vLLM would apply in part.
        SettingsError: ``engine`` has a name that vLLM does not know, or one that is set here; or its sizes or
            ``dtype`` do not fit the model.
    """

    def __init__(
        self, model: str, dtype: str = "auto", num_frames: int | None = None, engine: Mapping[str, Any] | None = None
    ) -> None:
        chosen = _checked(engine or {})
        base, adapter = _base_and_adapter(model)
        with damage_named(base, "config.json"):
            self.config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        if not isinstance(self.config, LlavaHoundConfig):
            raise CheckpointError(
                f"Expected a LLaVA-Hound checkpoint in {base}, found model_type {self.config.model_type!r}."
            )
        if os.path.isdir(base):
            check_files(base)
        self.processor = LlavaHoundProcessor.from_pretrained(base)
        usual = self.processor.num_frames
        if adapter is not None:
            self.processor.take_settings_of(adapter)
            chosen = {"max_lora_rank": _rank_of(adapter), **chosen, "enable_lora": True}
        if num_frames is not None:
            self.processor.num_frames = num_frames
        frames = self.processor.num_frames
        self.processor.visual_tokens(frames)
        self._adapter = None if adapter is None else LoRARequest(WITH_ITS_SYSTEM, 1, adapter)
        if dtype == "auto" and self.config.dtype is not None:
            dtype = str(self.config.dtype).removeprefix("torch.")
        with _our_own_errors():
            self._llm = LLM(
                model=base,
                dtype=dtype,
                enable_prefix_caching=True,
                disable_log_stats=False,
                mm_processor_kwargs={} if frames == usual else {"num_frames": frames},
                **chosen,
            )
        atexit.register(_stop, weakref.ref(self._llm.llm_engine.engine_core))

    def answer(
        self,
        items: Sequence[tuple[str, Any]],
        seeds: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
        top_p: float = 0.95,
        max_new_tokens: int = 512,
    ) -> list[Answers]:
        """One answer for each seed of each question; all are in work at the same time.

        A clip is decoded and encoded once, and a prompt filled in once, for all answers that share it.

        Args:
            items: question and clip of each, as :meth:`hound_plugin.HoundModel.chat_many` takes them.
            seeds: of each question; without effect on greedy answers.
            temperature: below 0.01 is greedy.
            top_p: tokens are drawn from the smallest set with at least this probability, in (0, 1].
            max_new_tokens: limit for each answer; fewer where the context leaves fewer.

        Returns:
            For each question its answers, or the error why there are none: a clip that cannot be read, or a question
            that leaves no room for an answer.
        """
        media = self._read([clip for _, clip in items])
        prompts = [
            self._prompt(question, clip, shown, max_new_tokens)
            for (question, clip), shown in zip(items, media, strict=True)
        ]
        samples = bool(wants_sampling(temperature))
        requests: list[dict[str, Any]] = []
        parameters: list[SamplingParams] = []
        for prompt, own in zip(prompts, seeds, strict=True):
            if isinstance(prompt, HoundError):
                continue
            for seed in own:
                requests.append(_request(prompt))
                parameters.append(_parameters(prompt, samples, temperature, top_p, seed))
        outputs = iter(self._llm.generate(requests, parameters, use_tqdm=False, lora_request=self._adapter))
        return [
            prompt
            if isinstance(prompt, HoundError)
            else [_answer(next(outputs), samples, self.processor.tokenizer) for _ in own]
            for prompt, own in zip(prompts, seeds, strict=True)
        ]

    def _read(self, clips: Sequence[Any]) -> list[ReadMedia | MediaError | None]:
        """Every clip once, several at a time."""
        distinct = {clip_key(clip): clip for clip in clips if clip is not None}

        def read(clip: Any) -> ReadMedia | MediaError:
            try:
                return read_media(self.processor, medium_of(clip), clip)
            except MediaError as error:
                return error

        with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as readers:
            results = dict(zip(distinct, readers.map(read, distinct.values()), strict=True))
        return [None if clip is None else results[clip_key(clip)] for clip in clips]

    def _prompt(
        self, question: str, clip: Any, media: ReadMedia | MediaError | None, limit: int
    ) -> _Prompt | HoundError:
        if isinstance(media, HoundError):
            return media
        kind = "" if media is None else medium_of(clip)
        text = with_placeholder(question, token_of(kind) if kind else "")
        ((source, _),) = encode_conversation(self.processor.tokenizer, [Turn(text)], self.processor.system)
        visual = self.processor.visual_tokens(self.processor.num_frames)[token_of(kind)] - 1 if kind else 0
        try:
            return _Prompt(source, kind, media, new_tokens(self.config, len(source) + visual, limit))
        except HoundError as error:
            return error

    def prefix_cache_hits(self) -> tuple[int, int]:
        """Tokens of prompts that were found in the prefix cache, and tokens that were looked for."""
        counts = {metric.name: getattr(metric, "value", 0) for metric in self._llm.get_metrics()}
        return counts.get("vllm:prefix_cache_hits", 0), counts.get("vllm:prefix_cache_queries", 0)


def _stop(engine_core: Any) -> None:
    """End vLLM's processes, before ``multiprocessing`` waits for them as Python exits.

    vLLM leaves that to ``weakref``, which comes after ``multiprocessing`` where something else has used it first
    (``tempfile`` does): such a process would never end.
    """
    if (client := engine_core()) is not None:
        client.shutdown()


def _checked(engine: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(EngineArgs)} - set(_OURS)
    unknown = sorted(engine.keys() - known)
    if unknown:
        raise SettingsError(
            f"vllm: {', '.join(unknown)}: expected arguments of vLLM's engine that are not set here "
            f"({', '.join(_OURS)}), such as tensor_parallel_size or gpu_memory_utilization."
        )
    return dict(engine)


@contextmanager
def _our_own_errors() -> Iterator[None]:
    """Raise errors of this package as they were, which vLLM's checks of its configuration wrap."""
    try:
        yield
    except ValidationError as error:
        for detail in error.errors():
            own = detail.get("ctx", {}).get("error")
            if isinstance(own, HoundError):
                raise own from error
        raise


def _base_and_adapter(model: str) -> tuple[str, str | None]:
    if not is_adapter(model):
        return model, None
    base, _ = chain_of(model)
    check_adapter(model, None)
    return base, model


def _rank_of(adapter: str) -> int:
    """vLLM takes ranks of a few sizes only: the next one."""
    from peft import PeftConfig

    rank = int(PeftConfig.from_pretrained(adapter).r)
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)


def _request(prompt: _Prompt) -> dict[str, Any]:
    request: dict[str, Any] = {"prompt_token_ids": prompt.ids}
    if prompt.media is not None:
        request["multi_modal_data"] = {prompt.kind: [prompt.media]}
    return request


def _parameters(prompt: _Prompt, samples: bool, temperature: float, top_p: float, seed: int) -> SamplingParams:
    if samples:
        return SamplingParams(
            temperature=temperature, top_p=top_p, seed=seed, max_tokens=prompt.new_tokens, detokenize=False
        )
    return SamplingParams(temperature=0.0, max_tokens=prompt.new_tokens, stop=_STOPS, include_stop_str_in_output=True)


def _answer(output: Any, samples: bool, tokenizer: Any) -> SampledAnswer:
    """The text is decoded as a whole: vLLM's, which grows token by token, may lose bytes of characters of several."""
    (completion,) = output.outputs
    text = tokenizer.decode(completion.token_ids, skip_special_tokens=True)
    text = text if samples else cut_roles(text)
    return SampledAnswer(text.strip(), completion.finish_reason or "stop", len(completion.token_ids))
