"""Ray Data gives what one process gives, item for item, whatever is lost on the way."""

from __future__ import annotations

import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import ray

from hound_plugin.engines import ray_data
from hound_plugin.engines.choice import make_engine
from hound_plugin.engines.cluster import OURS, SUPPORTED, check_room, clear_sessions
from hound_plugin.engines.settings import EngineSettings
from hound_plugin.engines.work import LOCAL, Work, media_reader
from hound_plugin.errors import EnvironmentMismatchError, HoundError, MediaDecodeError, SettingsError
from hound_plugin.records.files import hold
from tests.engines.conftest import STORE, MakeEngine
from tests.engines.jobs import (
    Ahead,
    Answers,
    Counted,
    Double,
    EndsItsProcess,
    EndsProcess,
    Paced,
    Weigh,
    calls,
    counted,
    memory,
    one_name,
    refuse,
)
from tests.goldens import ROOT


def test_every_task_once_by_several_processes(ray_engine: MakeEngine, tmp_path: Path) -> None:
    tasks = range(41)
    done = list(ray_engine().run(Work(Double(tmp_path, 0.02)), tasks))
    assert sorted(done) == list(LOCAL.run(Work(Double()), tasks))
    assert calls(tmp_path) == list(tasks)
    assert len(list(tmp_path.glob("*.calls"))) == 2
    assert list(ray_engine().run(Work(Double()), [])) == []


def test_a_lost_process_repeats_only_its_blocks(ray_engine: MakeEngine, tmp_path: Path) -> None:
    done = dict(ray_engine().run(Work(EndsItsProcess(tmp_path, 17)), range(40)))
    assert done == {number: 2 * number for number in range(40)}
    asked = calls(tmp_path)
    twice = {number for number in asked if asked.count(number) > 1}
    assert set(asked) == set(range(40))
    assert len(asked) <= 40 + 2 * 4, f"more than the two blocks that a process has were repeated: {twice}"


@pytest.mark.long
def test_a_task_that_ends_every_process_ends_the_job(ray_engine: MakeEngine, tmp_path: Path) -> None:
    work = Work(EndsItsProcess(tmp_path, 5, always=True))
    with pytest.raises(HoundError, match=r"Task 5 was given up, as process after process was lost"):
        list(ray_engine(actors=1, retries=1).run(work, range(8)))


def test_a_lost_counter_of_attempts_ends_the_job(ray_engine: MakeEngine, tmp_path: Path) -> None:
    """Ray ends small processes too where memory is short: here that one, by the task."""
    work = Work(EndsProcess("ray::_Attempts"))
    with pytest.raises(HoundError, match=r"counts attempts was lost.*Finished tasks are kept.*too little memory"):
        list(ray_engine(actors=1).run(work, range(8)))


def test_an_error_of_a_task_is_raised_here(ray_engine: MakeEngine) -> None:
    with pytest.raises(MediaDecodeError, match=r"seven\.mp4: it is no clip") as caught:
        list(ray_engine().run(Work(refuse), range(12)))
    assert caught.value.path == "seven.mp4"


def test_clips_are_read_by_another_process(ray_engine: MakeEngine) -> None:
    model = Ahead()
    work = Work(model, one_name, media_reader(model))
    names = ["a", "b", "broken", "c"]
    done = dict(ray_engine(actors=1, batch=2).run(work, names))
    assert done[2][0] == "not sent"
    for number in (0, 1, 3):
        read, process = done[number]
        assert read.startswith(f"{names[number]} read by ")
        assert int(read.split()[-1]) != process
    alone = dict(ray_engine(actors=1, decoders=0).run(work, names))
    assert {read for read, _ in alone.values()} == {"not sent"}


@pytest.mark.long
def test_results_larger_than_the_object_store_come_through(ray_engine: MakeEngine) -> None:
    size, count = 4 << 20, 80
    assert size * count > 2 * STORE * (1 << 30), "more than the store holds"
    seen = [number for number, result in ray_engine(batch=2).run(Work(Weigh(size)), range(count)) if len(result) > size]
    assert sorted(seen) == list(range(count))


