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
    from hound_plugin.model.media_ahead import ReadMedia
    from hound_plugin.pages.frames import FrameReader
    from hound_plugin.processing.processor import LlavaHoundProcessor
    from hound_plugin.reward.candidates import Generator, SampledAnswer
    from hound_plugin.reward.settings import SampleSettings
    from hound_plugin.vllm.engine import Answers, VllmModel


def _weights_of(model: str) -> dict[str, str]:
    """Short hashes that name the weights: of a checkpoint, and of what an adapter is merged into."""
    from hound_plugin.model.adapters import chain_of, is_adapter
    from hound_plugin.model.weights_identity import checkpoint_fingerprint

    hashes = {"checkpoint": checkpoint_fingerprint(model)}
    if is_adapter(model):
        base, adapters = chain_of(model)
        hashes["merged_into"] = " ".join(map(checkpoint_fingerprint, (base, *adapters[:-1])))
    return hashes


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


class _OwnModel:
    """Our model in this process, loaded when it is needed; until then it can be sent to another process.

    Its clips may be read ahead, by a process that has its processor but no weights.
    """

    def __init__(self, settings: SamplerSettings, device: str | None = None) -> None:
        self._sampler, self._device = settings, device

    @cached_property
    def hound(self) -> HoundModel:
        """The model itself, loaded when it is first asked for."""
        from hound_plugin.model.inference import load

        hound = load(self._sampler.model, self._sampler.device or self._device, self._sampler.dtype)
        if self._sampler.num_frames is not None:
            hound.processor.num_frames = self._sampler.num_frames
        return hound

    @cached_property
    def _processor(self) -> LlavaHoundProcessor:
        from hound_plugin.model.seen_frames import processor_of

        processor = processor_of(self._sampler.model)
        if self._sampler.num_frames is not None:
            processor.num_frames = self._sampler.num_frames
        return processor

    def read_media(self, media: Sequence[Any]) -> ReadMedia:
        """The pixels of clips and images, but of those that cannot be read."""
        from hound_plugin.model.media_ahead import read_media

        return read_media(self._processor, media)

    def keep_media(self, read: ReadMedia) -> None:
        """Have pixels at hand for the next answers."""
        from hound_plugin.model.media_ahead import keep_media

        keep_media(self.hound.processor, read)

    def __getstate__(self) -> dict[str, Any]:
        loaded = ("hound", "_processor")
        return {name: value for name, value in self.__dict__.items() if name not in loaded}


class OwnGenerator(_OwnModel):
    """Our model as :class:`hound_plugin.reward.candidates.Generator`."""

    def __init__(self, settings: SampleSettings) -> None:
        super().__init__(settings)
        names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "num_frames")
        self.identity: dict[str, Any] = {name: getattr(settings, name) for name in names}
        self.identity |= _weights_of(settings.model)

    def sample(self, question: str, media: Any, seeds: Sequence[int]) -> list[SampledAnswer]:
        from hound_plugin.model.answer_sampling import sample_answers
        from hound_plugin.reward.candidates import SampledAnswer

        settings = self._sampler
        answers = sample_answers(
            self.hound,
            question,
            media,
            seeds,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
        )
        return [SampledAnswer(answer.text, answer.finish, answer.tokens) for answer in answers]


_HOW_FAST = frozenset(
    (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend",
        "gpu_memory_utilization", "cpu_offload_gb", "swap_space", "max_num_seqs", "max_num_batched_tokens",
        "enable_chunked_prefill", "enforce_eager", "disable_custom_all_reduce", "mm_processor_cache_gb", "seed",
    )
)  # fmt: skip
"""Arguments of vLLM's engine that may change between two parts of a run: they decide where and how fast it works."""


