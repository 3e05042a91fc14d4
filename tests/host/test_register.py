"""Whatever is imported first, transformers and the host know LLaVA-Hound in the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.goldens import HUB, SFT
from tests.host.hosting import REPO

CHECK = f"""
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
assert type(AutoConfig.from_pretrained({str(SFT)!r})).__name__ == "LlavaHoundConfig"
assert type(AutoProcessor.from_pretrained({str(SFT)!r})).__name__ == "LlavaHoundProcessor"
assert type(AutoModelForImageTextToText.from_pretrained({str(SFT)!r})).__name__.startswith("LlavaHound")
"""
FIRST = [
    "import hound_plugin",
    "import transformers, hound_plugin",
    "from transformers import AutoModelForImageTextToText; import hound_plugin",
    "import torch",
    "import hound_plugin; from transformers import AutoProcessor",
    "from transformers import AutoProcessor",
    "from transformers import AutoTokenizer, AutoModelForCausalLM",
    "from hound_plugin.model.configuration import LlavaHoundConfig",
    "from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration",
    "from hound_plugin.processing.processor import LlavaHoundProcessor",
    "from hound_plugin.model.inference import load",
    "from hound_plugin.model.conversion import convert",
    "from hound_plugin.processing.prompt import Turn",
    "from hound_plugin.host.compat import split_arguments",
]


@pytest.mark.parametrize("first", FIRST)
def test_any_first_import_is_fine(first: str) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(HUB), "PATH": "", "HOME": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{CHECK}"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not active" not in done.stderr
