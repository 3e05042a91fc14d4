"""The doctor must find what is wrong, and must itself work where nothing else does."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import doctor
from hound_plugin.doctor import Check, activation, child, machine, runtime, saved_work, versions
from tests.sandbox import Sandbox, write_metadata

# Fills the registries as the real registration does, without its imports.
FAKE_REGISTER = """
import sys, types
from importlib import import_module

def register_for(name):
    module = sys.modules[name]
    for attribute, key in (("TEMPLATES", "llava_hound"), ("PLUGINS", "llava_hound"), ("DATASET_CONVERTERS", "hound"),
                           ("COMPOSITE_MODELS", "llava_hound")):
        if name.rpartition(".")[2] in ("template", "mm_plugin", "converter", "visual") and hasattr(module, attribute):
            getattr(module, attribute)[key] = object()
    if name.endswith("constants"):
        from hound_plugin.doctor.activation import MODEL_NAMES
        module.SUPPORTED_MODELS.update(dict.fromkeys(MODEL_NAMES, {}))

module = types.ModuleType("hound_plugin.host.register")
module.register_for = register_for
sys.modules["hound_plugin.host.register"] = module
"""


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of every child's path, with the plugin's metadata in it."""
    box = Sandbox(tmp_path)
    write_metadata(tmp_path / "path")
    for name in ("HOUND_PLUGIN_DISABLE", "TORCH_DEVICE_BACKEND_AUTOLOAD", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", box.environment()["PYTHONPATH"])
    return tmp_path / "path"


def _by_name(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def _plugin_in_the_host() -> Check:
    """That line alone; what follows it looks at every patched place and takes a while."""
    with closing(activation.check_activation()) as checks:
        return next(check for check in checks if check.name == "plugin in the host")


def _run_doctor(tmp_path: Path, expected_code: int, **extra: str) -> dict[str, dict[str, Any]]:
    box = Sandbox(tmp_path)
    out = box.run([sys.executable, "-P", "-m", "hound_plugin.cli", "doctor", "--json"], check=False, **extra)
    report = json.loads(out)
    found = {check["name"]: check for check in report["checks"]}
    failed = {name: check for name, check in found.items() if check["status"] == "fail"}
    assert bool(failed) == bool(expected_code), failed
    assert report["status"] == "fail" if failed else report["status"] in ("ok", "warn")
    return found


# --- the whole command


@pytest.mark.e2e
def test_a_sound_environment(stubs: Path, tmp_path: Path) -> None:
    (stubs / "sitecustomize.py").write_text(FAKE_REGISTER)
    (stubs / "hound_plugin-0.1.0.dist-info" / "METADATA").unlink()
    _copy_real_requirements(stubs)
    found = _run_doctor(tmp_path, 0)
    assert found["plugin in the host"]["status"] == "ok"
    assert found["decoder av"]["status"] == "ok"
    assert all(set(check) == {"name", "status", "found", "expected", "fix"} for check in found.values())
    assert all(check["fix"] for check in found.values() if check["status"] != "ok")


@pytest.mark.e2e
def test_the_real_registration_is_seen(stubs: Path) -> None:
    check = _plugin_in_the_host()
    assert check.status == "ok", check.found


@pytest.mark.e2e
def test_llamafactory_is_missing(stubs: Path, tmp_path: Path) -> None:
    (stubs / "sitecustomize.py").write_text(
        "import sys, importlib.metadata as metadata\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('llamafactory', 'torch'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "real = metadata.Distribution.from_name.__func__\n"
        "def from_name(cls, name):\n"
        "    if name in ('llamafactory', 'torch'): raise metadata.PackageNotFoundError(name)\n"
        "    return real(cls, name)\n"
        "metadata.Distribution.from_name = classmethod(from_name)\n"
    )
    found = _run_doctor(tmp_path, 1)
    assert found["llamafactory"]["found"] == "not installed"
    assert found["llamafactory"]["fix"].startswith('pip install "llamafactory')
    assert "No module named 'llamafactory" in found["host import"]["found"]
    assert found["torch import"]["status"] == "fail"
    assert found["decoder av"]["status"] == "ok", "what does not need the missing package is still examined"


def _copy_real_requirements(stubs: Path) -> None:
    """Metadata with the requirements of setup.cfg, as an installation writes them."""
    import configparser

    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[2] / "setup.cfg")
    lines = [line for line in settings["options"]["install_requires"].splitlines() if line.strip()]
    text = "Metadata-Version: 2.1\nName: hound-plugin\nVersion: 0.1.0\n"
    text += f"Requires-Python: {settings['options']['python_requires']}\n"
    text += "".join(f"Requires-Dist: {line}\n" for line in lines if not line.lstrip().startswith("#"))
    (stubs / "hound_plugin-0.1.0.dist-info" / "METADATA").write_text(text)


# --- switches and activation


def test_disabled(stubs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUND_PLUGIN_DISABLE", "1")
    switches = _by_name(activation.check_switches())
    assert switches["HOUND_PLUGIN_DISABLE"].status == "fail"
    assert switches["HOUND_PLUGIN_DISABLE"].fix == "unset HOUND_PLUGIN_DISABLE"
    plugin = _plugin_in_the_host()
    assert plugin.found == "switched off by HOUND_PLUGIN_DISABLE"


def test_torch_loads_no_plugins(stubs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    switches = _by_name(activation.check_switches())
    assert switches["TORCH_DEVICE_BACKEND_AUTOLOAD"].status == "fail"
    plugin = _plugin_in_the_host()
    assert plugin.status == "fail"
    assert "not activated" in plugin.found


def test_registration_that_fails_is_named(stubs: Path) -> None:
    (stubs / "sitecustomize.py").write_text(
        "import sys, types\nmodule = types.ModuleType('hound_plugin.host.register')\n"
        "def register_for(name): raise RuntimeError('a fault')\n"
        "module.register_for = register_for\nsys.modules[module.__name__] = module\n"
    )
    plugin = _plugin_in_the_host()
    assert plugin.found == "registration failed: RuntimeError: a fault"


def test_two_distributions_with_our_entry_point(stubs: Path) -> None:
    other = stubs / "hound_old-0.0.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: hound-old\nVersion: 0.0.9\n")
    (other / "entry_points.txt").write_text("[torch.backends]\nold = hound_plugin.host.autoload:activate\n")
    point = _by_name(activation.check_switches())["entry point"]
    assert point.status == "warn"
    assert "hound-old 0.0.9" in point.found
    assert "hound-plugin 0.1.0" in point.found


def test_no_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = child.Stage(True, [])
    monkeypatch.setattr(activation, "run_script", lambda *_, **__: child.Outcome({"entry points": stage}))
    point = _by_name(activation.check_switches())["entry point"]
    assert point.status == "fail"
    assert "pip install" in point.fix


# --- torch and decoders


def test_torchaudio_of_another_release(stubs: Path) -> None:
    (stubs / "torchaudio.py").write_text(
        "raise OSError('Could not load this library: libtorchaudio.so')  # as the real mismatch does\n"
    )
    checks = _by_name(runtime.check_torch())
    assert checks["torch import"].status == "ok"
    assert checks["torchaudio import"].status == "fail"
    assert "libtorchaudio.so" in checks["torchaudio import"].found
    assert "torchaudio==2.11.0" in checks["torchaudio import"].fix


def test_a_protobuf_that_is_too_old_for_sentencepiece(stubs: Path) -> None:
    package = stubs / "sentencepiece"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '0.2.3'\n")
    (package / "sentencepiece_model_pb2.py").write_text(
        "from google.protobuf import runtime_version\n"  # as its generated code does, with the version of the future
        "runtime_version.ValidateProtobufRuntimeVersion(\n"
        "    runtime_version.Domain.PUBLIC, 99, 0, 0, '', 'sentencepiece_model.proto')\n"
    )
    (check,) = runtime.check_tokenizer()
    assert check.status == "warn"
    assert "VersionError" in check.found
    assert "sentencepiece<0.2.3" in check.fix


def test_the_sentencepiece_that_is_installed_works() -> None:
    (check,) = runtime.check_tokenizer()
    assert check.status == "ok", check.found


def test_a_crash_keeps_what_came_before_it(stubs: Path) -> None:
    (stubs / "torchvision.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    checks = _by_name(runtime.check_torch())
    assert checks["torch import"].status == "ok"
    assert checks["torchvision import"].found == "the process crashed with signal 11"


def test_another_backend_breaks_torch(stubs: Path) -> None:
    other = stubs / "bad_backend-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-backend\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[torch.backends]\nbad_backend = no_such_module:go\n")
    check = _by_name(runtime.check_torch())["torch import"]
    assert check.status == "fail"
    assert "bad_backend" in check.found


def test_one_broken_decoder_is_a_warning(stubs: Path) -> None:
    (stubs / "decord.py").write_text("raise OSError('libavcodec.so: cannot open shared object file')\n")
    checks = _by_name(runtime.check_decoders())
    assert checks["decoder decord"].status == "warn"
    assert checks["decoder av"].status == "ok"


def test_all_decoders_broken_is_a_failure() -> None:
    check = runtime._check_decoder("decord", child.Stage(False, error="OSError: x"), [])
    assert check.status == "fail"


def _gpu(**facts: Any) -> Check:
    return runtime._check_gpu(child.Outcome({"gpu": child.Stage(True, facts)}), "13.0")


def test_gpu_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    device = {"name": "H100", "memory": 80 * 2**30, "major": 9}
    assert _gpu(devices=[device], bf16=True) == Check("GPU", "ok", "H100 80 GiB, bfloat16")
    assert "fp16" in _gpu(devices=[device], bf16=False).fix
    monkeypatch.setattr(runtime, "nvidia_driver", lambda: "470.1")
    assert "update the NVIDIA driver" in _gpu(devices=[], bf16=False).fix
    monkeypatch.setattr(runtime, "nvidia_driver", lambda: "")
    assert "runs on CPU" in _gpu(devices=[], bf16=False).found


def test_a_hanging_probe_ends() -> None:
    outcome = child.run_script("report('first', ok=True)\nimport time\ntime.sleep(60)", timeout=2)
    assert outcome.stage("first").ok
    assert outcome.stage("second").error == "no answer within 2 s"


# --- versions


def test_version_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("transformers", "5.6.0"), ("torch", "2.15.0"), ("torchaudio", "2.11.1"), ("trl", "0.30.0")):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    checks = _by_name(versions.check_versions())
    assert checks["transformers"].status == "fail"
    assert "broken" in checks["transformers"].found
    assert "torchaudio" in checks["torch"].found
    assert "torch 2.11" in checks["torchaudio"].found
    assert checks["trl"].status == "fail"
    assert checks["trl"].fix.startswith('pip install "trl')
    assert checks["datasets"].status == "ok"


def test_own_metadata_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "DISTRIBUTION", "hound-plugin-that-nobody-installed")
    checks = _by_name(versions.check_versions())
    assert checks["installed"].status == "fail"
    assert checks["llamafactory"].status == "ok"


