"""Packed and streamed rows give the numbers of plain ones."""

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


def kinds() -> list[dict[str, Any]]:
    """Two clips, an image and a text: the first and the last row are about other media."""
    recorded = rows("sft.jsonl")
    clips = [row for row in recorded if "video" in row]
    image = next(row for row in recorded if "image" in row)
    text = {"conversations": [{"from": "human", "value": "Say 1."}, {"from": "gpt", "value": "I say 1."}]}
    return [{**row, "id": str(number)} for number, row in enumerate([clips[0], image, text, clips[1]])]


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
