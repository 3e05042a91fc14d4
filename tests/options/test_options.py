"""Every row of the table of options, run by the host in one process on the recorded checkpoint."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from llamafactory.chat import ChatModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import hound_plugin
from hound_plugin.model.key_mapping import to_ours
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import SYSTEM
from tests.e2e.conftest import data_sets, recipe_for
from tests.e2e.together import Outcome, run_together
from tests.goldens import SFT, rows
from tests.host.hosting import REPO, write_dataset, write_yaml
from tests.options.meanings import SECTIONS
from tests.options.option import (
    CLIP,
    OWN_SYSTEM,
    PLAIN_LOSS,
    WORK,
    Chat,
    Export,
    Option,
    Page,
    Row,
    serving_values,
)
from tests.options.page import page_arguments
from tests.options.rows import BEFORE, ROWS, TRAINED

pytestmark = pytest.mark.e2e
DOCS = REPO / "docs"
NO_GPU = ("bf16 without a GPU", "pure_bf16 without a GPU", "fp8 without a GPU", "use_unsloth_gc without a GPU")
BASELINES = ("full", "lora, projector")
Outcomes = dict[str, Outcome]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = data_sets(tmp_path_factory.mktemp("options"))
    question = {"from": "human", "value": "What is a clip?"}
    texts = [
        {"id": str(number), "conversations": [question, {"from": "gpt", "value": f"Answer {number}."}]}
        for number in range(4)
    ]
    write_dataset(folder / "data", "text", texts)
    twice = [{**row, "conversations": again(row["conversations"])} for row in rows("sft.jsonl") if "video" in row][:4]
    write_dataset(folder / "data", "twice", twice)
    write_dataset(folder / "data", "as_text", rows("dpo.jsonl"), ranking="true")
    write_dataset(folder / "data", "as_list", rows("sft.jsonl"), columns=["video"])
    adapter(folder / "not_finite_adapter")
    widened(folder / "wide")
    spoilt(folder / "wide", folder / "damaged", without_time)
    spoilt(folder / "wide", folder / "not_finite", not_finite)
    return folder


def run_all(work: Path, long: bool) -> Outcomes:
    """Trainings first, then exports, then chats: a row may use what the ones before it have made."""
    chosen = {name: row for name, row in ROWS.items() if row.long == long or (long and name in BASELINES)}
    used = {used for name in chosen for used in BEFORE.get(name, ())}
    chosen = {**{name: TRAINED[name] for name in TRAINED if name in used}, **chosen}
    stages = [[name for name, row in chosen.items() if isinstance(row, kind)] for kind in (Option, Export, Chat)]
    commands = {name: command(work, name, chosen[name]) for names in stages for name in names}
    return run_together(work, commands, timeout=1800 if long else 580)


def command(work: Path, name: str, row: Row) -> list[str]:
    """Arguments of ``several.py`` for a row."""
    file = work / f"{row.kind}-{folder_of(name)}.yaml"
    if isinstance(row, Option):
        given = placed(work, row.values)
        if isinstance(row, Page):
            values = page_arguments(given, work, folder_of(name))
        else:
            values = recipe_for(work)(row.stage, folder_of(name), **{"max_steps": 2, **given})
        return [str(write_yaml(file, values)), f"output_dir={values['output_dir']}"]
    values = placed(work, serving_values(row))
    if isinstance(row, Export):
        folder = values.pop("export_dir", str(work / "exports" / folder_of(name)))
        return [str(write_yaml(file, values)), f"export_dir={folder}", "command=export"]
    messages = [{"role": "user", "content": "<video>\nWhat happens?"}]
    asked = {"messages": messages, "videos": [CLIP], **(row.asked or {})}
    return [str(write_yaml(file, values)), "command=chat", f"ask={json.dumps([asked])}"]


def folder_of(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def placed(work: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Values with the folder of this run's files."""
    return {key: value.replace(WORK, str(work)) if isinstance(value, str) else value for key, value in values.items()}


def again(conversation: list[dict[str, str]]) -> list[dict[str, str]]:
    """The first question names its clip a second time."""
    first, *others = conversation
    return [{**first, "value": f"{first['value']} <video>"}, *others]


def adapter(folder: Path) -> None:
    """An adapter of the recorded checkpoint, with infinity in its last tensor."""
    base = LlavaHoundForConditionalGeneration.from_pretrained(SFT)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"]))
    with torch.no_grad():
        [value for name, value in adapted.named_parameters() if "lora_B" in name][-1][0, 0] = float("inf")
    adapted.save_pretrained(folder)


def widened(folder: Path) -> None:
    """Save the recorded checkpoint with 192 instead of 160 hidden units; the new ones are zeros, and change nothing."""
    model = LlavaHoundForConditionalGeneration.from_pretrained(SFT)
    text = model.config.get_text_config()
    more = 192 - text.intermediate_size
    for layer in model.model.language_model.layers:
        for name, pad in (("gate_proj", (0, 0, 0, more)), ("up_proj", (0, 0, 0, more)), ("down_proj", (0, more))):
            linear = getattr(layer.mlp, name)
            linear.weight = torch.nn.Parameter(torch.nn.functional.pad(linear.weight.data, pad))
    text.intermediate_size = 192
    model.save_pretrained(folder)
    LlavaHoundProcessor.from_pretrained(SFT).save_pretrained(folder)


