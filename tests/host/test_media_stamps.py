"""Clips that were replaced between two starts of a training are noticed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from hound_plugin.errors import SettingsError
from hound_plugin.host import media_stamps, settings_state
from tests.host.hosting import media_folder, write_dataset
from tests.host.test_pipeline import Host
from tests.host.test_resume import WHOLE, checkpoints
from tests.media.zoo import write

ROWS = [
    {"id": name, name.split()[0]: path, "question": f"<{name.split()[0]}>?", "answer": "A."}
    for name, path in (
        ("video 1", "clip.mp4"),
        ("video 2", "clip.mp4#t=0,0.2"),
        ("video 3", "frames"),
        ("video 4", ["frames/c01_0001.jpeg", "frames/c01_0002.jpeg"]),
        ("image 5", "img.jpg"),
    )
]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A training that has a checkpoint."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    media = media_folder(tmp_path / "media")
    write(media / "clip.mp4")
    shutil.copytree((media / "clip_long").resolve(), media / "frames")
    shutil.copyfile(media / "img_wide.jpg", media / "img.jpg")
    frames = sorted(os.listdir(media / "frames"))
    rows = json.loads(json.dumps(ROWS).replace("c01_0001.jpeg", frames[0]).replace("c01_0002.jpeg", frames[1]))
    write_dataset(tmp_path / "data", "mine", rows)
    host = Host(tmp_path)
    assert len(host.load("sft", "mine")) == 5
    (tmp_path / "out").mkdir(exist_ok=True)
    checkpoint = checkpoints(tmp_path / "out", {2: WHOLE}) / "checkpoint-2"
    (checkpoint / "hound_run.json").write_text(json.dumps(settings_state.run()))
    stamps = settings_state.media()
    assert stamps is not None
    media_stamps.write(checkpoint, stamps)
    return host


def load(host: Host, **changes: Any) -> int:
    return len(host.load("sft", "mine", **changes))


def test_the_same_media_resume_in_silence(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    assert load(host) == 5
    assert "media were changed" not in caplog.text
    assert "replaced since" not in caplog.text


@pytest.mark.parametrize("replaced", ["clip.mp4", "frames", "img.jpg"])
def test_media_of_another_size_are_refused(replaced: str, host: Host) -> None:
    path = host.folder / "media" / replaced
    if replaced == "clip.mp4":
        write(path, frames=40)
    else:
        file = sorted(path.iterdir())[0] if path.is_dir() else path
        Image.open(file).rotate(90).save(file)
    with pytest.raises(SettingsError, match=rf"trained on other media: \d of \d have other sizes now.*{replaced}"):
        load(host)
    assert load(host, resume_from_checkpoint=str(host.folder / "out" / "checkpoint-2")) == 5
    assert load(host, hound={"check_media": "off"}) == 5


def test_media_with_another_time_are_named(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    os.utime(host.folder / "media" / "img.jpg")
    with caplog.at_level("WARNING"):
        assert load(host) == 5
    assert "1 of " in caplog.text
    assert "img.jpg: their sizes are the same" in caplog.text


def test_media_that_are_gone_and_a_damaged_note(host: Host, tmp_path: Path) -> None:
    assert media_stamps.stamps_of([str(tmp_path / "none.mp4")]).tolist() == [[-1, -1]]
    assert media_stamps.stamps_of([]).shape == (0, 2)
    note = host.folder / "out" / "checkpoint-2" / "hound_media.npy"
    note.write_bytes(note.read_bytes()[:70])
    assert media_stamps.read(note.parent) is None
    np.save(note, np.zeros(3))
    assert media_stamps.read(note.parent) is None
    assert load(host) == 5
