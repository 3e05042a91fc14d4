"""Whatever is imported first, transformers and the host know LLaVA-Hound in the end."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.goldens import HUB, SFT
from tests.host.hosting import REPO

CHECK = f"""
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
assert type(AutoConfig.from_pretrained({str(SFT)!r})).__name__ == "LlavaHoundConfig"
assert type(AutoProcessor.from_pretrained({str(SFT)!r})).__name__ == "LlavaHoundProcessor"
assert type(AutoModelForImageTextToText.from_pretrained({str(SFT)!r})).__name__.startswith("LlavaHound")
"""
HUB_ID = "ShareGPTVideo/LLaVA-Hound-SFT"


def test_a_hub_id_loads_like_a_folder(tmp_path: Path) -> None:
    """The released name, in a hub cache of the usual layout, with the towers beside it."""
    shutil.copytree(HUB, tmp_path / "hub")
    repository = tmp_path / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(SFT, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    script = f"""
import hound_plugin
by_id, by_folder = hound_plugin.load({HUB_ID!r}), hound_plugin.load({str(SFT)!r})
left, right = by_id.model.state_dict(), by_folder.model.state_dict()
assert all(left[name].equal(right[name]) for name in right)
print("same", by_id.processor.tokens_per_video)
"""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "same 392" in done.stdout, done.stderr[-3000:]


FIRST = [
    "import hound_plugin",
    "import transformers, hound_plugin",
    "from transformers import AutoModelForImageTextToText; import hound_plugin",
    "import torch",
    "import hound_plugin; from transformers import AutoProcessor",
    "from transformers import AutoProcessor",
    "from transformers import AutoTokenizer, AutoModelForCausalLM",
    "import torch; from transformers import LlamaForCausalLM",
    "import torch; from transformers import Trainer",
    "import torch; import transformers.modeling_layers",
    "import torch; import transformers.models.auto.processing_auto",
    "from hound_plugin.model.configuration import LlavaHoundConfig",
    "from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration",
    "from hound_plugin.processing.processor import LlavaHoundProcessor",
    "from hound_plugin.model.inference import load",
    "from hound_plugin.model.checkpoint_conversion import convert",
    "from hound_plugin.processing.prompt import Turn",
    "from hound_plugin.host.settings_state import split_arguments",
]


QUICK = {
    "import hound_plugin",
    "import torch",
    "from transformers import AutoProcessor",
    "import torch; from transformers import LlamaForCausalLM",
    "from hound_plugin.model.inference import load",
}


def test_what_is_run_at_every_change_is_in_the_list() -> None:
    assert set(FIRST) >= QUICK


@pytest.mark.parametrize(
    "first", [item if item in QUICK else pytest.param(item, marks=pytest.mark.long) for item in FIRST]
)
def test_any_first_import_is_fine(first: str) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(HUB), "PATH": "", "HOME": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{CHECK}"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not active" not in done.stderr


OURS = [
    f"hound_plugin.host.{'.'.join(file.relative_to(REPO / 'hound_plugin' / 'host').with_suffix('').parts)}"
    for file in sorted((REPO / "hound_plugin" / "host").rglob("*.py"))
    if file.name != "__init__.py"
]
QUICK_OURS = ("hound_plugin.host.mm_plugin", "hound_plugin.host.serve.terminal_chat")


@pytest.mark.parametrize(
    "first", [item if item in QUICK_OURS else pytest.param(item, marks=pytest.mark.long) for item in OURS]
)
def test_a_module_of_ours_may_be_the_first_to_import_the_host(first: str) -> None:
    script = f"""
import {first}
from llamafactory.data.template import TEMPLATES
from llamafactory.data.mm_plugin import PLUGINS
from llamafactory.data.converter import DATASET_CONVERTERS
from hound_plugin.host import autoload, patching
assert "llava_hound" in TEMPLATES and "llava_hound" in PLUGINS and "hound" in DATASET_CONVERTERS
assert autoload.state()["error"] is None and not autoload.state()["pending"], autoload.state()
assert patching.missing() == []
import sys
from hound_plugin.host.patches import Patch, entries_of
from llamafactory.data import get_dataset
modules = [module for name, module in sys.modules.items() if name.startswith("llamafactory")]
for entry in [entry for module in modules for entry in entries_of(module.__name__) if isinstance(entry, Patch)]:
    original = getattr(getattr(sys.modules[entry.module], entry.target, None), "__wrapped__", None)
    if getattr(original, "__module__", None) == entry.module:  # else it is patched where it is used alone
        assert all(getattr(module, entry.target, None) is not original for module in modules), entry.target
assert hasattr(get_dataset, "__wrapped__")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not active" not in done.stderr


@pytest.mark.parametrize(
    ("efficient", "method", "reference", "refused"),
    [
        ("true", "full", True, True),
        ("false", "full", True, False),
        ("true", "lora", True, False),
        ("true", "full", False, False),
    ],
)
def test_fsdp_with_an_empty_reference_is_refused(
    monkeypatch: pytest.MonkeyPatch, efficient: str, method: str, reference: bool, refused: bool
) -> None:
    from types import SimpleNamespace

    from hound_plugin.errors import SettingsError
    from hound_plugin.host.model_loading import check_fsdp

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", efficient)
    arguments = SimpleNamespace(use_ref_model=reference, finetuning_type=method, ref_model=None)
    if refused:
        with pytest.raises(SettingsError, match="fsdp_cpu_ram_efficient_loading: false"):
            check_fsdp(arguments)
    else:
        check_fsdp(arguments)


@pytest.mark.parametrize(
    ("package", "installed", "bounds"),
    [
        ("llamafactory", "0.9.4", ">= 0.9.5 and < 0.10"),
        ("llamafactory", "0.10.0", ">= 0.9.5 and < 0.10"),
        ("llamafactory", "0.10.0.dev1", ">= 0.9.5 and < 0.10"),
        ("llamafactory", "0.9.5", None),
        ("llamafactory", "0.9.6.dev0", None),
        ("llamafactory", "0.9.12", None),
        ("transformers", "5.4.1", ">= 5.5"),
        ("transformers", "5.24.0", None),
    ],
)
def test_a_release_outside_the_range_is_refused_by_name(
    package: str, installed: str, bounds: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hound_plugin.errors import EnvironmentMismatchError
    from hound_plugin.host import register

    monkeypatch.setattr(register, "version", lambda name: installed)
    if bounds is None:
        register.check_version(package)
    else:
        message = f"Expected {package} {bounds} for hound_plugin, found {installed}. Run: pip install '{package}"
        with pytest.raises(EnvironmentMismatchError, match=re.escape(message)):
            register.check_version(package)
