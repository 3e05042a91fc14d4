"""The demo's curriculum: what is asked at which stage, of which clips, in which style."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import yaml

from hound_plugin.demo.build import draw_split
from hound_plugin.demo.clips import FRAMES, SIZE, Scene, Shape
from hound_plugin.demo.curriculum import STAGES, sft_records, stays_inside
from hound_plugin.demo.records import Record
from hound_plugin.demo.train import RECIPES

SMALL = (40, 40, 60, 200, 200, 300)


@pytest.fixture(scope="module")
def stages() -> list[list[Record]]:
    train = draw_split(0, 200, 1)[0]
    records = sft_records(train, np.random.default_rng(0), SMALL)
    ends = np.cumsum(SMALL)
    return [records[end - size : end] for end, size in zip(ends, SMALL, strict=True)]


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return {item.file: item.scene for item in draw_split(0, 200, 1)[0]}


def questions(record: Record) -> list[str]:
    return [turn["value"].split("\n")[-1] for turn in record["conversations"][::2]]


def answers(record: Record) -> list[str]:
    return [turn["value"] for turn in record["conversations"][1::2]]


def scene_of(record: Record, scenes: dict[str, Scene]) -> Scene:
    return scenes[record.get("video") or record["image"]]


def test_every_record_has_an_id_of_its_own(stages: list[list[Record]]) -> None:
    names = [record["id"] for stage in stages for record in stage]
    assert len(set(names)) == len(names) == sum(SMALL)


def test_motion_alone_comes_first_and_the_easiest_clips_before_all(
    stages: list[list[Record]], scenes: dict[str, Scene]
) -> None:
    for stage, margin in zip(stages[:3], (9, 0, None), strict=True):
        for record in stage:
            (question,), (answer,) = questions(record), answers(record)
            assert "move" in question
            assert answer.rstrip(".").split()[-1] in {"left", "right", "up", "down"}
            assert margin is None or stays_inside(scene_of(record, scenes), margin)
    assert not all(stays_inside(scene_of(record, scenes), 0) for record in stages[2])


def test_what_comes_last_is_asked_after_what_comes_first_and_less_often(
    stages: list[list[Record]], scenes: dict[str, Scene]
) -> None:
    def asked(stage: list[Record]) -> Counter[str]:
        words: Counter[str] = Counter()
        for record in stage:
            if scene_of(record, scenes).family == "order":
                words.update("first" if "first" in question else "last" for question in questions(record))
        return words

    assert asked(stages[3])["last"] == 0 < asked(stages[3])["first"]
    both = asked(stages[4])
    assert 1.5 < both["first"] / both["last"] < 3
    whole = asked(stages[5])
    assert 0.75 < whole["first"] / whole["last"] < 1.33


def test_all_clips_are_talked_about_and_a_conversation_has_one_style(
    stages: list[list[Record]], scenes: dict[str, Scene]
) -> None:
    assert {record.get("video") or record["image"] for record in stages[3]} == set(scenes)
    for stage in stages[:5]:
        assert all(answer.endswith(".") for record in stage for answer in answers(record))
    styles = Counter()
    for record in stages[5]:
        (style,) = {answer.endswith(".") for answer in answers(record)}
        styles[style] += 1
        assert len(set(questions(record))) == len(questions(record)) in (2, 3)
    assert 0.4 < styles[True] / styles.total() < 0.6


def test_few_clips_still_make_a_curriculum() -> None:
    train = draw_split(0, 1, 1)[0]
    assert sft_records(train, np.random.default_rng(0), (0, 0, 0, 0, 0, 3))
    assert len(sft_records(draw_split(5, 24, 1)[0], np.random.default_rng(0), SMALL)) == sum(SMALL)


@pytest.mark.parametrize(
    ("start", "step", "inside"),
    [(32.0, 1.0, True), (9.0, 1.5, True), (8.9, 1.5, False), (SIZE - 1.0, 1.0, False), (40.0, -2.0, True)],
)
def test_a_shape_stays_inside_on_the_axis_of_its_motion(start: float, step: float, inside: bool) -> None:
    across = Shape("red", "ring", start, 1.0, 12.0, dx=step)
    along = Shape("red", "ring", 1.0, start, 12.0, dy=step)
    for shape in (across, along):
        assert stays_inside(Scene("motion", (shape,)), 9.0) is inside
    assert FRAMES - 1 == 14


def test_the_recipe_fits_the_number_of_records() -> None:
    recipe = yaml.safe_load(RECIPES["sft"].read_text())
    steps = -(-sum(STAGES) // recipe["per_device_train_batch_size"])
    assert recipe["num_train_epochs"] == 1
    schedule = recipe["lr_scheduler_kwargs"]
    assert schedule["num_decay_steps"] == pytest.approx(0.4 * steps, rel=0.01)
    assert recipe["warmup_steps"] + schedule["num_stable_steps"] + schedule["num_decay_steps"] == steps
    assert recipe["warmup_steps"] < sum(STAGES[:2]) / recipe["per_device_train_batch_size"]
    assert recipe["disable_shuffling"] is True
