"""Rows of a ``tokenized_path`` belong to the run that they were made for, and to that of a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.host import settings_state
from tests.goldens import DPO, SFT
from tests.host.hosting import media_folder, write_dataset
from tests.host.test_pipeline import Host
from tests.host.test_resume import ROWS, WHOLE, checkpoints, edited, rewritten


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_dataset(tmp_path / "data", "mine", ROWS)
    write_dataset(tmp_path / "data", "more", ROWS[:3])
    return Host(tmp_path)


def load(host: Host, name: str = "mine", stage: str = "sft", **changes: Any) -> Any:
    return host.load(stage, name, **{"tokenized_path": str(host.folder / "tokens"), **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cutoff_len": 2048}, "cutoff_len: 4096 there, 2048 now"),
        ({"hound": {"num_frames": 16}}, "tokens of a clip: 392 there, 784 now"),
        ({"default_system": "Be short."}, "system prompt: .* there, 'Be short.' now"),
        ({"train_on_prompt": True}, "train_on_prompt: False there, True now"),
        ({"name": "more"}, r"dataset: \['mine'\] there, \['more'\] now"),
        ({"max_samples": 2}, "max_samples: None there, 2 now"),
        ({"name": "kinds", "stage": "kto", "ref_model": str(DPO)}, "stage: 'sft' there, 'kto' now"),
    ],
)
def test_rows_that_were_made_for_other_settings_are_refused(changes: dict[str, Any], named: str, host: Host) -> None:
    load(host)
    with pytest.raises(DataError, match=rf"tokenised for this run in .*tokens .*{named}.*delete the folder"):
        load(host, **changes)
    assert len(load(host)) == 9


def test_other_media_and_another_tokenizer_are_refused(host: Host) -> None:
    load(host)
    with pytest.raises(DataError, match=r"media_dir: '.*media' there, '.*elsewhere' now"):
        load(host, media_dir=str(media_folder(host.folder / "elsewhere")))
    model = shutil.copytree(SFT, host.folder / "model")
    edited(model / "tokenizer_config.json", added_tokens_decoder={"31999": {"content": "<new>", "special": True}})
    with pytest.raises(DataError, match=r"tokenizer: '[0-9a-f]{12}' there"):
        load(host, model_name_or_path=str(model))


def test_rows_whose_file_changed_since_are_refused(host: Host) -> None:
    load(host)
    data = host.folder / "data" / "mine.jsonl"
    kept = data.read_bytes()
    rewritten(data, "one letter")
    with pytest.raises(DataError, match=r"the rows of 'mine', SHA-256 [0-9a-f]{12} there"):
        load(host)
    data.write_bytes(kept)
    os.utime(data)
    assert len(load(host)) == 9
    data.unlink()  # tokens do without
    assert len(load(host)) == 9


def start_once(host: Host) -> None:
    """A first start, which tokenises the rows and leaves a checkpoint."""
    load(host)
    output = host.folder / "out"
    output.mkdir(exist_ok=True)
    checkpoints(output, {2: WHOLE})
    (output / "checkpoint-2" / "hound_run.json").write_text(json.dumps(settings_state.run()))


def test_a_training_does_not_go_on_with_other_tokenised_rows(host: Host) -> None:
    """The first start makes them, the second one reads them."""
    start_once(host)
    assert set(settings_state.run()["rows"]) == {"mine", "tokenized_path"}
    assert len(load(host)) == 9
    shutil.rmtree(host.folder / "tokens")
    data = host.folder / "data" / "mine.jsonl"
    kept = data.read_bytes()
    rewritten(data, "reversed")
    load(host, output_dir=str(host.folder / "another"))
    data.write_bytes(kept)
    (host.folder / "tokens" / "hound_tokens.json").unlink()
    with pytest.raises(SettingsError, match=r"checkpoint-2 was trained on other rows .*the rows of 'tokenized_path'"):
        load(host)


def test_the_same_rows_tokenised_again_are_the_same(host: Host) -> None:
    start_once(host)
    shutil.rmtree(host.folder / "tokens")
    load(host)
    assert len(load(host)) == 9
