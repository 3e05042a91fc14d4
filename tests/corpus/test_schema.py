"""The table of corpora, ``hound corpus list``, and the registry of data sets that has to agree with both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hound_plugin import cli
from hound_plugin.corpus.files import readable_rows, readable_size
from hound_plugin.corpus.inventory import take_stock, to_records, to_table
from hound_plugin.corpus.schema import CORPORA, select
from hound_plugin.errors import SettingsError
from tests.corpus.conftest import REPO, Run, environment
from tests.corpus.hub import Hub

RECORDS = [corpus for corpus in CORPORA.values() if corpus.kind != "archives"]


def test_what_was_released() -> None:
    assert len(CORPORA) == 30
    files = [(corpus.repo, name) for corpus in CORPORA.values() for name in corpus.files]
    assert len(files) == len(set(files)) == 19 + 16 + 30 + 7 + 10 + 1
    assert CORPORA["frames_300k"].files[0] == "train_300k/chunk_0.tar.gz"
    assert CORPORA["frames_600k"].files[-1] == "train_600k/chunk_29.tar.gz"
    assert CORPORA["dpo_17k"].rows == 17_000
    assert CORPORA["test_ssv2"].rows is None
    for corpus in CORPORA.values():
        assert all(CORPORA[name].kind == "archives" for name in corpus.needs)
        assert (corpus.kind == "archives") == (corpus.target is not None)
        assert bool(corpus.needs) == (corpus.kind != "archives")
    places = [place for corpus in CORPORA.values() for place in corpus.paths()]
    assert len(set(places)) == len(places)


def test_selection() -> None:
    assert [corpus.id for corpus in select(["frames_300k", "dpo_17k"])] == ["dpo_17k", "frames_300k"]
    assert len(select(["test_*"])) == 10
    assert len(select(["*"])) == len(select(None)) == len(CORPORA)
    assert {corpus.kind for corpus in select(None, ["archives"])} == {"archives"}
    for bad in (["nothing"], ["nothing*"], [""]):
        with pytest.raises(SettingsError, match="Known ids: video_caption_pretrain"):
            select(bad)


def test_numbers_as_people_read_them() -> None:
    assert [readable_size(size) for size in (None, 0, 999, 9_640_000, 10_400_000_000, 2 * 10**12)] == [
        "?", "0 B", "999 B", "9.64 MB", "10.4 GB", "2 TB",
    ]  # fmt: skip
    assert (readable_rows(17_000), readable_rows(None)) == ("~17k", "?")


def test_list_tells_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in (0, 4):
        place = tmp_path / CORPORA["frames_300k"].paths()[index]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")
    record = tmp_path / CORPORA["dpo_17k"].paths()[0]
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert cli.main(["corpus", "list", "--folder", str(tmp_path)]) == 0
    table = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "2 of 16 downloaded" in table["frames_300k"]
    assert table["dpo_17k"].split()[1:5] == ["~17k", "9.64", "MB", "downloaded"]
    assert table["test_msvd"].split()[1] == "?"
    statuses = take_stock(tmp_path, select(["frames_300k"]))
    assert to_records(statuses)[0]["downloaded"] == 2
    assert to_table(statuses).splitlines()[0].split() == ["id", "rows", "size", "here", "for", "what"]


@pytest.mark.parametrize("name", ["list", "download", "extract", "validate", "convert"])
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corpus", name, "--help"]) == 0
    assert f"  hound corpus {name}" in capsys.readouterr().out.partition("examples:")[2]


@pytest.mark.parametrize("arguments", [[], ["no-such"], ["validate"], ["list", "--no-such"]])
def test_bad_usage(arguments: list[str]) -> None:
    assert cli.main(["corpus", *arguments]) == 2


def registry() -> dict[str, dict[str, object]]:
    return json.loads((REPO / "data" / "dataset_info.json").read_text())


def configurations() -> dict[str, str]:
    card = (REPO / "data" / "hub" / "README.md").read_text()
    return {entry["config_name"]: entry["data_files"] for entry in yaml.safe_load(card.split("---")[1])["configs"]}


def test_the_registry_has_every_corpus_here_and_on_the_hub() -> None:
    entries, cards = registry(), configurations()
    made_here = {"hound_kto_34k_local"}  # by `hound corpus convert --labels`
    assert len(entries.keys() - made_here) == 2 * len(RECORDS)
    for corpus in RECORDS:
        here, there = entries[f"hound_{corpus.id}_local"], entries[f"hound_{corpus.id}"]
        assert here["file_name"] == corpus.paths()[0]
        if "script_url" in there:
            assert (there["script_url"], there["subset"]) == ("hub", corpus.id)
            assert cards[corpus.id] == f"hf://datasets/{corpus.repo}/{corpus.files[0]}"
        else:
            assert there["hf_hub_url"] == corpus.repo
            assert there["folder"] == os.path.dirname(corpus.files[0])
        for entry in (here, there):
            assert entry["formatting"] == "hound"
            assert entry.get("ranking", False) is (corpus.kind == "pairs")


LOAD = """
import sys
from datasets import load_dataset
rows = load_dataset(path=sys.argv[1], name=sys.argv[2], data_dir=None, data_files=None, split="train")
print(len(rows), sorted(rows.column_names), rows[0]["id"])
"""


def test_an_entry_of_the_hub_reads_its_one_file(hub: Hub, tmp_path: Path) -> None:
    """Loaded as the host does it for ``script_url`` and ``subset``."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(REPO / "data" / "hub"), "image_instruction_100k"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(hub, HF_HOME=str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-2] == "2 ['conversations', 'id', 'image'] allava_laion/images/7.jpeg_0"


def test_local_entries_agree_with_what_download_writes(run: Run, hub: Hub, tmp_path: Path) -> None:
    assert run("download", "--only", "video_240k_caption_15k", "--folder", "data", hub=hub).returncode == 0
    assert (tmp_path / "data" / str(registry()["hound_video_240k_caption_15k_local"]["file_name"])).is_file()
