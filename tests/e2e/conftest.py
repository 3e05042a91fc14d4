from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.goldens import SFT, rows
from tests.host.hosting import media_folder, write_dataset


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in Path(item.fspath).parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See :func:`data_sets`."""
    return data_sets(tmp_path_factory.mktemp("e2e"))


def data_sets(folder: Path) -> Path:
    """The recorded rows as data sets of the host, with their media."""
    media_folder(folder / "media")
    data = folder / "data"
    write_dataset(data, "sft", rows("sft.jsonl"))
    write_dataset(data, "dpo", rows("dpo.jsonl"), ranking=True)
    kto = [
        {
            "id": f"{record['id']}-{side}",
            "video": record["video"],
            "conversations": [
                {"from": "human", "value": f"<video>\nAbout {record['id']}?"},
                {"from": "gpt", "value": record[side]},
            ],
            "label": side == "chosen",
        }
        for record in rows("dpo.jsonl")[4:8]
        for side in ("chosen", "rejected")
    ]
    write_dataset(data, "kto", kto, columns={"messages": "conversations", "kto_tag": "label"})
    write_dataset(data, "good", [row for row in kto if row["label"]])
    return folder


@pytest.fixture
def recipe(work: Path) -> Any:
    """Arguments for a run of the recorded training: see :func:`recipe_for`."""
    return recipe_for(work)


def recipe_for(work: Path) -> Any:
    """Arguments for a run of the recorded training: batch 2, fixed order, AdamW 1e-4, no clipping."""

    def make(stage: str, name: str, **changes: Any) -> dict[str, Any]:
        values = {
            "model_name_or_path": str(SFT),
            "stage": stage,
            "do_train": True,
            "finetuning_type": "full",
            "freeze_vision_tower": True,
            "freeze_multi_modal_projector": stage != "sft",
            "dataset": {"pt": "sft"}.get(stage, stage),
            "dataset_dir": str(work / "data"),
            "media_dir": str(work / "media"),
            "template": "llava_hound",
            "cutoff_len": 4096,
            "output_dir": str(work / "runs" / name),
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-4,
            "max_steps": 6,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 1e9,
            "disable_shuffling": True,
        }
        return {**values, **changes}

    return make