class _InVllm:
    """The checkpoint in vLLM's engine, started when it is needed; until then it can be sent to another process."""

    def __init__(self, settings: SamplerSettings) -> None:
        names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "num_frames", "dtype")
        self._sampler = settings
        self.identity: dict[str, Any] = {name: getattr(settings, name) for name in names}
        self.identity["vllm"] = {name: value for name, value in settings.vllm.items() if name not in _HOW_FAST} or None
        self.identity |= _weights_of(settings.model)

    @cached_property
    def _model(self) -> VllmModel:
        return _in_vllm(self._sampler)

    def _answer(self, asked: Sequence[tuple[str, Any]], seeds: Sequence[Sequence[int]]) -> list[Answers]:
        """The answers to each question, one for each of its seeds; or why it has none."""
        settings = self._sampler
        return self._model.answer(
            asked,
            seeds,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_model"}


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


class VllmGenerator(_InVllm):
    """The checkpoint in vLLM's engine as :class:`hound_plugin.reward.candidates.BatchGenerator`."""

    @property
    def questions_at_a_time(self) -> int:
        """How many questions the engine gets together."""
        return self._sampler.questions_at_a_time

    def sample(self, question: str, media: Any, seeds: Sequence[int]) -> list[SampledAnswer]:
        (answers,) = self.sample_many([(question, media, seeds)])
        if isinstance(answers, HoundError):
            raise answers
        return answers

    def sample_many(self, asked: Sequence[tuple[str, Any, Sequence[int]]]) -> list[list[SampledAnswer] | HoundError]:
        from hound_plugin.reward.candidates import SampledAnswer

        results = self._answer([(question, media) for question, media, _ in asked], [seeds for _, _, seeds in asked])
        return [
            own if isinstance(own, HoundError) else [SampledAnswer(row.text, row.finish, row.tokens) for row in own]
            for own in results
        ]


def make_generator(settings: SampleSettings) -> Generator:
    """What samples in this process, by ``sample.backend``."""
    return VllmGenerator(settings) if settings.backend == "vllm" else OwnGenerator(settings)


class OwnLogProbs:
    """Our model in this process as :class:`hound_plugin.reward.rank.LogProbs`."""

    def __init__(self, model: str, device: str | None, dtype: str) -> None:
        from hound_plugin.model.inference import load

        self._hound = load(model, device, dtype)
        self.identity = {"model": model, **_weights_of(model)}

    def log_probs(self, items: Sequence[tuple[str, str, Any]]) -> list[tuple[float, int]]:
        from hound_plugin.model.answer_sampling import answer_log_probs

        return answer_log_probs(self._hound, items)


class OwnPredictor(_OwnModel):
    """Our model as :class:`hound_plugin.evaluation.prediction.Predictor`."""

    def __init__(self, settings: EvaluationSettings, shard: Shard) -> None:
        predict = settings.predict
        super().__init__(predict, _device_of(shard))
        names = ("backend", "model", "temperature", "top_p", "max_new_tokens", "num_frames", "dtype")
        self.identity: dict[str, Any] = {name: getattr(predict, name) for name in names}
        self.identity |= _weights_of(predict.model)
        self.identity["seed"] = settings.seed if predict.temperature else None
        self._seed = settings.seed

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        from hound_plugin.evaluation.items import Prediction
        from hound_plugin.model.batch_answers import answer_batch
        from hound_plugin.records.seeds import make_seed

        predict, seed = self._sampler, self._seed
        answers = answer_batch(
            self.hound,
            [(question.question, question.shown) for question in questions],
            seeds=[make_seed("prediction", seed, question.id) for question in questions],
            temperature=predict.temperature,
            top_p=predict.top_p,
            max_new_tokens=predict.max_new_tokens,
        )
        return [
            Prediction(row.id, None, str(answer))
            if isinstance(answer, HoundError)
            else Prediction(row.id, answer.text, finish=answer.finish)
            for row, answer in zip(questions, answers, strict=True)
        ]


class VllmPredictor(_InVllm):
    """The checkpoint in vLLM's engine as :class:`hound_plugin.evaluation.prediction.Predictor`.

    Raises:
        SettingsError: one of several processes; vLLM itself divides the work.
    """

    def __init__(self, settings: EvaluationSettings, shard: Shard) -> None:
        if shard.size > 1:
            raise SettingsError(
                "backend vllm: expected one process, got several of torchrun. vLLM uses several GPUs by "
                "vllm.tensor_parallel_size or vllm.data_parallel_size."
            )
        super().__init__(settings.predict)
        self.identity["seed"] = settings.seed if settings.predict.temperature else None
        self._seed = settings.seed

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        from hound_plugin.evaluation.items import Prediction
        from hound_plugin.records.seeds import make_seed

        results = self._answer(
            [(question.question, question.shown) for question in questions],
            [[make_seed("prediction", self._seed, question.id)] for question in questions],
        )
        return [
            Prediction(row.id, None, str(own))
            if isinstance(own, HoundError)
            else Prediction(row.id, own[0].text, finish=own[0].finish)
            for row, own in zip(questions, results, strict=True)
        ]


def make_predictor(settings: EvaluationSettings, shard: Shard) -> Predictor:
    """What predicts in this process, by ``predict.backend``."""
    return (VllmPredictor if settings.predict.backend == "vllm" else OwnPredictor)(settings, shard)


def _device_of(shard: Shard) -> str | None:
    """One GPU for each process on a machine; None, which leaves the choice to the model, for one process."""
    if shard.size == 1:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', shard.rank)) % torch.cuda.device_count()}"


def evaluate_round(recipe: str, folder: Path, number: int, checkpoint: str, say: Callable[[str], None]) -> None:
    """The held-out evaluation after a round of ``hound reward iterate``."""
    from hound_plugin.evaluation import rounds

    rounds.evaluate_round(recipe, folder, number, checkpoint, say, make_predictor, frames_of_sampler)