def test_a_package_that_only_other_machines_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "hound_plugin-0.1.0.dist-info"
    info.mkdir()
    requires = 'Requires-Dist: decord==0.6.0; platform_machine == "vax"\n'
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hound-plugin\nVersion: 0.1.0\n" + requires)
    monkeypatch.syspath_prepend(tmp_path)
    real = versions._version
    monkeypatch.setattr(versions, "_version", lambda name: None if name in ("decord", "av") else real(name))
    checks = _by_name(versions.check_versions())
    assert (checks["decord"].status, checks["decord"].found) == ("ok", "not needed on this platform")
    assert checks["av"].status == "fail"


def test_python_outside_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_own_python_bound", lambda: ">=3.99")
    check = _by_name(versions.check_versions())["Python"]
    assert check.status == "fail"
    assert check.expected == ">=3.99"


# --- machine and presentation


def test_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "there"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3 * 2**30}))
    monkeypatch.setattr(machine, "_memory_limit", lambda: 4.0 * 2**30)
    checks = _by_name(machine.check_machine())
    assert checks["disk"].found == f"3 GiB free for {tmp_path}/not/there/hub"
    assert checks["memory"].status == "warn"


def test_locks_of_builds_that_were_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh lock is a build under way."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    old, fresh = tmp_path / "py311_cu130" / "old_op" / "lock", tmp_path / "py311_cu130" / "new_op" / "lock"
    for lock in (old, fresh):
        lock.parent.mkdir(parents=True)
        lock.touch()
    assert "extension builds" not in _by_name(machine.check_machine())
    os.utime(old, (time.time() - 3600,) * 2)
    check = _by_name(machine.check_machine())["extension builds"]
    assert check.status == "warn"
    assert check.fix.endswith(f"rm {old}")
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    assert "extension builds" not in _by_name(machine.check_machine())


