"""The processor's chat template against the host's own encoding of the same conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.host.hosting import write_dataset
from tests.host.test_pipeline import Host
from tests.processing.conversations import CONVERSATIONS

TRAINED = [name for name in CONVERSATIONS if name != "a clip and an image"]  # a row has one kind of media


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, dict[str, Any]]:
    """What the host trains on, by the conversation's name."""
    import datasets

    folder = tmp_path_factory.mktemp("chat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        host = Host(folder)
        rows = [{"id": name, "messages": CONVERSATIONS[name]} for name in TRAINED]
        write_dataset(folder / "data", "chat", rows)
        loaded = host.load("sft", "chat", cutoff_len=8192)
        return host, dict(zip(TRAINED, loaded, strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_the_tokens_are_those_of_training(name: str, trained: tuple[Host, dict[str, Any]]) -> None:
    host, rows = trained
    inputs = host.processor.apply_chat_template(
        CONVERSATIONS[name], tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors=None
    )
    (ids,), (mask,) = inputs["input_ids"], inputs["assistant_masks"]
    assert ids == rows[name]["input_ids"]
    learnt = [token if answers else -100 for token, answers in zip(ids, mask, strict=True)]
    assert learnt == rows[name]["labels"]
    shown = {"videos": len(rows[name]["videos"] or []), "images": len(rows[name]["images"] or [])}
    assert {kind: len(inputs.get(f"pixel_values_{kind}", [])) for kind in shown} == shown


def test_the_system_prompt_of_a_recipe_is_trained_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    host, messages = Host(tmp_path), CONVERSATIONS["several turns"]
    write_dataset(tmp_path / "data", "chat", [{"messages": messages}])
    (row,) = host.load("sft", "chat", default_system="Answer in one word.")
    assert host.processor.apply_chat_template(messages, tokenize=True).tolist() == [row["input_ids"]]
