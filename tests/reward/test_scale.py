"""A protocol with a scale of its own, from the request to the report; and what does not fit its scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.judge.parsing import Scale
from hound_plugin.judge.prompts import read_template
from hound_plugin.reward.run import run_stages
from hound_plugin.reward.scoring import latest
from hound_plugin.reward.settings import RewardSettings, build_settings
from hound_plugin.reward.summary import score_bins
from tests.llm.conftest import FaultServer
from tests.reward.conftest import rows, write_rows
from tests.reward.test_stages import start


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    """The built-in protocol with another scale; its words do not matter to the server here."""
    values = read_template("caption").model_dump(by_alias=True)
    file = tmp_path / "ten.yaml"
    file.write_text(yaml.safe_dump({**{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
                                    "name": "ten", "scale": [1, 10]}))  # fmt: skip
    return file


def asking(values: dict[str, Any], server: FaultServer, protocol: Path, **pairs: Any) -> RewardSettings:
    judge = {"backend": "openai", "model": "tiny", "base_url": server.base_url, "protocol": str(protocol)}
    return build_settings({**values, "judge": judge, **({"pairs": pairs} if pairs else {})})


def test_scores_on_ten(values: dict[str, Any], server: FaultServer, protocol: Path) -> None:
    server.control(share=1.0, kinds=["say"], text="It is mostly right.\nSCORE: 8/10")
    counts = run_stages(start(asking(values, server, protocol, threshold=7.5)))
    assert (counts["judge"]["scored"], counts["judge"]["missing"]) == (48, 0)
    folder = Path(values["folder"])
    found = rows(folder / "scores.jsonl")
    assert {(row["score"], tuple(row["judge"]["scale"])) for row in found} == {(8, (1, 10))}
    assert len(latest(folder / "scores.jsonl")) == 48
    report = json.loads((folder / "report" / "report.json").read_text())
    assert dict(zip(report["scores"]["middles"], report["scores"]["counts"], strict=True))[8] == 48
    schema = server.stats()["bodies"][0]["body"]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["score"]["enum"] == list(range(1, 11))
    other = [{**row, "score": 4, "judge": {}} for row in found]
    second = write_rows(folder / "second.jsonl", other)
    settings = asking(values, server, protocol, threshold=7.5).changed(report={"second": str(second)})
    with pytest.raises(DataError, match="has scores on 1 to 5; this run has scores on 1 to 10"):
        run_stages(start(settings), ("report",))
    with (folder / "scores.jsonl").open("a") as file:
        file.write(json.dumps(other[0]) + "\n")
    with pytest.raises(DataError, match="scores on 1 to 10 and 1 to 5"):
        run_stages(start(asking(values, server, protocol, threshold=7.5)), ("report",))


@pytest.mark.parametrize(
    ("pairs", "match"),
    [
        ({}, "pairs.threshold: must be given, because the judge's scale is 1 to 10"),
        ({"threshold": 11}, "pairs.threshold: expected a number on the judge's scale, 1 to 10; got 11"),
        ({"policy": "margin", "margin": 10}, "pairs.margin: expected at most 9 on the judge's scale, 1 to 10; got 10"),
        ({"policy": "all", "min_gap": 9.5}, "pairs.min_gap: expected at most 9"),
    ],
)
def test_pairs_that_the_scale_does_not_allow(
    values: dict[str, Any], server: FaultServer, protocol: Path, pairs: dict[str, Any], match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        start(asking(values, server, protocol, **pairs))
    assert server.stats()["counts"] == {}


def test_the_usual_scale_has_its_limits(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="the judge's scale, 1 to 5; got 6"):
        start(build_settings({**values, "pairs": {"threshold": 6}}))


def test_scores_off_their_scale_are_refused(tmp_path: Path) -> None:
    for judge, score, match in (
        ({}, 6, "from 1 to 5 or null, got 6"),
        ({"scale": [1, 10]}, 11, "from 1 to 10 or null, got 11"),
        ({"scale": "ten"}, 6, "two whole numbers as the judge's scale, got 'ten'"),
    ):
        file = write_rows(tmp_path / "scores.jsonl", [{"id": "a", "candidate": 0, "score": score, "judge": judge}])
        with pytest.raises(DataError, match=match):
            latest(file)


@pytest.mark.parametrize("scale", [Scale(), Scale(1, 10), Scale(0, 1), Scale(0, 100)])
def test_bins_cover_the_scale(scale: Scale) -> None:
    middles, edges = score_bins(scale)
    assert (middles[0], middles[-1], len(edges)) == (scale.lowest, scale.highest, len(middles) + 1)
    assert all(low < middle < high for low, middle, high in zip(edges, middles, edges[1:], strict=False))
    assert len(middles) <= 101
