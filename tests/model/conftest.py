from __future__ import annotations

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

import hound_plugin  # noqa: F401  (registers the architecture)
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor
from tests.goldens import DPO, SFT


@pytest.fixture(scope="session")
def processor() -> LlavaHoundProcessor:
    return AutoProcessor.from_pretrained(SFT)


@pytest.fixture(scope="session")
def reference() -> LlavaHoundForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(SFT, attn_implementation="eager")


@pytest.fixture(scope="session")
def policy() -> LlavaHoundForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(DPO, attn_implementation="eager")