@pytest.mark.long
def test_memory_stays_flat_over_ten_thousand_items(ray_engine: MakeEngine, tmp_path: Path) -> None:
    """200 MB of clips and as much of results; each process is compared with itself, first quarter and last."""
    model = Paced(tmp_path, 20_000, 0.0)
    work = Work(Answers(model, 20_000), one_name, model)
    samples = []
    for count, _ in enumerate(ray_engine(actors=1, batch=20).run(work, range(10_000)), 1):
        if count > 1000 and count % 100 == 0:
            samples.append(memory())
    assert count == counted(tmp_path / "read") == counted(tmp_path / "done") == 10_000
    quarter = len(samples) // 4
    for part in samples[0]:
        first, last = (mean(sample[part] for sample in some) for some in (samples[:quarter], samples[-quarter:]))
        assert first > 10 << 20, part
        assert last - first < 24 << 20, f"{part}: {first / 1e6:.0f} MB in the first quarter, {last / 1e6:.0f} MB later"


SIZE = 4_000_000


@pytest.mark.parametrize("kind", ["clips", "results"])
def test_what_is_on_the_way_is_bounded(ray_engine: MakeEngine, tmp_path: Path, kind: str) -> None:
    """Readers wait for the model, and the model for the command: 240 MB in a store of 129."""
    count, model = 60, Paced(tmp_path, SIZE, 0.05)
    work: Work[int, Any] = Work(model, one_name, model) if kind == "clips" else Work(Counted(tmp_path, SIZE))
    taken, most = 0, 0
    for _ in ray_engine(actors=1, batch=2).run(work, range(count)):
        done = counted(tmp_path / "done") if kind == "clips" else taken
        most = max(most, counted(tmp_path / "read") - done)
        taken += 1
        time.sleep(0.05 if kind == "results" else 0)
    assert taken == count
    assert most * SIZE < STORE * (1 << 30), f"{most} of {count} were on the way"


@pytest.mark.parametrize(
    ("settings", "machines", "message"),
    [
        ({"cpus": 3}, [{"CPU": 2.0}], r"engine\.cpus: .*at least 3 CPU.*machines have 2 CPU\."),
        ({"cpus": 3}, [{"CPU": 2.0}] * 4, r"engine\.cpus: .*at least 3 CPU.*machines have 2 CPU; 2 CPU"),
        ({"gpus": 1}, [{"CPU": 8.0}], r"engine\.gpus: .*at least 1 CPU and 1 GPU.*machines have 8 CPU\."),
        ({"gpus": 2}, [{"CPU": 8.0, "GPU": 1.0}] * 2, r"engine\.gpus: .*2 GPU.*have 8 CPU and 1 GPU; 8 CPU"),
        ({"cpus": 4, "gpus": 1}, [{"CPU": 2.0, "GPU": 4.0}, {"CPU": 64.0}], r"engine\.cpus: .*4 CPU and 1 GPU"),
        ({}, [], r"engine\.cpus: .*machines have none"),
    ],
)
def test_a_cluster_of_machines_that_are_too_small_is_refused(
    settings: dict[str, float], machines: list[dict[str, float]], message: str
) -> None:
    """What no machine has, the cluster as a whole does not have either."""
    with pytest.raises(SettingsError, match=message):
        check_room(EngineSettings(kind="ray", **settings), machines)
    check_room(EngineSettings(kind="ray", **settings), [*machines, {"CPU": 4.0, "GPU": 2.0}])


def test_room_for_fewer_processes_and_a_busy_cluster_are_said(caplog: pytest.LogCaptureFixture) -> None:
    settings = EngineSettings(kind="ray", actors=5, cpus=2)
    check_room(settings, [{"CPU": 5.0}, {"CPU": 3.0}, {"CPU": 1.0}])
    assert "engine.actors: the cluster has room for 3 of 5 processes" in caplog.text
    caplog.clear()
    check_room(settings, [{"CPU": 16.0}], {"CPU": 1.5})
    assert "The cluster is busy: a process with a model needs 2 CPU, and 1.5 CPU are free" in caplog.text
    caplog.clear()
    check_room(settings, [{"CPU": 16.0}], {"CPU": 2.0})
    assert not caplog.text


