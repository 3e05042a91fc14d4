"""Packed, streamed and grouped rows give the numbers of plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import rows
from tests.host.hosting import write_dataset

REFUSED = {
    "packing": ({"packing": True}, "attend to one another"),
    "odd length": ({"neat_packing": True, "cutoff_len": 1500}, "Set it to 1504"),
}
WORKERS = (0, 1)
# recorded rows about three clips (s3 and s8 have two turns), by clip, and as people's data mix them
LINED_UP = ("s0", "s4", "s9", "s1", "s8", "s11", "s3", "s5", "s10")
MIXED = ("s0", "s1", "s4", "s3", "s8", "s5", "s11", "s9", "s10")
GROUPED: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {
        "finetuning_type": "lora", "lora_rank": 4, "lora_target": "all", "gradient_accumulation_steps": 2,
        "use_reentrant_gc": False,
    },
}  # fmt: skip


def kinds() -> list[dict[str, Any]]:
    """Two clips, an image and a text: the first and the last row are about other media."""
    recorded = rows("sft.jsonl")
    clips = [row for row in recorded if "video" in row]
    image = next(row for row in recorded if "image" in row)
    text = {"conversations": [{"from": "human", "value": "Say 1."}, {"from": "gpt", "value": "I say 1."}]}
    return [{**row, "id": str(number)} for number, row in enumerate([clips[0], image, text, clips[1]])]


def grouped(work: Path) -> dict[str, dict[str, Any]]:
    """Groups of three rows, one a batch, beside the same rows three a batch; and a run that is resumed."""
    recorded = {row["id"]: row for row in rows("sft.jsonl")}
    for name, order in (("lined_up", LINED_UP), ("mixed_up", MIXED)):
        write_dataset(work / "data", name, [recorded[row] for row in order])
    recipe = recipe_for(work)
    groups = {"dataset": "mixed_up", "per_device_train_batch_size": 1, "hound": {"group_questions": 3}}
    runs = {}
    for kind, changes in GROUPED.items():
        single = {"dataset": "lined_up", "per_device_train_batch_size": 3}
        runs[f"{kind}, single"] = recipe("sft", f"single-{kind}", max_steps=4, **single, **changes)
        runs[f"{kind}, grouped"] = recipe("sft", f"grouped-{kind}", max_steps=4, **groups, **changes)
    saving = {**groups, "disable_shuffling": False, "save_strategy": "steps", "save_steps": 2, "max_steps": 5}
    runs["whole"] = recipe("sft", "grouped-whole", **saving)
    half = str(work / "runs" / "grouped-whole" / "checkpoint-2")
    runs["resumed"] = recipe("sft", "grouped-resumed", **saving, resume_from_checkpoint=half)
    runs["resumed, other groups"] = recipe("sft", "grouped-whole", **{**saving, "hound": {"group_questions": 2}})
    return runs


@pytest.fixture(scope="module")
def ran(work: Path) -> dict[str, Outcome]:
    write_dataset(work / "data", "kinds", kinds())
    recipe = recipe_for(work)
    of_kinds = {"dataset": "kinds", "max_steps": 1}
    packs = {"per_device_train_batch_size": 1, "neat_packing": True, "cutoff_len": 2048}
    # the host shuffles a stream within its buffer; a buffer of one row keeps the order
    stream = {"max_steps": 4, "streaming": True, "buffer_size": 1}
    runs = {
        "plain": recipe("sft", "unpacked", **of_kinds, per_device_train_batch_size=4),
        "packed": recipe("sft", "packed", **of_kinds, **packs),
        "mapped": recipe("sft", "mapped", max_steps=4),
        **{f"streamed {n}": recipe("sft", f"streamed{n}", **stream, dataloader_num_workers=n) for n in WORKERS},
        **grouped(work),
        **{
            name: recipe("sft", name.replace(" ", "_"), max_steps=1, **changes)
            for name, (changes, _) in REFUSED.items()
        },
    }
    return train_together(work, runs)


def test_packed_rows_have_the_loss_of_single_rows(ran: dict[str, Outcome]) -> None:
    plain, packed = ran["plain"].steps[0], ran["packed"].steps[0]
    assert abs(packed["loss"] - plain["loss"]) < 1e-5
    np.testing.assert_allclose(packed["grad_norm"], plain["grad_norm"], rtol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_packing_that_would_be_wrong_is_refused(name: str, ran: dict[str, Outcome]) -> None:
    assert ran[name].failed
    assert REFUSED[name][1] in ran[name].output


@pytest.mark.parametrize("workers", WORKERS)
def test_streamed_rows_are_the_same_batches(workers: int, ran: dict[str, Outcome]) -> None:
    np.testing.assert_allclose(ran[f"streamed {workers}"].losses, ran["mapped"].losses, atol=1e-6)


@pytest.mark.parametrize("kind", GROUPED)
def test_grouped_rows_train_as_single_rows(kind: str, ran: dict[str, Outcome]) -> None:
    single, together = ran[f"{kind}, single"].steps, ran[f"{kind}, grouped"].steps
    assert len(single) == len(together) == 4
    for key, limits in (("loss", {"atol": 2e-6, "rtol": 0}), ("grad_norm", {"rtol": 1e-5})):
        left, right = ([row[key] for row in steps] for steps in (together, single))
        np.testing.assert_allclose(left, right, err_msg=key, **limits)
    said = ran[f"{kind}, grouped"].output
    assert "9 rows in 3 groups about one clip each; 9 rows share theirs" in said
    assert "`per_device_train_batch_size: 1` is 1 group(s): up to 3 rows, 3.0 on average" in said


def test_grouped_rows_resume(ran: dict[str, Outcome]) -> None:
    whole, resumed = ran["whole"], ran["resumed"]
    assert len({row["loss"] for row in whole.steps}) == 5
    np.testing.assert_allclose(resumed.losses, whole.losses, atol=1e-6)
    assert ran["resumed, other groups"].failed
    assert "hound.group_questions: 3 there, 2 now" in ran["resumed, other groups"].output
