"""Our model behind the interfaces that ``reward``, ``evaluation`` and captions define, for ``cli.py`` to pass in.

Heavy imports are inside functions, so that a command that needs no model starts without torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hound_plugin.errors import EnvironmentMismatchError, HoundError, SettingsError

if TYPE_CHECKING:
    from hound_plugin.evaluation.items import Prediction, Question
    from hound_plugin.evaluation.prediction import Predictor
    from hound_plugin.evaluation.settings import EvaluationSettings
    from hound_plugin.evaluation.shards import Shard
    from hound_plugin.llm.sampler_settings import SamplerSettings
    from hound_plugin.model.inference import HoundModel
    from hound_plugin.pages.frames import FrameReader
    from hound_plugin.reward.candidates import Generator, SampledAnswer
    from hound_plugin.reward.settings import SampleSettings
    from hound_plugin.vllm.engine import VllmModel


def frames_of_sampler(settings: SamplerSettings, size: int) -> FrameReader:
    """The frames that a sampler saw, at most ``size`` pixels wide and high."""
    from hound_plugin.llm.sampler_settings import IN_THIS_PROCESS
    from hound_plugin.pages.frames import FrameReader

    if settings.backend not in IN_THIS_PROCESS:
        is_known = settings.backend == "openai" and settings.show == "frames"
        caution = "" if is_known else "Which ones the model saw is unknown."
        return FrameReader(settings.num_frames or 8, size=size, caution=caution)
    return _frames_of_model(settings.model, settings.num_frames, size)


def _frames_of_model(model: str, num_frames: int | None, size: int) -> FrameReader:
    """The frames that a model in this process saw; by default as many as its checkpoint says."""
    from hound_plugin.model.seen_frames import seen_frames
    from hound_plugin.pages.frames import FrameReader

    try:
        seen = seen_frames(model)
    except (HoundError, OSError):  # it was moved or removed since
        return FrameReader(num_frames or 8, size=size, caution=f"{model} is gone, which says what it saw.")
    return FrameReader(num_frames or seen.num_frames, seen.sampling, size, crops=True)


class OwnGenerator:
    """Our model in this process as :class:`hound_plugin.reward.candidates.Generator`."""

    def __init__(self, settings: SampleSettings) -> None:
        from hound_plugin.model.inference import load
        from hound_plugin.reward.candidates import checkpoint_fingerprint

        self._settings = settings
        self._hound = load(settings.model, settings.device, settings.dtype)
        if settings.num_frames is not None:
            self._hound.processor.num_frames = settings.num_frames
        names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "num_frames")
        self.identity: dict[str, Any] = {name: getattr(settings, name) for name in names}
        self.identity["checkpoint"] = checkpoint_fingerprint(settings.model)

    def sample(self, question: str, media: Any, seeds: Sequence[int]) -> list[SampledAnswer]:
        from hound_plugin.model.answer_sampling import sample_answers
        from hound_plugin.reward.candidates import SampledAnswer

        settings = self._settings
        answers = sample_answers(
            self._hound,
            question,
            media,
            seeds,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
        )
        return [SampledAnswer(answer.text, answer.finish, answer.tokens) for answer in answers]


class VllmGenerator:
    """The checkpoint in vLLM's engine as :class:`hound_plugin.reward.candidates.BatchGenerator`."""

    def __init__(self, settings: SampleSettings) -> None:
        self._settings = settings
        self.questions_at_a_time = settings.questions_at_a_time
        self.identity = _vllm_identity(settings)
        self._model = _in_vllm(settings)

    def sample(self, question: str, media: Any, seeds: Sequence[int]) -> list[SampledAnswer]:
        (answers,) = self.sample_many([(question, media, seeds)])
        if isinstance(answers, HoundError):
            raise answers
        return answers

    def sample_many(self, asked: Sequence[tuple[str, Any, Sequence[int]]]) -> list[list[SampledAnswer] | HoundError]:
        from hound_plugin.reward.candidates import SampledAnswer

        settings = self._settings
        results = self._model.answer(
            [(question, media) for question, media, _ in asked],
            [seeds for _, _, seeds in asked],
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
        )
        return [
            own if isinstance(own, HoundError) else [SampledAnswer(row.text, row.finish, row.tokens) for row in own]
            for own in results
        ]


def make_generator(settings: SampleSettings) -> Generator:
    """What samples in this process, by ``sample.backend``."""
    return VllmGenerator(settings) if settings.backend == "vllm" else OwnGenerator(settings)


_HOW_FAST = frozenset(
    (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend",
        "gpu_memory_utilization", "cpu_offload_gb", "swap_space", "max_num_seqs", "max_num_batched_tokens",
        "enable_chunked_prefill", "enforce_eager", "disable_custom_all_reduce", "mm_processor_cache_gb", "seed",
    )
)  # fmt: skip
"""Arguments of vLLM's engine that may change between two parts of a run: they decide where and how fast it works."""


def _vllm_identity(settings: SamplerSettings) -> dict[str, Any]:
    """What determines vLLM's answers besides question and seed."""
    from hound_plugin.reward.candidates import checkpoint_fingerprint

    names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "num_frames", "dtype")
    identity = {name: getattr(settings, name) for name in names}
    identity["vllm"] = {name: value for name, value in settings.vllm.items() if name not in _HOW_FAST} or None
    return {**identity, "checkpoint": checkpoint_fingerprint(settings.model)}


