"""Every recipe is read by the host's own parser, and what it names exists."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from llamafactory.hparams import get_infer_args, get_train_args

from hound_plugin.errors import SettingsError
from hound_plugin.evaluation import settings as evaluation
from hound_plugin.host.settings_state import settings
from hound_plugin.reward.settings import build_settings, read_settings
from tests.goldens import SFT

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples" / "yaml").glob("*.yaml"))
OURS = [path for path in EXAMPLES if path.name == "hound_reward.yaml"]  # read by `hound reward`, not by the host
EVALUATION = ROOT / "examples" / "yaml" / "hound_eval.yaml"
RECIPES = [path for path in EXAMPLES if path not in (*OURS, EVALUATION)]
TRAINING = [path for path in RECIPES if "stage" in yaml.safe_load(path.read_text())]
# what only a machine with GPUs and torchrun accepts
CPU: dict[str, Any] = {"bf16": False, "fp16": False, "deepspeed": None}


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_there_are_recipes() -> None:
    serving = {"hound_chat.yaml", "hound_api.yaml", "hound_webchat.yaml"}
    assert {"demo_sft.yaml", "demo_dpo.yaml", "hound_dpo.yaml"} | serving <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_parsed_by_the_host(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = load(path)
    monkeypatch.chdir(tmp_path)
    if not values["model_name_or_path"].startswith("ShareGPTVideo/"):  # what an earlier recipe makes
        (tmp_path / values["model_name_or_path"]).mkdir(parents=True)
        (tmp_path / values["model_name_or_path"] / "config.json").write_text("{}")
        shutil.copy(SFT / "tokenizer.model", tmp_path / values["model_name_or_path"])
    assert values["template"] == "llava_hound"
    if path in TRAINING:
        changes = {**{key: value for key, value in CPU.items() if key in values}, "output_dir": str(tmp_path / "out")}
        model, data, _, finetuning, _ = get_train_args({**values, **changes})
        assert finetuning.stage == values["stage"]
        assert data.cutoff_len >= 1024
    else:
        model, *_ = get_infer_args(values)
    assert model.model_name_or_path == values["model_name_or_path"]
    assert settings().decoder == values.get("hound", {}).get("decoder", "auto")


def test_the_recipe_of_the_reward_module() -> None:
    (path,) = OURS
    settings = read_settings(path)
    assert settings.judge.backend == "lexical"
    assert (ROOT / settings.iterate.recipe).is_file()
    for block, key in (("", "folder"), ("judge.", "backend"), ("pairs.", "policy"), ("sample.", "n")):
        with pytest.raises(SettingsError, match=f"{block}{key}x: unknown key. Did you mean '{key}'"):
            read_settings(path, [f"{block}{key}x=1"])


def test_the_recipe_of_the_evaluation() -> None:
    settings = evaluation.read_settings(EVALUATION)
    assert (settings.suite, settings.predict.model, settings.judge.backend) == ("demo", "demo/runs/dpo", "lexical")
    assert settings.run_folder == Path("saves/hound_eval/dpo/demo")
    official = evaluation.read_settings(EVALUATION, ["suite=official", "model=ShareGPTVideo/LLaVA-Hound-DPO"])
    assert official.for_suite("official", "exact_match").judge.protocol == "official"
    for block, key in (("", "folder"), ("judge.", "backend"), ("predict.", "batch_size"), ("report.", "examples")):
        with pytest.raises(SettingsError, match=f"{block}{key}x: unknown key. Did you mean '{key}'"):
            evaluation.read_settings(EVALUATION, [f"{block}{key}x=1"])


def test_the_commented_recipe_of_a_real_judge() -> None:
    lines = OURS[0].read_text().split("For real data:\n", 1)[1].split("\n# The API key", 1)[0].splitlines()
    text = "\n".join(line.removeprefix("#").removeprefix("   ") for line in lines)
    values = {**load(OURS[0]), **yaml.safe_load(text)}
    settings = build_settings(values)
    assert (settings.judge.backend, settings.max_cost) == ("openai", 20)


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.name)
def test_what_a_recipe_names_exists(path: Path) -> None:
    values = load(path)
    if values.get("deepspeed"):
        assert json.loads((ROOT / values["deepspeed"]).read_text())["zero_optimization"]["stage"] in (2, 3)
    registry = ROOT / values["dataset_dir"] / "dataset_info.json"
    if values["dataset_dir"] == "data":
        entries = json.loads(registry.read_text())
        for key in ("dataset", "eval_dataset"):
            for name in filter(None, (values.get(key) or "").split(",")):
                assert name.strip() in entries


def test_the_registry_has_the_fields_of_the_host() -> None:
    from llamafactory.data.parser import get_dataset_list

    entries = json.loads((ROOT / "data" / "dataset_info.json").read_text())
    for attr in get_dataset_list(list(entries), str(ROOT / "data")):
        assert attr.formatting == "hound"


def test_the_ray_cluster_is_one_that_ray_reads() -> None:
    values = load(ROOT / "examples" / "ray" / "cluster.yaml")
    schema = pytest.importorskip("ray.autoscaler._private.util")
    prepared = schema.prepare_config(values)
    schema.validate_config(prepared)
    assert prepared["provider"]["worker_ips"]


def test_the_script_for_slurm_starts_ray_on_each_machine_and_the_command_on_the_first(tmp_path: Path) -> None:
    """Slurm's programs are stand-ins that note how they are called; there is no Slurm here."""
    script, tools, log = ROOT / "examples" / "slurm" / "ray.sbatch", tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    stand_ins = {
        "scontrol": "printf 'node1\\nnode2\\n'",
        "srun": f'echo "$@" >> {log}; case "$*" in *hostname*) echo 10.0.0.1;; esac',
    }
    for name, body in stand_ins.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "4"}
    command = ["hound", "reward", "sample", "x.yaml", "--engine", "ray", "engine.gpus=1"]
    subprocess.run([str(script), *command], env=environment, check=True, timeout=60)
    deadline = time.monotonic() + 20  # what runs in the background notes its call when it comes to it
    while log.read_text().count(" ray start ") < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    calls = log.read_text().splitlines()
    started = sorted(line for line in calls if " ray start " in line)
    assert [line.split("-w ")[1].split()[0] for line in started] == ["node1", "node2"]
    assert "--head --port=6379" in started[0]
    assert "--address=10.0.0.1:6379" in started[1]
    assert all("--num-gpus=4" in line for line in started)
    (asked,) = [line for line in calls if " hound reward " in line]
    assert asked.endswith(f"-w node1 {' '.join(command)} engine.address=10.0.0.1:6379 engine.actors=8")
    refused = subprocess.run([str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "usage: sbatch" in refused.stderr