def spoilt(whole: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Copy a checkpoint with other weights in its file."""
    shutil.copytree(whole, folder)
    save_file(change(weights_of(folder)), folder / "model.safetensors", {"format": "pt"})


def without_time(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if "temporal" not in name}


def not_finite(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights["lm_head.weight"][5, 3] = float("nan")
    return weights


@pytest.fixture(scope="module")
def quick(work: Path) -> Outcomes:
    return run_all(work, long=False)


@pytest.fixture(scope="module")
def slow(work: Path) -> Outcomes:
    return run_all(work, long=True)


def check(name: str, outcomes: Outcomes) -> None:
    row, outcome = ROWS[name], outcomes[name]
    if row.refused is not None:
        assert outcome.failed
        assert re.search(row.refused, outcome.output, re.DOTALL), outcome.output[-3000:]
        assert ("hound_plugin.errors." in outcome.output) != row.by_host
        return
    assert not outcome.failed, outcome.output[-5000:]
    if isinstance(row, Option):
        check_training(row, outcome, outcomes)
    elif isinstance(row, Export):
        check_export(row, outcome, outcomes)
    else:
        check_chat(row, outcome, outcomes)


def check_training(option: Option, outcome: Outcome, outcomes: Outcomes) -> None:
    losses = outcome.losses if option.trains else []
    assert all(loss == loss and loss != 0 for loss in losses)
    first = PLAIN_LOSS if option.later_steps else option.first_loss
    if first is not None:
        assert losses[0] == pytest.approx(first, abs=2e-5)
    if option.later_steps is not None:
        lora = option.values.get("finetuning_type") == "lora"
        plain = outcomes["lora, projector" if lora else "full"].losses
        assert len(losses) == len(plain)
        assert (losses == pytest.approx(plain, abs=2e-5)) == (option.later_steps == "same"), (losses, plain)
    if option.says is not None:
        assert re.search(option.says, outcome.output), outcome.output[-3000:]
    check_files(option.files, outcome.folder)
    if option.trained is not None:
        assert changed_parts(outcome.folder) == option.trained


def check_files(patterns: tuple[str, ...], folder: Path) -> None:
    for pattern in patterns:
        found = list(folder.glob(pattern.removeprefix("!")))
        assert bool(found) != pattern.startswith("!"), f"{pattern}: {sorted(path.name for path in folder.iterdir())}"


def check_export(export: Export, outcome: Outcome, outcomes: Outcomes) -> None:
    weights = weights_of(outcome.folder)
    if export.dtype is not None:
        assert {str(weight.dtype) for weight in weights.values()} == {f"torch.{export.dtype}"}
    if export.weights_of is not None:
        expected = weights_of(outcomes[export.weights_of].folder)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in weights)
    if export.changed is not None:
        assert changed_parts(outcome.folder) == export.changed
    if export.system is not None:
        assert LlavaHoundProcessor.from_pretrained(outcome.folder).system == export.system
    check_files(export.files, outcome.folder)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def check_chat(chat: Chat, outcome: Outcome, outcomes: Outcomes) -> None:
    ((text, tokens),) = outcome.answers
    if chat.dtype is not None:
        assert f'=== LOADED ["torch.{chat.dtype}"]' in outcome.output
    if chat.same is not None:
        assert text == outcomes[chat.same].answers[0][0]
    if chat.other is not None:
        assert text != outcomes[chat.other].answers[0][0]
    if chat.tokens is not None:
        assert tokens == chat.tokens
    if chat.answer is not None:
        assert re.search(chat.answer, text), text
    if chat.says is not None:
        assert re.search(chat.says, outcome.output), outcome.output[-3000:]


def changed_parts(folder: Path) -> frozenset[str]:
    """Parts of the model that differ from the start, or that an adapter changes."""
    if (folder / "adapter_model.safetensors").exists():
        weights = load_file(folder / "adapter_model.safetensors")
        changed = [key for key, value in weights.items() if "lora_A" not in key and value.abs().max() > 0]
    else:
        weights = weights_of(folder)
        before = load_file(SFT / "model.safetensors")
        names = to_ours(list(before))
        start = {names.get(key, key): value for key, value in before.items()}
        changed = [key for key, value in weights.items() if key in start and not torch.equal(value, start[key])]
    parts = {"image_tower": "image_tower", "video_tower": "video_tower", "multi_modal_projector": "projector"}
    return frozenset(next((part for name, part in parts.items() if name in key), "language_model") for key in changed)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.long])
def test_option(name: str, quick: Outcomes) -> None:
    if name in NO_GPU and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    check(name, quick)


@pytest.mark.long
@pytest.mark.timeout(1900)
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.long])
def test_slow_option(name: str, slow: Outcomes) -> None:
    check(name, slow)


@pytest.mark.parametrize(("loss", "formula"), [("hinge", "hinge"), ("ipo", "ipo")])
def test_a_loss_follows_its_formula_where_margins_are_not_zero(loss: str, formula: str, quick: Outcomes) -> None:
    """The trainer logs ``beta * margin`` of each row (batch 1, no learning)."""
    beta = 0.1
    for row in quick[f"pref_loss: {loss}, moved"].steps:
        margin = row["rewards/margins"]
        assert abs(margin) > 1e-4
        expected = max(0.0, 1 - margin) if formula == "hinge" else (margin / beta - 1 / (2 * beta)) ** 2
        assert row["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["default_system", "default_system, lora"])
def test_a_model_remembers_its_system_prompt(name: str, quick: Outcomes) -> None:
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
    assert sorted(named) == sorted(ROWS), "every option has a meaning, and no more"
    page = runpy.run_path(str(DOCS / "write_options.py"))
    assert (DOCS / "options.md").read_text(encoding="utf-8") == page["page"](), "run `python docs/write_options.py`"
