"""Questions take captions from a file of their own, by the clip, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError
from hound_plugin.records.bad_rows import RowReport
from hound_plugin.reward.captions import CUT_CAPTION
from hound_plugin.reward.run_setup import read_run_questions
from hound_plugin.reward.settings import build_settings
from tests.reward.conftest import rows, write_rows


def without_captions(values: dict[str, Any]) -> None:
    path = Path(values["questions"])
    write_rows(path, [{k: v for k, v in row.items() if k != "caption" or row["id"] == "q7"} for row in rows(path)])


def test_captions_are_taken_by_the_clip(values: dict[str, Any], tmp_path: Path) -> None:
    without_captions(values)
    clips = values["media_dir"]
    captions = [
        {"id": "x", "video": "0.mp4", "caption": "A dog."},
        {"id": "y", "video": f"{clips}/1.mp4", "caption": "A cat."},
        {"id": "z", "video": "7.mp4", "caption": "Not used."},
        {"id": "w", "video": "other.mp4", "caption": "Of a clip that no question has."},
    ]
    path = str(write_rows(tmp_path / "captions.jsonl", captions))
    report = RowReport("questions")
    found = read_run_questions(build_settings({**values, "captions": path}), report)
    assert [question.caption for question in found[:3]] == ["A dog.", "A cat.", ""]
    assert found[7].caption == "A ring moves left. [item-7]"
    assert f"questions: the caption is that of the clip in {path} (2 rows)" in report.remarks()
    assert f"questions: the question's own caption is used, not that of {path} (1 rows)" in report.remarks()


def test_cut_captions_are_no_silent_evidence(values: dict[str, Any], tmp_path: Path) -> None:
    without_captions(values)
    captions = [
        {"id": "x", "video": "0.mp4", "caption": "A dog walks along the", "finish": "length"},
        {"id": "y", "video": "1.mp4", "caption": "A cat.", "finish": "stop"},
        {"id": "z", "video": "7.mp4", "caption": "Not used, since the", "finish": "length"},
    ]
    path = str(write_rows(tmp_path / "captions.jsonl", captions))
    report = RowReport("questions")
    read_run_questions(build_settings({**values, "captions": path}), report)
    assert f"questions: {CUT_CAPTION} (1 rows)" in report.remarks()
    whole = str(write_rows(tmp_path / "whole.jsonl", [{**row, "finish": "stop"} for row in captions]))
    report = RowReport("questions")
    read_run_questions(build_settings({**values, "captions": whole}), report)
    assert CUT_CAPTION not in report.notes


@pytest.mark.parametrize(
    ("captions", "reason"),
    [
        ([{"video": "0.mp4", "caption": "A dog."}, {"video": "0.mp4", "caption": "A cat."}], "row 1 has another"),
        ([{"video": "0.mp4"}], "expected a `caption`"),
        ([{"caption": "A dog."}], "one clip or image"),
        ([{"video": "0.mp4", "caption": 3}], "a text"),
        ([], "empty"),
    ],
)
def test_other_files_are_refused(
    captions: list[dict[str, Any]], reason: str, values: dict[str, Any], tmp_path: Path
) -> None:
    path = str(write_rows(tmp_path / "captions.jsonl", captions))
    with pytest.raises(DataError, match=f"captions.*{reason}"):
        read_run_questions(build_settings({**values, "captions": path}))
    with pytest.raises(DataError, match="captions"):
        read_run_questions(build_settings({**values, "captions": str(tmp_path / "absent.jsonl")}))


def test_the_same_caption_twice_is_fine(values: dict[str, Any], tmp_path: Path) -> None:
    without_captions(values)
    path = str(write_rows(tmp_path / "captions.jsonl", [{"video": "0.mp4", "caption": "A dog."}] * 2))
    assert read_run_questions(build_settings({**values, "captions": path}))[0].caption == "A dog."
