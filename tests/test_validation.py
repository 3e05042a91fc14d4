"""What every block of settings shares: strict values, messages, and the page that documents the keys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from hound_plugin.errors import SettingsError
from hound_plugin.validation import (
    NUMBER,
    OFF,
    SWITCH,
    Settings,
    accepts,
    build,
    default_in_words,
    documented,
    keys_of,
    read_recipe,
    read_yaml,
)

ROOT = Path(__file__).resolve().parents[1]


class Wheel(Settings):
    size: float = Field(ge=1, le=30, description="how large", json_schema_extra={"unit": "inches"})
    spokes: int = 32


class Bicycle(Settings):
    name: str
    wheel: Wheel = Wheel(size=28)
    wheels: dict[str, Wheel] = Field(default_factory=dict)
    bell: Annotated[Literal["on", "off", "loud"], SWITCH] = "on"
    gears: Annotated[int | None, NUMBER, OFF] = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _named(self) -> Bicycle:
        if self.name == "car":
            raise ValueError("name: a car is not a bicycle.")
        return self


GOOD = {"name": "b"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "x.name: must be given: text."),
        ({"name": 3}, "x.name: expected text; got 3."),
        ({"name": "car"}, "x.name: a car is not a bicycle."),
        ({**GOOD, "wheel": {"size": 31}}, "x.wheel.size: expected a number of inches of at least 1 and at most 30"),
        ({**GOOD, "wheel": {"size": True}}, "x.wheel.size: expected a number of inches"),
        ({**GOOD, "wheel": {"size": 2, "spoke": 1}}, "x.wheel.spoke: unknown key. Did you mean 'spokes'? Known"),
        ({**GOOD, "wheel": [1]}, "x.wheel: expected a block of `key: value` lines; got [1]"),
        ({**GOOD, "wheels": {"front": {"spokes": 3}}}, "x.wheels.front.size: must be given: a number of inches"),
        ({**GOOD, "bell": "quiet"}, "x.bell: expected one of on, off, loud; got 'quiet'"),
        ({**GOOD, "gears": "many"}, "x.gears: expected a whole number of at least 1 or off; got 'many'"),
        ({**GOOD, "gears": 0}, "got 0"),
        ({**GOOD, 7: 1}, "x.7: unknown key. Known keys: name, wheel"),
        ([1], "x: expected a block of `key: value` lines (name, wheel, wheels, bell, gears); got [1]"),
    ],
)  # fmt: skip
def test_bad_values(values: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build(Bicycle, values, "x.")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"gears": "7"}, "gears", 7),
        ({"gears": 7.0}, "gears", 7),
        ({"gears": False}, "gears", None),
        ({"gears": "OFF"}, "gears", None),
        ({"bell": True}, "bell", "on"),
        ({"bell": False}, "bell", "off"),
        ({"wheel": None}, "wheel", None),
    ],
)
def test_values_as_people_write_them(values: dict[str, Any], key: str, expected: Any) -> None:
    if key == "wheel":  # an empty block has its defaults, and this one has a key without
        with pytest.raises(SettingsError, match=r"wheel\.size: must be given"):
            build(Bicycle, {**GOOD, **values})
    else:
        assert getattr(build(Bicycle, {**GOOD, **values}), key) == expected


def test_settings_cannot_be_changed_but_copied() -> None:
    bicycle = Bicycle(name="b")
    with pytest.raises(ValueError, match="frozen"):
        bicycle.name = "c"  # type: ignore[misc]
    assert bicycle.changed(name="c").name == "c"
    with pytest.raises(SettingsError, match="gears: expected"):
        bicycle.changed(gears=-1)


def test_keys_in_words() -> None:
    fields = dict(documented(Bicycle))
    assert list(fields) == ["name", "wheel.size", "wheel.spokes", "wheels", "bell", "gears"]
    assert accepts(fields["wheel.size"]) == "a number of inches of at least 1 and at most 30"
    assert [default_in_words(fields[key]) for key in ("name", "wheel.spokes", "wheels", "gears")] == [
        "",
        "32",
        "{}",
        "off",
    ]


def test_the_page_is_what_the_code_reads() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import write_settings
    finally:
        sys.path.pop(0)
    assert write_settings.PAGE.read_text(encoding="utf-8") == write_settings.page(), (
        "the settings have changed: run `python docs/write_settings.py`"
    )


def test_every_documented_key_is_described() -> None:
    from hound_plugin.judge.prompts import PromptTemplate
    from hound_plugin.llm.prices import Price
    from hound_plugin.reward.settings import RewardSettings
    from hound_plugin.settings import HoundSettings

    for model in (HoundSettings, RewardSettings, Price, PromptTemplate):
        assert not [key for key, field in documented(model) if not field.description]
    assert "json" in keys_of(PromptTemplate)


def test_torch_is_imported_without_pydantic_of_ours() -> None:
    code = "import torch, sys; print([name for name in sys.modules if name.startswith('hound_plugin')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "hound_plugin.host.autoload" in done.stdout
    for name in ("validation", "settings", "settings_state"):
        assert f".{name}'" not in done.stdout


READ_OTHERWISE = {
    "a key twice": ("judge: {k: 3}\nname: x\njudge: {model: y}", "'judge' appears twice"),
    "a key twice within": ("judge:\n  k: 3\n  k: 5", "'k' appears twice"),
    "a key twice in quotes": ("'name': a\nname: b", "'name' appears twice"),
    "an octal number": ("seed: 010", "'010' is another number in YAML"),
    "a negative octal number": ("seed: -0_17", "'-0_17' is another number"),
    "a time": ("timeout: 1:30", "'1:30' is another number"),
    "a long time": ("timeout: 1:30:10.5", "'1:30:10.5' is another number"),
}


@pytest.mark.parametrize("kind", READ_OTHERWISE)
def test_what_yaml_reads_otherwise_than_it_looks_is_refused(kind: str, tmp_path: Path) -> None:
    text, message = READ_OTHERWISE[kind]
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_text("name: x")
    with pytest.raises(SettingsError, match=message):
        read_recipe(tmp_path / "recipe.yaml", [f"block={text}"])


def test_ordinary_yaml_is_read_as_ever() -> None:
    text = "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: 0\nd: 0.5\ne: '010'\nf: 1_000\ng: 0x1F\nh: -7\n"
    text += "i: 1.0e-5\nj: 0.0\nk: 08\n"
    assert read_yaml(text) == {
        "a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}, "c": 0, "d": 0.5, "e": "010", "f": 1000, "g": 31, "h": -7,
        "i": 1e-5, "j": 0.0, "k": "08",
    }  # fmt: skip