def test_a_check_that_breaks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Check]:
        raise KeyError("surprise")

    monkeypatch.setattr(doctor, "_SECTIONS", (("versions", broken),))
    checks = doctor.examine()
    assert [check.status for check in checks] == ["fail"]
    assert "KeyError: 'surprise'" in checks[0].found


def test_each_check_is_shown_as_soon_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    first_is_shown = threading.Event()

    def slow() -> Iterator[Check]:
        yield Check("early", "ok", "1")
        assert first_is_shown.wait(20), "nothing is shown before the section ends"
        yield Check("late", "ok", "2")

    def show(check: Check) -> None:
        shown.append(check.name)
        first_is_shown.set()

    monkeypatch.setattr(doctor, "_SECTIONS", (("plugin", slow), ("machine", lambda: [Check("quick", "ok", "3")])))
    checks = doctor.examine(show=show)
    assert [check.name for check in checks] == ["early", "late", "quick"], "the result keeps its order"
    assert sorted(shown) == ["early", "late", "quick"]
    assert shown.index("early") < shown.index("late")


def test_a_stage_is_there_before_its_child_has_ended() -> None:
    start = time.monotonic()
    script = "report('first', ok=True, facts=1)\nimport time\ntime.sleep(4)\nreport('second', ok=True)"
    outcome = child.run_script(script)
    assert outcome.stage("first").facts == 1
    assert time.monotonic() - start < 4
    assert outcome.stage("second").ok
    assert outcome.stage("third").error == "not reached"


