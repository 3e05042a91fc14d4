"""Ray Data gives what one process gives, item for item, whatever is lost on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hound_plugin.engines.choice import make_engine
from hound_plugin.engines.cluster import OURS, check_room, clear_sessions
from hound_plugin.engines.settings import EngineSettings
from hound_plugin.engines.work import LOCAL, Work, media_reader
from hound_plugin.errors import HoundError, MediaDecodeError, SettingsError
from hound_plugin.records.files import hold
from tests.engines.conftest import STORE, MakeEngine
from tests.engines.jobs import Ahead, Double, EndsItsProcess, Weigh, calls, memory, one_name, refuse
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
def test_memory_stays_flat_over_ten_thousand_items(ray_engine: MakeEngine) -> None:
    results = ray_engine(batch=50).run(Work(Weigh(20_000)), range(10_000))
    first, most = 0, 0
    for count, _ in enumerate(results, 1):
        if count == 1000:
            first = memory()
        if count % 500 == 0:
            most = max(most, memory())
    assert count == 10_000
    assert most - first < 64 << 20, f"{(most - first) >> 20} MiB more than after the first thousand of 200 MB"


@pytest.mark.parametrize(
    ("settings", "there", "message"),
    [
        ({"cpus": 3}, {"CPU": 2.0}, r"engine\.cpus: .*at least 3 CPU.*it has 2"),
        ({"gpus": 1}, {"CPU": 8.0}, r"engine\.gpus: .*at least 1 GPU.*it has 0"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused(
    settings: dict[str, float], there: dict[str, float], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        check_room(EngineSettings(kind="ray", **settings), there)
    check_room(EngineSettings(kind="ray", **settings), {"CPU": 3.0, "GPU": 1.0})


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
