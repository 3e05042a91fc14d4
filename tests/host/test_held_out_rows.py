"""What a run is evaluated on: each row of it once, and none that it trains on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError, HoundError, SettingsError
from tests.host.hosting import write_dataset
from tests.host.test_pipeline import Host

STREAM = {"streaming": True, "max_steps": 1}
OVER = {"mix_strategy": "interleave_over", "interleave_probs": "0.5,0.5"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Data sets `many`, `some` and `few` of 12, 5 and 3 rows."""
    for name, count in (("many", 12), ("some", 5), ("few", 3)):
        rows = [
            {
                "id": f"{name}-{number}",
                "video": "clip_short",
                "conversations": [
                    {"from": "human", "value": "<video>\nQ?"},
                    {"from": "gpt", "value": f"{name} {number}."},
                ],
            }
            for number in range(count)
        ]
        write_dataset(tmp_path / "data", name, rows)
    write_dataset(tmp_path / "data", "often", [{**row, "id": f"o{row['id']}"} for row in rows], num_samples=7)
    return Host(tmp_path)


def answers(host: Host, rows: Any) -> list[str]:
    """The answer of each row."""
    kept = [[label for label in row["labels"] if label != -100] for row in rows]
    return [host.tokenizer.decode(labels, skip_special_tokens=True).strip() for labels in kept]


@pytest.mark.parametrize("mixture", [OVER, {"mix_strategy": "interleave_under"}])
@pytest.mark.parametrize("stream", [{}, STREAM])
def test_data_sets_for_evaluation_are_not_mixed(mixture: dict[str, Any], stream: dict[str, Any], host: Host) -> None:
    """The mixture for the training would evaluate rows several times, or leave some out."""
    options = {"dataset": "many,some", **mixture, **stream, "eval_dataset": "some,few"}
    counts = Counter(answers(host, host.split("sft", **options)["eval_dataset"]))
    assert counts == Counter([f"some {n}." for n in range(5)] + [f"few {n}." for n in range(3)])


@pytest.mark.parametrize("options", [{}, {"buffer_size": 4}, {"dataset": "many,some", "buffer_size": 3}])
def test_rows_of_a_stream_that_are_held_out_are_in_no_epoch_of_its_training(
    options: dict[str, Any], host: Host
) -> None:
    split = host.split("sft", **{"dataset": "many", **STREAM, **options, "val_size": 4})
    held = answers(host, split["eval_dataset"])
    total = 17 if "dataset" in options else 12
    orders = []
    for epoch in range(4):
        split["train_dataset"].set_epoch(epoch)
        trained = answers(host, split["train_dataset"])
        assert len(held) == 4
        assert len({*trained, *held}) == len(trained) + len(held) == total
        assert answers(host, split["eval_dataset"]) == held
        orders.append(trained)
    assert orders[0] != orders[1]


REFUSED: dict[str, tuple[dict[str, Any], type[HoundError], str]] = {
    "repeated rows": ({"dataset": "many,some", **OVER, "val_size": 3}, SettingsError, "repeats rows, and `val_size`"),
    "in a stream": ({"dataset": "many,few", **OVER, **STREAM, "val_size": 2}, SettingsError, "repeats rows, and"),
    "samples": ({"dataset": "often", "val_size": 0.3}, DataError, "`num_samples: 7` .* repeats its 3 rows"),
    "a stream's rest": ({"dataset": "few", **STREAM, "val_size": 3}, SettingsError, "got 3, which leaves none"),
    "a share of 0": (
        {"dataset": "many,some", **OVER, "interleave_probs": "1.0,0.0"},
        SettingsError,
        "which a share of 0 in `interleave_probs` prevents",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_train_on_held_out_rows_or_never_end_is_refused(name: str, host: Host) -> None:
    options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        host.split("sft", **options)


def test_other_mixtures_go_on(host: Host) -> None:
    assert len(answers(host, host.split("sft", dataset="often")["train_dataset"])) == 7
    split = host.split("sft", dataset="many,some", mix_strategy="interleave_under", val_size=4)
    assert not {*answers(host, split["train_dataset"])} & {*answers(host, split["eval_dataset"])}
    mixed = host.split("sft", dataset="many,few", **OVER)["train_dataset"]
    assert len({*answers(host, mixed)}) == 15
