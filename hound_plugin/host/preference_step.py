"""One step on preference pairs: prompts once, the head where labels are, and the towers once for policy and reference.

The host reads a pair as two rows, and both of them again for the reference: clip and question four times, the towers
twice, and logits in float32 at every position. Here the answers of a pair share one row
(:mod:`hound_plugin.model.packed_rows`), to the same numbers; the first pair of a run is compared with separate rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from llamafactory.extras import logging

from hound_plugin.errors import TrainingError
from hound_plugin.host.reference.state import ROW, is_active
from hound_plugin.host.settings_state import settings
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.model.packed_rows import LabelledTokens, pack, select_rows, unpacked

logger = logging.get_logger(f"llamafactory.{__name__}")  # shown as the host's own messages are

_EXACT, _NOISE = 2e-6, 2e-2  # relative: float32, and types of fewer digits
_PIXELS = ("pixel_values_images", "pixel_values_videos")


class PreferenceStep:
    """How a trainer's steps run, and what the policy's pass leaves to the reference's.

    Attributes:
        shares_prompts: answers of a pair share one row.
        shares_towers: the reference takes the features that the policy's towers made.
    """

    def __init__(self, trainer: Any, model: Any, has_reference: bool | None = None) -> None:
        if has_reference is None:
            has_reference = bool(trainer.finetuning_args.use_ref_model)
        self.model = composite_of(model)
        config = self.model.config
        self.media_tokens = {"image": config.image_token_id, "video": config.video_token_id}
        self.vocab_size = config.text_config.vocab_size
        reason = why_not_shared(self.model, trainer)
        self.shares_prompts = reason is None
        has_reference = has_reference and not is_active()
        self.shares_towers = has_reference and same_towers(self.model, trainer.ref_model)
        self._checked = not self.shares_prompts
        self._batch: Any = None
        self._rows: tuple[dict[str, Any], LabelledTokens] | None = None
        self._features: dict[str, torch.Tensor] | None = None
        if has_reference:
            logger.info_rank0(
                f"The reference {'takes' if self.shares_towers else 'does not take'} the policy's tower features."
            )

    def log_probs(
        self, model: Any, batch: dict[str, Any], is_reference: bool
    ) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """Per-token log-probabilities of a batch of chosen rows followed by rejected ones.

        Returns:
            The model's output; log-probabilities ``[2B, S]`` at the places of their tokens, and where labels are.

        Raises:
            TrainingError: the first pair of the run gives other numbers in separate rows.
        """
        if batch is not self._batch:
            self._batch, self._features = batch, None
            self._rows = self._inputs(batch)
        assert self._rows is not None
        if not self._checked:
            self._checked = True
            self._check(model, batch)
        inputs, labelled = self._rows
        media = {name: batch[name] for name in _PIXELS if name in batch}
        if is_reference and self._features is not None:
            media = {"tower_features": self._features}
        elif self.shares_towers and not is_reference:
            media["keep_tower_features"] = True
        output = model(**inputs, **media, answers=labelled.inputs(), use_cache=False)
        if not is_reference and self.shares_towers:
            self._features = output.tower_features
        return output, *labelled.by_row(output.log_probs)

    def _inputs(self, batch: dict[str, Any]) -> tuple[dict[str, Any], LabelledTokens]:
        if not self.shares_prompts:
            return _separate(batch, self.vocab_size)
        pairs = len(batch["input_ids"]) // 2
        rows = pack(batch, [[pair, pairs + pair] for pair in range(pairs)], self.media_tokens, pad=0)
        return rows.inputs, rows.labelled

    def _check(self, model: Any, batch: dict[str, Any]) -> None:
        """Compare the first pair in one row with the same pair in two."""
        pair = select_rows(batch, [0, len(batch["input_ids"]) // 2], self.media_tokens)
        compare_with_separate(model, pair, self._inputs(pair), "The first pair", "prefix_sharing")


@torch.no_grad()
def compare_with_separate(
    model: Any, batch: dict[str, Any], packed: tuple[dict[str, Any], LabelledTokens], what: str, setting: str
) -> None:
    """Compare rows that share their prompt's tokens with the same rows by themselves.

    Args:
        model: as the trainer has it, wrapped.
        batch: the rows, with their pixels.
        packed: the inputs that they share, and where their labels went.
        what, setting: for the message: which rows these are, and what switches sharing off.

    Raises:
        TrainingError: the log-probabilities differ.
    """
    composite = composite_of(model)
    media = {name: batch[name] for name in _PIXELS if name in batch}
    sums = []
    with _without_dropout(model):
        for inputs, labelled in (packed, _separate(batch, composite.config.text_config.vocab_size)):
            output = model(**inputs, **media, answers=labelled.inputs(), use_cache=False)
            sums.append(labelled.by_row(output.log_probs)[0].double().sum(-1))
    limit = _EXACT if _is_exact(composite) else _NOISE
    difference = ((sums[0] - sums[1]).abs() / sums[1].abs().clamp(min=1)).max().item()
    if not difference <= limit:
        raise TrainingError(
            f"{what} gives log-probabilities {sums[0].tolist()} where its answers share a row, and {sums[1].tolist()} "
            f"in rows of their own: a relative difference of {difference:.1e}, where at most {limit:.0e} was expected. "
            f"Set `hound: {{{setting}: off}}` to train on separate rows, and please report it."
        )


@contextlib.contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Switch dropout off and nothing else: in evaluation, quantised layers change their weights on a CPU for good."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


def _separate(batch: dict[str, Any], vocab_size: int) -> tuple[dict[str, Any], LabelledTokens]:
    names = ("input_ids", "attention_mask", "image_index", "video_index")
    return {name: batch[name] for name in names if name in batch}, unpacked(batch, vocab_size)


def _is_exact(model: Any) -> bool:
    """Whether matrices are multiplied in float32."""
    weight = model.lm_head.weight
    low = weight.is_cuda and (
        torch.backends.cuda.matmul.allow_tf32 or torch.get_float32_matmul_precision() != "highest"
    )
    return bool(weight.dtype == torch.float32 and not low and not torch.is_autocast_enabled(weight.device.type))


def composite_of(model: Any) -> LlavaHoundForConditionalGeneration:
    """Our model in what wraps it: adapters, DDP, DeepSpeed."""
    return next(module for module in model.modules() if isinstance(module, LlavaHoundForConditionalGeneration))


def why_not_shared(model: LlavaHoundForConditionalGeneration, trainer: Any) -> str | None:
    """Why answers of a pair do not share their prompt's row; None if they do."""
    if settings().prefix_sharing == "off":
        return "prefix_sharing: off"
    if settings().answers_only == "off":
        return "answers_only: off"
    if getattr(model.config.text_config, "attention_dropout", 0.0):
        return "the language model has attention_dropout"
    return None


