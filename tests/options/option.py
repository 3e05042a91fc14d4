"""One row of the table of options: a training, an export or a chat of the host, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.goldens import ROOT, SFT

TOWERS = frozenset({"image_tower", "video_tower"})
PROJECTOR = frozenset({"projector"})
LANGUAGE = frozenset({"language_model"})
PLAIN_LOSS = 9.580476
SECOND_LOSS = 9.884411
OWN_SYSTEM = 'You watch "clips".'
LORA = {"finetuning_type": "lora", "lora_target": "all", "lora_rank": 4}
QUANTISED = {**LORA, "quantization_bit": 4}
CLIP = str(ROOT / "frames" / "clip_long")
WORK = "<work>"
"""In a value: the folder of the runs."""
RUNS, EXPORTS = f"{WORK}/runs", f"{WORK}/exports"
WIDE = f"{WORK}/wide"
"""The recorded checkpoint with more hidden units, which bitsandbytes needs to answer in 4 bits on a CPU."""
DAMAGED, NOT_FINITE = f"{WORK}/damaged", f"{WORK}/not_finite"
"""The same without its temporal tensors, and with a weight that is no number."""
NOT_FINITE_ADAPTER = f"{WORK}/not_finite_adapter"
"""An adapter of the recorded checkpoint with infinity in it."""


@dataclass(frozen=True)
class Option:
    """One setting of the host's training, beside those of ``recipe_for``.

    Attributes:
        stage: sft, dpo, kto, pt or rm.
        values: what is set.
        refused: a regular expression for the error's message; None: the training runs.
        first_loss: of the first step.
        later_steps: "same": all losses are those of the same training without the option; "other": the first loss is,
            and the second is not, so the option works on the step between them.
        trained: parts of the model whose weights change; None: not looked at.
        says: a regular expression for what is printed.
        files: what must be in the output folder, as patterns; with ``!`` in front, what must not.
        by_host: the error is the host's own, which says enough.
        long: only in ``make test-long``.
    """

    stage: str
    values: dict[str, Any]
    refused: str | None = None
    first_loss: float | None = None
    later_steps: str | None = None
    trained: frozenset[str] | None = None
    says: str | None = None
    files: tuple[str, ...] = ()
    by_host: bool = False
    long: bool = False

    @property
    def kind(self) -> str:
        return self.stage

    @property
    def trains(self) -> bool:
        """Whether there are steps, and not predictions or an evaluation alone."""
        return bool(self.values.get("do_train", True))


@dataclass(frozen=True)
class Export:
    """One ``llamafactory-cli export`` of the recorded checkpoint.

    Attributes:
        values: what is set.
        refused: as in :class:`Option`.
        dtype: of every weight that is written.
        weights_of: name of an export of the same weights; None: not looked at.
        changed: parts whose weights differ from the recorded checkpoint's; None: not looked at.
        system: the system prompt that the exported processor has.
        files: as in :class:`Option`.
        by_host, long: as in :class:`Option`.
    """

    values: dict[str, Any]
    refused: str | None = None
    dtype: str | None = None
    weights_of: str | None = None
    changed: frozenset[str] | None = None
    system: str | None = None
    files: tuple[str, ...] = ()
    by_host: bool = False
    long: bool = False
    kind = "export"


@dataclass(frozen=True)
class Chat:
    """One question to the engine of ``llamafactory-cli chat``, ``api`` and the web UI, greedy if nothing else is set.

    Attributes:
        values: what is set.
        refused: as in :class:`Option`.
        dtype: of the weights in memory.
        same: name of a chat that gives the same answer.
        other: name of a chat that gives another answer.
        tokens: of the answer.
        answer: a regular expression for its text.
        asked: keyword arguments of the host's ``ChatModel.chat`` beside the question.
        says: as in :class:`Option`.
        by_host, long: as in :class:`Option`.
    """

    values: dict[str, Any]
    refused: str | None = None
    dtype: str | None = None
    same: str | None = None
    other: str | None = None
    tokens: int | None = None
    answer: str | None = None
    asked: dict[str, Any] | None = None
    says: str | None = None
    by_host: bool = False
    long: bool = False
    kind = "chat"


@dataclass(frozen=True)
class Page(Option):
    """A training or a prediction that the web UI starts.

    ``values`` are fields of its page, beside those of :func:`tests.options.page.page_arguments`; the rest is as in
    :class:`Option`.
    """

    stage: str = "web UI"
    values: dict[str, Any] = field(default_factory=dict)
    long: bool = True

    @property
    def trains(self) -> bool:
        return "eval.dataset" not in self.values


Row = Option | Export | Chat


def runs(stage: str, values: dict[str, Any], **seen: Any) -> Option:
    """An option that is right, run in ``make test-long``."""
    return Option(stage, values, long=True, **seen)


def serving_values(row: Export | Chat) -> dict[str, Any]:
    """Arguments of an export or a chat: float32 and greedy, so that effects can be seen."""
    values = {"model_name_or_path": str(SFT), "template": "llava_hound", "infer_dtype": "float32"}
    if isinstance(row, Chat):
        values |= {"do_sample": False, "max_new_tokens": 8}
    return {**values, **row.values}
