"""From a checkpoint to a checkpoint: sample, judge, pairs, DPO in the host's own command, and again from its result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hound_plugin import cli
from hound_plugin.evaluation.run_folder import load_run
from tests.evaluation.stand_ins import write_recipe
from tests.goldens import DPO, HUB, ROOT, SFT
from tests.host.hosting import write_yaml
from tests.reward.conftest import rows, write_rows

CLIPS = ["clip_short.mp4", "clip_long.mp4", "clip_portrait.mp4"]


@pytest.mark.e2e
def test_a_round_from_the_last_ones_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("HF_HUB_CACHE", str(HUB)),
        ("HF_DATASETS_CACHE", str(tmp_path / "cache")),
        ("OMP_NUM_THREADS", "1"),
    ):
        monkeypatch.setenv(name, value)
    questions = [
        {"id": f"q{n}", "video": CLIPS[n % 3], "prompt": f"<video>\nWhat moves, {n}?", "caption": "A dog.",
         "reference": "A brown dog runs to the left."}
        for n in range(6)
    ]  # fmt: skip
    recipe = {
        "stage": "dpo", "do_train": True, "finetuning_type": "full", "freeze_vision_tower": True, "template":
        "llava_hound", "cutoff_len": 4096, "report_to": "none", "save_strategy": "no", "max_steps": 1,
        "per_device_train_batch_size": 2, "learning_rate": 1e-4, "eval_dataset": "some", "dataset": "other",
    }  # fmt: skip
    later = [{"id": f"h{n}", "video": clip, "prompt": "What moves?", "answer": "a dog"} for n, clip in enumerate(CLIPS)]
    held_out = write_rows(tmp_path / "held_out.jsonl", later)
    values = {
        "folder": str(tmp_path / "run"),
        "questions": str(write_rows(tmp_path / "q.jsonl", questions)),
        "media_dir": str(ROOT / "media"),
        "sample": {"model": str(SFT), "n": 2, "max_new_tokens": 6, "device": "cpu"},
        "pairs": {"chosen_from_reference": True},
        "iterate": {
            "rounds": 2,
            "recipe": str(write_yaml(tmp_path / "dpo.yaml", recipe)),
            "evaluation": str(write_recipe(tmp_path / "eval.yaml", suite=str(held_out), media_dir=str(ROOT / "media"))),
        },
    }
    command = ["reward", "iterate", str(write_yaml(tmp_path / "reward.yaml", values))]
    first, second = (tmp_path / "run" / f"round_{number}" for number in (1, 2))
    shutil.copytree(DPO, first / "dpo")  # round 1 is there already
    (first / "dpo" / "finished.json").write_text("{}")
    assert cli.main(command) == 0
    assert not (first / "candidates.jsonl").exists(), "finished rounds are left as they are"
    assert json.loads((second / "dpo" / "finished.json").read_text())["from"] == str(first / "dpo")
    assert {row["sampler"] for row in rows(second / "candidates.jsonl")} == {str(first / "dpo")}
    asked = {row["id"] for row in rows(second / "questions.jsonl")}
    assert len(asked) == 3
    assert len(rows(second / "pairs" / "hound_pairs.jsonl")) == 3
    assert json.loads((second / "dpo" / "trainer_state.json").read_text())["global_step"] == 1
    output = capsys.readouterr().out
    assert "round 1: held-out accuracy" in output
    assert "round 2: held-out accuracy" in output
    for number, model in enumerate((SFT, first / "dpo", second / "dpo")):
        run = load_run(tmp_path / "run" / "evaluation" / f"round_{number}" / "held_out")
        assert (run.meta["model"], len(run.judgements)) == (str(model), 3)
    before = (second / "dpo" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "round 2 of" not in capsys.readouterr().out
    assert (second / "dpo" / "model.safetensors").stat().st_mtime_ns == before