def same_towers(model: LlavaHoundForConditionalGeneration, reference: Any) -> bool:
    """Whether the frozen towers of policy and reference are the same ones, on all ranks.

    Args:
        model: the policy.
        reference: the reference; None where it is the policy without its adapters.
    """
    towers = (model.model.image_tower, model.model.video_tower)
    same = not any(parameter.requires_grad for tower in towers for parameter in tower.parameters())
    if same and reference is not None:
        other = composite_of(reference)
        same = all(
            _equal(ours, theirs)
            for tower, twin in zip(towers, (other.model.image_tower, other.model.video_tower), strict=True)
            for ours, theirs in zip(tower.parameters(), twin.parameters(), strict=True)
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        vote = torch.tensor([float(same)], device=next(model.parameters()).device)
        torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MIN)
        same = bool(vote)
    return same


def _equal(ours: Any, theirs: Any) -> bool:
    """Whether two parameters are equal, or this rank's parts of them (ZeRO-3, FSDP2)."""
    parts = []
    for value in (ours, theirs):
        value = getattr(value, "ds_tensor", value).detach()
        parts.append(value.to_local() if hasattr(value, "to_local") else value)
    return parts[0].dtype == parts[1].dtype and torch.equal(parts[0], parts[1].to(parts[0].device))


def preference_forward(
    original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any], is_ref_model: bool = False
) -> dict[str, torch.Tensor]:
    """``CustomDPOTrainer.concatenated_forward``.

    ``chosen_logits`` and ``rejected_logits``, of which the host logs the means, are these means over attended tokens
    (the host's are over padding too): of all rows of either side ``[1]``, or of each of them ``[B]`` where the batch
    has ``sides``.
    """
    if settings().answers_only == "off":
        return original(self, model, {name: value for name, value in batch.items() if name != ROW}, is_ref_model)
    step = getattr(self, "_hound_step", None)
    if step is None:
        step = self._hound_step = PreferenceStep(self, model)
    output, log_probs, labelled = step.log_probs(model, batch, is_ref_model)
    lengths = labelled.sum(-1)
    sums = _sums(log_probs, labelled, None if is_ref_model else self.ld_alpha)
    averaged = self.loss_type in ("ipo", "orpo", "simpo")
    chosen, rejected = (sums / lengths if averaged else sums).chunk(2)
    chosen_logits, rejected_logits = output.mean_logits.chunk(2)
    return {
        "chosen_logps": chosen,
        "rejected_logps": rejected,
        "chosen_logits": chosen_logits,
        "rejected_logits": rejected_logits,
        "chosen_logps_avg": chosen if averaged else chosen / lengths.chunk(2)[0],
    }


def _sums(log_probs: torch.Tensor, labelled: torch.Tensor, ld_alpha: float | None) -> torch.Tensor:
    """Sums over each row's labels ``[2B]``; with ``ld_alpha`` those beyond the shorter answer's length count by it.

    Source: LD-DPO, arXiv 2409.06411, as the host's ``get_batch_logps`` computes it.
    """
    if ld_alpha is None:
        return log_probs.sum(-1)
    shorter = torch.minimum(*labelled.sum(-1).chunk(2)).repeat(2)
    ends = labelled.int().argmax(-1) + shorter
    columns = torch.arange(log_probs.shape[1], device=log_probs.device)
    front = columns < ends.unsqueeze(1)
    return (log_probs * front).sum(-1) + ld_alpha * (log_probs * ~front).sum(-1)