def test_text_shows_the_fix_under_the_problem() -> None:
    checks = [Check("a", "ok", "1"), Check("b", "warn", "2", "3", "do this"), Check("c", "fail", "4", "5", "do that")]
    lines = doctor.to_text(checks).splitlines()
    assert lines[0] == "ok    a  1"
    assert lines[1] == "warn  b  2 (expected 3)"
    assert lines[2].strip() == "-> do this"
    assert lines[3].startswith("FAIL  c  4 (expected 5)")
    assert lines[-1] == "1 problem(s) to solve, 1 warning(s)."
    assert doctor.exit_code(checks) == 1
    assert doctor.exit_code(checks[:2]) == 0
    assert json.loads(doctor.to_json(checks))["status"] == "fail"


# --- settings that save work


PATCHED = "patches: trainers"


def _saved_work(facts: list[dict[str, Any]], **variables: str) -> dict[str, Check]:
    outcome = child.Outcome({PATCHED: child.Stage(True, facts)})
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HOUND_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        return _by_name(saved_work.check_saved_work(outcome))


def test_what_is_active_and_why_not() -> None:
    checks = _saved_work([])
    assert checks.keys() == {
        "prefix_sharing",
        "answers_only",
        "reference_log_probs",
        "feature_cache",
        "group_questions",
    }
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["prefix_sharing"].found.startswith("active in DPO")
    assert checks["reference_log_probs"].found.startswith(
        "not active: off until it is set, as `hound.reference_log_probs=FILE`"
    )
    checks = _saved_work([], HOUND_ANSWERS_ONLY="off", HOUND_REFERENCE_LOG_PROBS="saves/reference.jsonl")
    assert checks["prefix_sharing"].found == "not active: answers_only is off by HOUND_ANSWERS_ONLY"
    assert checks["answers_only"].found == "not active: answers_only is off by HOUND_ANSWERS_ONLY"
    assert checks["reference_log_probs"].found == "active in DPO and KTO"


def test_what_the_host_lacks_is_not_active() -> None:
    name = "llamafactory.train.dpo.workflow:create_ref_model"
    checks = _saved_work([{"names": [name], "problem": f"`{name}` is not there"}])
    assert checks["reference_log_probs"].status == "warn"
    assert f"`{name}` is not there" in checks["reference_log_probs"].found
    assert checks["prefix_sharing"].status == "ok"
    broken = _by_name(saved_work.check_saved_work(child.Outcome(ending="the process crashed")))
    assert all("the process crashed" in check.found for check in broken.values())


def test_a_bad_variable_is_named_beside_what_is_active() -> None:
    checks = _saved_work([], HOUND_PREFIX_SHARING="maybe")
    assert "expected one of auto, off; got 'maybe'" in checks["settings"].found
    assert checks["answers_only"].status == "ok"


def test_every_name_that_is_needed_is_patched() -> None:
    from hound_plugin.host.patches import ENTRIES

    patched = {name for entry in ENTRIES for name in entry.names}
    for saving in saved_work.SAVINGS.values():
        assert set(saving.needs) <= patched
