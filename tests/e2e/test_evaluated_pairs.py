"""Each row of an evaluation of DPO, KTO and reward models counts once, whatever the batches and processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import data_sets, recipe_for
from tests.e2e.test_evaluated_rows import results
from tests.e2e.together import Outcome, train_together
from tests.goldens import DPO, SFT, rows
from tests.host.hosting import write_dataset

PARTS = {"all": slice(7), "first": slice(3), "last": slice(3, 7)}  # seven rows: a remainder for 2 and 3 at a time
STAGES: dict[str, dict[str, Any]] = {
    "dpo": {"ref_model": str(DPO), "pref_beta": 0.1, "pref_ftx": 0.2},
    "orpo": {"stage": "dpo", "pref_loss": "orpo", "pref_beta": 0.1},
    "bco": {"stage": "dpo", "ref_model": str(DPO), "pref_beta": 0.1, "pref_bco_weight": 0.5},
    "kto": {"model_name_or_path": str(DPO), "ref_model": str(SFT), "pref_beta": 0.1, "pref_ftx": 0.2},  # KL above 0
    "rm": {},
}
LINEAR = ("dpo", "orpo", "bco", "rm")  # KTO's loss has a term of all rows


def labelled(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Unlike numbers of wanted and unwanted answers, so that some batches have one kind only."""
    sides = ("chosen", "chosen", "chosen", "rejected", "rejected", "chosen", "chosen")
    return [
        {
            "video": pair["video"],
            "conversations": [
                {"from": "human", "value": f"<video>\nAbout {pair['id']}?"},
                {"from": "gpt", "value": pair[side]},
            ],
            "label": side == "chosen",
        }
        for pair, side in zip(pairs, sides, strict=True)
    ]


def evaluation(work: Path, name: str, part: str, where: str, **changes: Any) -> dict[str, Any]:
    stage = STAGES[name].get("stage", name)
    values = {**STAGES[name], "do_train": False, "do_eval": True, "ddp_timeout": 120, **changes}
    data = f"{'labels' if stage == 'kto' else 'pairs'}-{part}"
    values.pop("stage", None)
    return recipe_for(work)(stage, f"{where}-{name}-{part}", **{"dataset": None, "eval_dataset": data, **values})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = data_sets(tmp_path_factory.mktemp("pairs"))
    pairs = [row for row in rows("dpo.jsonl") if "video" in row][:7]
    for part, chosen in PARTS.items():
        write_dataset(folder / "data", f"pairs-{part}", pairs[chosen], ranking=True)
    columns = {"messages": "conversations", "kto_tag": "label"}
    for part, chosen in PARTS.items():
        write_dataset(folder / "data", f"labels-{part}", labelled(pairs)[chosen], columns=columns)
    return folder


@pytest.fixture(scope="module")
def single(work: Path) -> dict[str, Outcome]:
    runs = {}
    for name in STAGES:
        for rows_at_once in (1, 3, 8):
            where = f"{rows_at_once} of"
            runs[f"{where} {name}"] = evaluation(work, name, "all", where, per_device_eval_batch_size=rows_at_once)
    for name in LINEAR:
        for part in ("first", "last"):
            runs[f"{part} of {name}"] = evaluation(work, name, part, part, per_device_eval_batch_size=4)
    for name in ("dpo", "kto"):
        whole = {"hound": {"answers_only": "off"}, "per_device_eval_batch_size": 3}
        runs[f"whole logits of {name}"] = evaluation(work, name, "all", "whole", **whole)
    trained = {"do_train": True, "dataset": "pairs-all", "eval_dataset": "pairs-first,pairs-last", "max_steps": 2}
    steps = {"eval_on_each_dataset": True, "eval_strategy": "steps", "eval_steps": 1}
    for name, every in (("each step", 1), ("two steps", 2)):
        trained_kto = {"do_train": True, "do_eval": False, "max_steps": 2, "logging_steps": every}
        runs[f"kl of {name}"] = evaluation(work, "kto", "all", name, **trained_kto, dataset="kto", eval_dataset=None)
    runs["trained"] = evaluation(work, "dpo", "all", "trained", **trained, **steps)
    return train_together(work, runs)


@pytest.mark.parametrize("name", STAGES)
def test_the_batch_size_does_not_matter(name: str, single: dict[str, Outcome]) -> None:
    expected = results(single[f"8 of {name}"])
    assert len(expected) > 1
    for rows_at_once in (1, 3):
        assert results(single[f"{rows_at_once} of {name}"]) == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_one_batch_gives_the_host_s_own_numbers(single: dict[str, Outcome]) -> None:
    """Recorded from the host's trainer without our evaluation, seven rows in one batch."""
    found = results(single["8 of kto"])
    assert found["eval_loss"] == pytest.approx(3.221618413925171, abs=1e-5)
    assert found["eval_kl"] == pytest.approx(0.23765890300273895, abs=1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_a_metric_is_the_mean_over_rows(name: str, single: dict[str, Outcome]) -> None:
    whole, first, last = (results(single[f"{part} of {name}"]) for part in ("3", "first", "last"))
    assert abs(first["eval_loss"] - last["eval_loss"]) > 1e-3
    for metric, value in whole.items():
        assert value == pytest.approx((3 * first[metric] + 4 * last[metric]) / 7, abs=1e-5, rel=1e-5), metric


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_whole_logits_give_the_same(name: str, single: dict[str, Outcome]) -> None:
    found = results(single[f"whole logits of {name}"])
    assert found == pytest.approx(results(single[f"8 of {name}"]), abs=1e-5, rel=1e-4)


def test_each_data_set_has_its_metrics(single: dict[str, Outcome]) -> None:
    """While a model is trained, too, and the training's own metrics stay."""
    log = single["trained"].steps
    assert all("rewards/chosen" in row for row in log)
    found = results(single["trained"])
    for part in ("first", "last"):
        names = {name.removeprefix(f"eval_pairs-{part}_") for name in found if name.startswith(f"eval_pairs-{part}_")}
        assert names >= {"loss", "rewards/chosen", "rewards/accuracies", "rewards/margins", "logps/rejected"}
    assert found["eval_pairs-first_logps/chosen"] != found["eval_pairs-last_logps/chosen"]
    assert "eval_rewards/chosen" not in found


def test_the_kl_term_of_a_training_is_a_mean(single: dict[str, Outcome]) -> None:
    """And not the sum over the batches since the last line of the log."""
    each = [row["kl"] for row in single["kl of each step"].steps]
    assert min(each) > 0
    assert [row["kl"] for row in single["kl of two steps"].steps] == pytest.approx([sum(each) / 2], rel=1e-5)


@pytest.fixture(scope="module")
def double(work: Path) -> dict[str, Outcome]:
    """By two processes, one, three or eight rows at a time: a last batch without a row for one, and a short one."""
    runs = {
        f"{rows_at_once} of {name}": evaluation(
            work, name, "all", f"two-{rows_at_once}", per_device_eval_batch_size=rows_at_once
        )
        for name in STAGES
        for rows_at_once in (1, 3, 8)
    }
    port = str(29600 + os.getpid() % 300)
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node", "2", "--master_port", port]
    return train_together(work, runs, command=torchrun, threads="1")


@pytest.mark.long
@pytest.mark.parametrize("name", STAGES)
def test_rows_that_fill_up_a_batch_do_not_count(
    name: str, single: dict[str, Outcome], double: dict[str, Outcome]
) -> None:
    for run in (f"{rows_at_once} of {name}" for rows_at_once in (1, 3, 8)):
        assert results(double[run]) == pytest.approx(results(single[run]), abs=1e-5, rel=1e-5), run
