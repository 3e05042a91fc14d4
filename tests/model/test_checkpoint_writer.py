"""One checkpoint under one name, whole or not at all: several writers, a full disk, a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hound_plugin.cli import main
from hound_plugin.errors import DiskFullError, InUseError, SettingsError
from hound_plugin.model.checkpoint_conversion import convert
from hound_plugin.model.checkpoint_writer import CheckpointWriter
from tests.full_disk import longest_file
from tests.goldens import SFT

FORK = multiprocessing.get_context("fork")


def write(folder: Path, number: int, start: Any = None, results: Any = None, pause: float = 0.0) -> None:
    """A checkpoint of three shards, every value of which is the writer's number."""
    if start is not None:
        start.wait()
    try:
        with CheckpointWriter(folder, 100, f"writer {number}") as writer:
            for name in "abc":
                writer.add(name, torch.full((5, 5), float(number)))
                time.sleep(pause)
    except (InUseError, SettingsError) as error:
        results.put((number, type(error).__name__))
    else:
        if results is not None:
            results.put((number, ""))


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_several_writers_of_one_name_leave_one_whole_checkpoint(pause: float, tmp_path: Path) -> None:
    for turn in range(2):
        folder = tmp_path / str(turn) / "model"
        start, results = FORK.Barrier(4), FORK.Queue()
        writers = [FORK.Process(target=write, args=(folder, number, start, results, pause)) for number in range(4)]
        for process in writers:
            process.start()
        outcomes = dict(results.get(timeout=60) for _ in writers)
        for process in writers:
            process.join(60)
        (winner,) = [number for number, problem in outcomes.items() if not problem]
        assert set(outcomes.values()) <= {"", "InUseError", "SettingsError"}
        assert os.listdir(folder.parent) == ["model"]
        values = [value for file in folder.glob("*.safetensors") for value in load_file(file).values()]
        assert len(values) == 3
        assert all(torch.equal(value, torch.full((5, 5), float(winner))) for value in values)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours") / "sft"
    convert(str(SFT), folder, progress=False)
    return folder


def test_a_name_that_is_being_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "model"
    with CheckpointWriter(target, 100, "another run") as writer:
        writer.add("a", torch.ones(3))
        assert main(["convert", str(SFT), str(target)]) == 2
        assert f"Another process is writing {target}. Wait for it, or end it." in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["model.safetensors"]
    with pytest.raises(SettingsError, match="Expected a new or an empty folder"):
        convert(str(SFT), target, progress=False)


def test_a_folder_that_was_filled_in_the_meantime_is_kept(tmp_path: Path) -> None:
    def write_beside() -> None:
        with CheckpointWriter(tmp_path / "model", 100, "a run") as writer:
            writer.add("a", torch.ones(3))
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "mine.txt").write_text("mine")

    with pytest.raises(OSError, match="not empty"):
        write_beside()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine.txt"]


@pytest.mark.parametrize("limit", [0, 1_000, 20_000, 200_000])
@pytest.mark.parametrize("to", ["original", "hf"])
def test_a_full_disk_leaves_nothing(
    limit: int, to: str, tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = SFT if to == "hf" else ours
    target = tmp_path / "models" / "converted"
    with longest_file(limit):
        code = main(["convert", str(source), str(target), "--to", to])
    assert code == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"hound: Cannot write {target}: ")
    assert message.endswith("Free some space, or choose another disk, and run the command again.")
    assert list((tmp_path / "models").iterdir()) == []


def test_the_last_file_to_be_written_counts_too(tmp_path: Path) -> None:
    def write_much() -> None:
        with CheckpointWriter(tmp_path / "model", 10**6, "a run") as writer:
            writer.add("a", torch.ones(100))
            writer.write_json("config.json", {"values": list(range(2_000))})

    with longest_file(3_000), pytest.raises(DiskFullError, match="Cannot write"):
        write_much()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    process = FORK.Process(target=write, args=(folder, 1), kwargs={"pause": 60})
    process.start()
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".model.*.part")):
        assert time.monotonic() < until
        time.sleep(0.01)
    (tmp_path / ".other.abcdef-1-00000000.part").mkdir()  # not this checkpoint's
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    write(folder, 2)
    assert sorted(os.listdir(tmp_path)) == [".other.abcdef-1-00000000.part", "model"]
    assert len(list(folder.glob("*.safetensors"))) == 3