@pytest.mark.parametrize("version", ["2.9.3", "2.58.1", "2.61.0", "3.0.0.dev0"])
def test_another_release_of_ray_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", version)
    with pytest.raises(EnvironmentMismatchError, match=rf"expected Ray >=2\.59.*got {version}.*pip install"):
        make_engine(EngineSettings(kind="ray"))


def test_the_releases_are_those_of_the_extra() -> None:
    extras = ConfigParser()
    extras.read(ROOT.parents[1] / "setup.cfg")
    assert f"ray[data]{SUPPORTED}" in extras["options.extras_require"]["ray"]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(EnvironmentMismatchError, match=r"needs Ray Data.*pip install 'hound-plugin\[ray\]'"):
        make_engine(EngineSettings(kind="ray"))


def test_addresses_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"address: expected local, auto or HOST:PORT.*ray job submit"):
        EngineSettings(kind="ray", address="ray://head:10001")


@pytest.mark.parametrize(
    ("variable", "settings", "message"),
    [
        ("10.0.0.1:6379", {}, r"engine\.address: expected it .* RAY_ADDRESS is set \(10\.0\.0\.1:6379\)"),
        ("ray://head:10001", {"address": "auto"}, r"RAY_ADDRESS: expected HOST:PORT .*ray job submit"),
    ],
)
def test_an_address_in_the_environment_is_neither_ignored_nor_followed_silently(
    variable: str, settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    with pytest.raises(SettingsError, match=message):
        make_engine(EngineSettings(kind="ray", **settings))
    assert make_engine(EngineSettings()) is LOCAL
    for address in ("local", "10.0.0.2:6379"):
        make_engine(EngineSettings(kind="ray", address=address))


def test_folders_of_killed_commands_are_removed_and_no_others(tmp_path: Path) -> None:
    for name in ("session_killed", "session_running", "session_of_ray_start"):
        (tmp_path / name / "logs").mkdir(parents=True)
    (tmp_path / "session_killed" / OURS).touch()
    with hold(tmp_path / "session_running" / OURS):
        clear_sessions(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["session_of_ray_start", "session_running"]


def test_a_machine_that_its_cluster_gave_up_ends_the_job(
    ray_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Ray says of a machine that slept too long; Ray Data itself would wait without end."""
    nodes, alive = ray.nodes, iter([True])  # the room is counted first
    monkeypatch.setattr(ray_data, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(ray, "nodes", lambda: [{**node, "Alive": next(alive, False)} for node in nodes()])
    with pytest.raises(HoundError, match=r"\(raylet\) ended.*Finished tasks are kept: start the command again"):
        list(ray_engine().run(Work(Double(seconds=0.1)), range(1000)))


MACHINES = """
import sys
import ray
from ray.cluster_utils import Cluster
from hound_plugin.engines.ray_data import RayEngine
from hound_plugin.engines.settings import EngineSettings
from hound_plugin.engines.work import Work, media_reader
from tests.engines.jobs import Ahead, one_name
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
second = cluster.add_node(num_cpus=2)
model = Ahead(0.2)
names = [str(number) for number in range(80)]
engine = RayEngine(EngineSettings(kind="ray", address=cluster.address, actors=3, batch=1))
done = {}
for number, (read, _) in engine.run(Work(model, one_name, media_reader(model)), names):
    done[number] = read
    if len(done) == 5:
        cluster.remove_node(second, allow_graceful=False)
cluster.shutdown()
assert all(done[number].startswith(f"{number} read by") for number in range(80))
"""


@pytest.mark.long
def test_a_lost_machine_is_done_without(tmp_path: Path) -> None:
    """The processes with a model that start again on the other machine leave room for those that read clips."""
    command = [sys.executable, "-c", MACHINES]
    done = subprocess.run(command, cwd=ROOT.parents[1], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
