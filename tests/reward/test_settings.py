"""Settings are read strictly; bad input stops before anything is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError, HoundError, LedgerError, MediaNotFoundError, SettingsError
from hound_plugin.reward import stages
from hound_plugin.reward.run_setup import open_run
from hound_plugin.reward.settings import build_settings, read_settings
from tests.reward.conftest import rows, write_rows
from tests.reward.test_stages import start


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fodler": "x"}, "fodler: unknown key. Did you mean 'folder'"),
        ({"judge": {"backed": "x"}}, "judge.backed: unknown key. Did you mean 'backend'"),
        ({"judge": {"backend": "gpt"}}, "judge.backend: expected one of lexical, openai"),
        ({"judge": {"api_key": "sk-1"}}, "judge.api_key: keys are read from the environment only"),
        ({"judge": {"k": 0}}, "judge.k: expected a whole number of at least 1; got 0"),
        ({"judge": {"k": 1.5}}, "judge.k: expected a whole number of at least 1; got 1.5"),
        ({"judge": {"k": True}}, "judge.k: expected a whole number of at least 1; got True"),
        ({"judge": 3}, "judge: expected a block"),
        ({"judge": {"backend": "openai"}}, "judge.model: backend openai needs"),
        ({"sample": {"n": 2}}, "sample.model"),
        ({"sample": {"model": "m", "top_p": 1.5}}, "sample.top_p"),
        ({"sample": {"backend": "given"}}, "sample.answers"),
        ({"pairs": {"policy": "best"}}, "pairs.policy"),
        ({"max_cost": -1}, "max_cost"),
        ({"max_cost": 1, "judge": {"backend": "openai", "model": "m"}}, "no price for m"),
        ({"prices": {"m": {"input": 1}}}, "prices.m.output: must be given: a number of at least 0"),
        ({"prices": {"m": {"input": 1, "output": "x"}}}, "prices.m.output: expected a number"),
        ({"prices": {"m": {"inptu": 1, "output": 1}}}, r"prices\.m\.inptu: unknown key\. Did you mean 'input'"),
        ({"prices": 3}, "prices: expected a block"),
        ({"seed": None}, "seed: expected a whole number; got None"),
        ({"judge": {"timeout": float("nan")}}, "judge.timeout: expected a number of seconds of at least 0.1; got nan"),
        ({"pairs": {"threshold": -1}}, "pairs.threshold: expected a number of at least 0 and at most 100; got -1"),
        ({"judge": {"base_url": "http://me:word@host/v1"}}, "judge.base_url: expected http"),
        ({"sample": {"model": "m", "azure_endpoint": "https://me:word@host"}}, "sample.azure_endpoint: expected http"),
        ({"judge": {"parameters": {"extra_headers": {"a": "word"}}}}, "judge.parameters: extra_headers is not allowed"),
        ({"sample": {"model": "m", "parameters": {"api_key": "word"}}}, "sample.parameters: api_key is not allowed"),
    ],
)
def test_bad_settings(values: dict[str, Any], change: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        build_settings({**values, **change})


def test_every_bad_key_is_named_at_once(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        build_settings({**values, "limt": 1, "judge": {"k": 0, "backed": "openai"}, "pairs": {"policy": "best"}})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["judge.k", "judge.backed", "pairs.policy", "limt"]


def test_an_empty_block_has_its_defaults(values: dict[str, Any]) -> None:
    assert build_settings({**values, "judge": None}) == build_settings(values)


def test_overrides(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(values))
    found = read_settings(file, ["judge.k=3", "pairs.policy=all", "max_cost=null", "sample.temperature=1"])
    assert (found.judge.k, found.pairs.policy, found.sample.temperature) == (3, "all", 1.0)
    with pytest.raises(SettingsError, match="expected key=value"):
        read_settings(file, ["judge.k"])
    with pytest.raises(SettingsError, match="expected a YAML file"):
        read_settings(tmp_path / "none.yaml")


def _change(path: Path, number: int, **fields: Any) -> None:
    found = rows(path)
    found[number].update(fields)
    write_rows(path, found)


TWO = [{"role": ("user", "assistant")[n % 2], "content": f"<video>{n}" if n % 2 == 0 else "A."} for n in range(4)]


@pytest.mark.parametrize(
    ("fields", "judge", "error", "match"),
    [
        ({"id": "q1"}, {}, DataError, r"id twice +row 4, id 'q1': `id`: expected a unique id; row \d+ has it"),
        ({"id": ""}, {}, DataError, "no id +row 4: `id`: expected an id, under which answers .* found none"),
        ({"prompt": "<video>\n "}, {}, DataError, "blank question +row 4, id 'q3': `prompt`: expected a question that"),
        ({"prompt": None}, {}, DataError, "no question +row 4, id 'q3': `prompt`: expected a question, found none"),
        ({"prompt": ["What?"]}, {}, DataError, r"turn +row 4, id 'q3': `prompt\[0\]`: expected a message"),
        ({"video": "gone.mp4"}, {}, MediaNotFoundError, "media missing +row 4, id 'q3': `video`: .*found no gone.mp4"),
        ({"video": ["0.jpg", "gone.png"]}, {}, MediaNotFoundError, "row 4, id 'q3': `video`: .*found no 0.jpg"),
        ({"video": ["0.mp4", "1.mp4"]}, {}, DataError, "several media +row 4, id 'q3': `video`: expected one clip"),
        ({"prompt": None, "conversations": TWO}, {}, DataError, "several questions +row 4, id 'q3': `conversations`: "),
        ({"system": "Be kind."}, {}, DataError, "system +row 4, id 'q3': `system`: expected no system prompt"),
        ({"start": 2, "end": 1}, {}, DataError, "part of a clip +row 4, id 'q3': `start`: expected `start` before"),
        ({"reference": ""}, {}, DataError, "1 of 8 questions have no `reference`"),
        ({"caption": " "}, {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}, DataError,
         "1 of 8 questions have no `caption`, which judge.backend openai reads: q3"),
    ],
)  # fmt: skip
def test_bad_questions(values: dict[str, Any], fields: Any, judge: Any, error: type[HoundError], match: str) -> None:
    _change(Path(values["questions"]), 3, **fields)
    with pytest.raises(error, match=match) as caught:
        open_run(build_settings({**values, "judge": judge}), print)
    assert type(caught.value) is error
    assert not Path(values["folder"]).exists(), "nothing is written before the checks"


def test_a_judge_without_a_key(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = {"backend": "openai", "model": "m"}
    with pytest.raises(SettingsError, match="OPENAI_API_KEY is not set"):
        open_run(build_settings({**values, "judge": judge}), print)
    with pytest.raises(SettingsError, match="without a user, a password"):
        open_run(build_settings({**values, "judge": {**judge, "base_url": "http://me:secret@host/v1"}}), print)


def test_an_unwritable_folder(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="writable folder"):
        open_run(build_settings({**values, "folder": str(tmp_path / "file" / "run")}), print)
    if os.geteuid() != 0:
        (tmp_path / "shut").mkdir(mode=0o500)
        with pytest.raises(SettingsError, match="writable folder"):
            open_run(build_settings({**values, "folder": str(tmp_path / "shut")}), print)


def test_a_folder_of_another_protocol(values: dict[str, Any]) -> None:
    run = start(build_settings(values))
    stages.sample(run)
    other = {**values, "judge": {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}}
    open_run(build_settings(other), print)  # nothing was judged yet: nothing can be mixed
    stages.judge(start(build_settings(values)))
    with pytest.raises(
        LedgerError, match=r"made with protocol lexical/1; this run uses caption/1/.*sample.backend=given"
    ):
        open_run(build_settings(other), print)
