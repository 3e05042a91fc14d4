"""Every option of the table, run by the host in one process on the recorded checkpoint."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch
from llamafactory.chat import ChatModel
from safetensors.torch import load_file
from transformers import AutoTokenizer

import hound_plugin
from hound_plugin.model.key_mapping import to_ours
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import SYSTEM
from tests.e2e.conftest import data_sets, recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import SFT
from tests.host.hosting import REPO
from tests.options.meanings import SECTIONS
from tests.options.table import OPTIONS, OWN_SYSTEM, Option

pytestmark = pytest.mark.e2e
DOCS = REPO / "docs"
NO_GPU = ("bf16 without a GPU", "use_unsloth_gc without a GPU")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_sets(tmp_path_factory.mktemp("options"))


def run_all(work: Path, long: bool) -> dict[str, Outcome]:
    recipe = recipe_for(work)
    chosen = {name: option for name, option in OPTIONS.items() if option.long == long}
    folders = {name: re.sub(r"\W+", "_", name) for name in chosen}
    return train_together(
        work,
        {name: recipe(o.stage, folders[name], **{"max_steps": 2, **o.values}) for name, o in chosen.items()},
        timeout=1500 if long else 580,
    )


@pytest.fixture(scope="module")
def quick(work: Path) -> dict[str, Outcome]:
    return run_all(work, long=False)


@pytest.fixture(scope="module")
def slow(work: Path) -> dict[str, Outcome]:
    return run_all(work, long=True)


def check(option: Option, outcome: Outcome) -> None:
    if option.refused is not None:
        assert outcome.failed
        assert re.search(option.refused, outcome.output, re.DOTALL), outcome.output[-3000:]
        assert "hound_plugin.errors." in outcome.output
        return
    losses = outcome.losses
    assert all(loss == loss and loss != 0 for loss in losses)
    if option.first_loss is not None:
        assert losses[0] == pytest.approx(option.first_loss, abs=2e-5)
    if option.says is not None:
        assert re.search(option.says, outcome.output), outcome.output[-3000:]
    if option.trained is not None:
        assert changed_parts(outcome.folder) == option.trained


def changed_parts(folder: Path) -> frozenset[str]:
    """Parts of the model that differ from the start, or that an adapter changes."""
    if (folder / "adapter_model.safetensors").exists():
        weights = load_file(folder / "adapter_model.safetensors")
        changed = [key for key, value in weights.items() if "lora_A" not in key and value.abs().max() > 0]
    else:
        weights = load_file(folder / "model.safetensors")
        before = load_file(SFT / "model.safetensors")
        names = to_ours(list(before))
        start = {names.get(key, key): value for key, value in before.items()}
        changed = [key for key, value in weights.items() if key in start and not torch.equal(value, start[key])]
    parts = {"image_tower": "image_tower", "video_tower": "video_tower", "multi_modal_projector": "projector"}
    return frozenset(next((part for name, part in parts.items() if name in key), "language_model") for key in changed)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.long])
def test_option(name: str, quick: dict[str, Outcome]) -> None:
    if name in NO_GPU and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    check(OPTIONS[name], quick[name])


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.long])
def test_slow_option(name: str, slow: dict[str, Outcome]) -> None:
    check(OPTIONS[name], slow[name])


@pytest.mark.parametrize(("loss", "formula"), [("hinge", "hinge"), ("ipo", "ipo")])
def test_a_loss_follows_its_formula_where_margins_are_not_zero(
    loss: str, formula: str, quick: dict[str, Outcome]
) -> None:
    """The trainer logs ``beta * margin`` of each row (batch 1, no learning)."""
    beta = 0.1
    for row in quick[f"pref_loss: {loss}, moved"].steps:
        margin = row["rewards/margins"]
        assert abs(margin) > 1e-4
        expected = max(0.0, 1 - margin) if formula == "hinge" else (margin / beta - 1 / (2 * beta)) ** 2
        assert row["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["default_system", "default_system, lora"])
def test_a_model_remembers_its_system_prompt(name: str, quick: dict[str, Outcome]) -> None:
    """In the processor, in the tokenizer's chat template, and in the host's chat."""
    folder = quick[name].folder
    assert LlavaHoundProcessor.from_pretrained(SFT).system == SYSTEM
    adapter = {"adapter_name_or_path": str(folder)} if name.endswith("lora") else {}
    model = SFT if adapter else folder
    if not adapter:
        assert LlavaHoundProcessor.from_pretrained(folder).system == OWN_SYSTEM
        assert hound_plugin.load(str(folder)).processor.system == OWN_SYSTEM
    messages = [{"role": "system", "content": [{"type": "text", "text": "Parts."}]}, {"role": "user", "content": "Q?"}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<s>Parts. USER: Q? ASSISTANT:"
    assert tokenizer.apply_chat_template(messages[1:], tokenize=False) == f"<s>{OWN_SYSTEM} USER: Q? ASSISTANT:"
    values = {"model_name_or_path": str(model), "template": "llava_hound", "infer_dtype": "float32", **adapter}
    engine = ChatModel(values).engine
    assert engine.template.default_system == OWN_SYSTEM
    assert ChatModel({**values, "default_system": "Another."}).engine.template.default_system == "Another."


def test_the_page_of_options_is_the_table() -> None:
    named = [name for meanings in SECTIONS.values() for name in meanings]
    assert sorted(named) == sorted(OPTIONS), "every option has a meaning, and no more"
    page = runpy.run_path(str(DOCS / "write_options.py"))
    assert (DOCS / "options.md").read_text(encoding="utf-8") == page["page"](), "run `python docs/write_options.py`"