def _in_vllm(settings: SamplerSettings) -> VllmModel:
    """The engine.

    Raises:
        EnvironmentMismatchError: vLLM is not installed here.
        SettingsError: ``device``, which vLLM does not take.
    """
    if find_spec("vllm") is None:
        raise EnvironmentMismatchError(
            "backend vllm: vLLM is not installed in this environment. It wants a newer transformers than "
            "LLaMA-Factory allows, so it has one of its own: see `Serving with vLLM` in the documentation."
        )
    if settings.device is not None:
        raise SettingsError(
            f"device: expected nothing with backend vllm, got {settings.device!r}. Choose GPUs by CUDA_VISIBLE_DEVICES "
            "and vllm.tensor_parallel_size.",
            "device",
        )
    from hound_plugin.vllm.engine import VllmModel

    return VllmModel(settings.model, settings.dtype, settings.num_frames, settings.vllm)


class OwnLogProbs:
    """Our model in this process as :class:`hound_plugin.reward.rank.LogProbs`."""

    def __init__(self, model: str, device: str | None, dtype: str) -> None:
        from hound_plugin.model.inference import load
        from hound_plugin.reward.candidates import checkpoint_fingerprint

        self._hound = load(model, device, dtype)
        self.identity = {"model": model, "checkpoint": checkpoint_fingerprint(model)}

    def log_probs(self, items: Sequence[tuple[str, str, Any]]) -> list[tuple[float, int]]:
        from hound_plugin.model.answer_sampling import answer_log_probs

        return answer_log_probs(self._hound, items)


class OwnPredictor:
    """Our model in this process as :class:`hound_plugin.evaluation.prediction.Predictor`; loaded when it is needed."""

    def __init__(self, settings: EvaluationSettings, shard: Shard) -> None:
        from hound_plugin.reward.candidates import checkpoint_fingerprint

        predict = settings.predict
        names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "num_frames", "dtype")
        self.identity: dict[str, Any] = {name: getattr(predict, name) for name in names}
        self.identity["checkpoint"] = checkpoint_fingerprint(predict.model)
        self.identity["seed"] = settings.seed if predict.temperature else None
        self._settings, self._shard = settings, shard

    @cached_property
    def _hound(self) -> HoundModel:
        from hound_plugin.model.inference import load

        predict = self._settings.predict
        hound = load(predict.model, predict.device or _device_of(self._shard), predict.dtype)
        if predict.num_frames is not None:
            hound.processor.num_frames = predict.num_frames
        return hound

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        from hound_plugin.evaluation.items import Prediction
        from hound_plugin.model.batch_answers import answer_batch
        from hound_plugin.records.seeds import make_seed

        predict, seed = self._settings.predict, self._settings.seed
        answers = answer_batch(
            self._hound,
            [(question.question, question.shown) for question in questions],
            seeds=[make_seed("prediction", seed, question.id) for question in questions],
            temperature=predict.temperature,
            top_p=predict.top_p,
            max_new_tokens=predict.max_new_tokens,
        )
        return [
            Prediction(row.id, None, str(answer)) if isinstance(answer, HoundError) else Prediction(row.id, answer)
            for row, answer in zip(questions, answers, strict=True)
        ]


class VllmPredictor:
    """The checkpoint in vLLM's engine as :class:`hound_plugin.evaluation.prediction.Predictor`; loaded when needed.

    Raises:
        SettingsError: one of several processes; vLLM itself divides the work.
    """

    def __init__(self, settings: EvaluationSettings, shard: Shard) -> None:
        if shard.size > 1:
            raise SettingsError(
                "backend vllm: expected one process, got several of torchrun. vLLM uses several GPUs by "
                "vllm.tensor_parallel_size or vllm.data_parallel_size."
            )
        self.identity = _vllm_identity(settings.predict)
        self.identity["seed"] = settings.seed if settings.predict.temperature else None
        self._settings = settings

    @cached_property
    def _model(self) -> VllmModel:
        return _in_vllm(self._settings.predict)

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        from hound_plugin.evaluation.items import Prediction
        from hound_plugin.records.seeds import make_seed

        predict, seed = self._settings.predict, self._settings.seed
        results = self._model.answer(
            [(question.question, question.shown) for question in questions],
            [[make_seed("prediction", seed, question.id)] for question in questions],
            temperature=predict.temperature,
            top_p=predict.top_p,
            max_new_tokens=predict.max_new_tokens,
        )
        return [
            Prediction(row.id, None, str(own)) if isinstance(own, HoundError) else Prediction(row.id, own[0].text)
            for row, own in zip(questions, results, strict=True)
        ]


def make_predictor(settings: EvaluationSettings, shard: Shard) -> Predictor:
    """What predicts in this process, by ``predict.backend``."""
    return (VllmPredictor if settings.predict.backend == "vllm" else OwnPredictor)(settings, shard)


def _device_of(shard: Shard) -> str | None:
    """One GPU for each process on a machine; None, which leaves the choice to the model, for one process."""
    import torch

    if shard.size == 1 or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', shard.rank)) % torch.cuda.device_count()}"


def evaluate_round(recipe: str, folder: Path, number: int, checkpoint: str, say: Callable[[str], None]) -> None:
    """The held-out evaluation after a round of ``hound reward iterate``."""
    from hound_plugin.evaluation import rounds

    rounds.evaluate_round(recipe, folder, number, checkpoint, say, make_predictor, frames_of_sampler)
