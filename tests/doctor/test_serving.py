"""``hound doctor --serve``: what is wrong with a set-up is found before a server is started."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hound_plugin import cli, doctor
from hound_plugin.doctor import FAIL, OK, WARN, Check, serving
from tests.goldens import SFT
from tests.host.hosting import write_yaml

VALUES = {
    "model_name_or_path": str(SFT),
    "template": "llava_hound",
    "infer_dtype": "float32",
    "finetuning_type": "lora",
}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("SAFE_MEDIA_PATH", "ALLOW_LOCAL_FILES", "API_KEY", "API_HOST"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def write_adapter(folder: Path, rank_of: int) -> Path:
    """A LoRA adapter on one layer; 64 is the input size that fits."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "x", "r": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    layer = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    tensors = {f"{layer}.lora_A.weight": torch.zeros(2, rank_of), f"{layer}.lora_B.weight": torch.zeros(64, 2)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def examined(*arguments: str) -> dict[str, Check]:
    return {check.name.removeprefix("serving: "): check for check in serving.check_serving(arguments)}


def test_a_sound_set_up(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    clean.setenv("SAFE_MEDIA_PATH", str(tmp_path / "clips"))
    clean.setenv("API_KEY", "secret")
    adapter = write_adapter(tmp_path / "lora", 64)
    recipe = write_yaml(tmp_path / "api.yaml", {**VALUES, "hound": {"decoder": "pyav", "decode_timeout": 60}})
    checks = examined(str(recipe), f"adapter_name_or_path={adapter}")
    assert {name: check.status for name, check in checks.items()} == dict.fromkeys(
        ("template", "model", "decoder", "adapter", "media folder", "access"), OK
    ), checks
    assert checks["model"].found == "one clip takes 392 of 4096 tokens"
    assert checks["adapter"].found == f"{adapter} (LORA, 1 layers)"
    assert "secret" not in doctor.to_text(list(checks.values()))


def test_everything_wrong(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("SAFE_MEDIA_PATH", str(tmp_path / "nowhere"))
    adapter = write_adapter(tmp_path / "lora", 48)
    recipe = write_yaml(tmp_path / "api.yaml", {**VALUES, "template": "vicuna", "hound": {"num_frames": 88}})
    checks = examined(str(recipe), f"adapter_name_or_path={adapter}")
    assert {name: check.status for name, check in checks.items() if check.status != OK} == {
        "template": FAIL,
        "model": FAIL,
        "adapter": FAIL,
        "media folder": FAIL,
        "access": WARN,
    }
    assert "4312 of 4096" in checks["model"].found
    assert "does not fit (64, 64)" in checks["adapter"].found
    assert all(check.fix for check in checks.values() if check.status != OK)


def test_weights_that_were_cut_short(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = shutil.copytree(SFT, tmp_path / "model", copy_function=shutil.copyfile)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    checks = examined(str(write_yaml(tmp_path / "api.yaml", {**VALUES, "model_name_or_path": str(model)})))
    assert checks["model"].status == FAIL
    assert "not fully covered" in checks["model"].found


def test_a_file_that_the_host_refuses(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = write_yaml(tmp_path / "api.yaml", {**VALUES, "hound": {"num_farmes": 8}})
    check = examined(str(recipe))["settings"]
    assert check.status == FAIL
    assert "Did you mean 'num_frames'?" in check.found


def test_the_allowed_folder(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert serving.check_media_folder().status == WARN
    clean.setenv("SAFE_MEDIA_PATH", str(tmp_path))
    assert serving.check_media_folder().status == WARN  # empty
    (tmp_path / "a.mp4").touch()
    assert serving.check_media_folder().status == OK
    for wide in ("/", str(Path.home()), str(tmp_path / "a.mp4")):
        clean.setenv("SAFE_MEDIA_PATH", wide)
        assert serving.check_media_folder().status == FAIL
    clean.setenv("ALLOW_LOCAL_FILES", "0")
    assert serving.check_media_folder().status == OK


def test_access(clean: pytest.MonkeyPatch) -> None:
    assert serving.check_access().status == WARN
    clean.setenv("API_HOST", "127.0.0.1")
    assert serving.check_access().status == OK


def test_the_command_hands_the_arguments_on(clean: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[list[str]] = []
    clean.setattr(doctor, "examine", lambda serve, show: (taken.append(list(serve)), [Check("x", OK, "y")])[1])
    assert cli.main(["doctor", "--json", "--serve", "api.yaml", "a=1"]) == 0
    assert cli.main(["doctor"]) == 0
    assert taken == [["api.yaml", "a=1"], []]
    capsys.readouterr()
