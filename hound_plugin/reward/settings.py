"""Settings of ``hound reward``: one YAML for all stages. Unknown keys and bad values are refused by name.

A stage's block may be left out. On the command line ``block.key=value`` goes over the file.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml

from hound_plugin.errors import SettingsError
from hound_plugin.judge.prices import read_prices


def _at_least(low: float, default: Any = MISSING, high: float = float("inf"), **more: Any) -> Any:
    """A number with its range, which is checked when settings are read."""
    return field(default=default, metadata={"range": (low, high), **more})


@dataclass(frozen=True)
class SampleSettings:
    """Answers to judge. ``backend``: our model in this process, a server, or a file of answers that are there."""

    backend: Literal["model", "openai", "given"] = "model"
    model: str = ""
    n: int = _at_least(1, 6)
    temperature: float = _at_least(0, 1.0)
    top_p: float = _at_least(1e-6, 0.95, 1.0)
    max_new_tokens: int = _at_least(1, 512)
    device: str | None = None
    dtype: str = "auto"
    batch_size: int = _at_least(1, 8)
    num_frames: int | None = _at_least(1, None)
    answers: str | None = None
    # a server
    show: Literal["video_url", "frames", "none"] = "video_url"
    base_url: str | None = None
    azure_endpoint: str | None = None
    api_version: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = _at_least(0.1, 300.0)
    concurrency: int = _at_least(1, 16)
    tries: int = _at_least(1, 6)
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeSettings:
    """Who judges, and how."""

    backend: Literal["lexical", "openai", "openai-batch", "vision", "local"] = "lexical"
    model: str = ""
    protocol: str | None = None
    answer_format: Literal["auto", "json", "text"] = "auto"
    k: int = _at_least(1, 1)
    attempts: int = _at_least(1, 3)
    seed: int | None = None
    reference: bool = True
    # a server
    base_url: str | None = None
    azure_endpoint: str | None = None
    api_version: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = _at_least(0.1, 120.0)
    concurrency: int = _at_least(1, 64)
    tries: int = _at_least(1, 6)
    parameters: dict[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 300})
    # frames as images
    num_frames: int = _at_least(1, 8)
    frame_size: int = _at_least(32, 512)
    image_tokens: int = _at_least(0, 255)  # of one frame, for estimates only; providers count differently
    # the Batch API
    batch_rows: int = _at_least(1, 50_000, 50_000)
    batch_bytes: int = _at_least(1000, 150_000_000, 200_000_000)
    poll: float = _at_least(0.01, 60.0)
    # a model in this process
    device: str | None = None
    dtype: str = "auto"
    batch_size: int = _at_least(1, 8)

    @property
    def protocol_name(self) -> str:
        """The protocol, by default the one that fits the back end."""
        return self.protocol or ("vision" if self.backend == "vision" else "caption")


@dataclass(frozen=True)
class PairSettings:
    """Which answers become pairs."""

    policy: Literal["threshold", "best-worst", "all", "margin"] = "threshold"
    threshold: float = _at_least(1, 3.0, 5.0)
    margin: float = _at_least(0, 2.0, 4.0)
    min_gap: float = _at_least(0, 1.0, 4.0)
    max_length_ratio: float | None = _at_least(1, None)
    near_duplicate: float | None = _at_least(0, 0.9, 1.0)
    max_pairs: int = _at_least(1, 1)
    chosen_from_reference: bool = False
    name: str = "hound_pairs"


@dataclass(frozen=True)
class ReportSettings:
    """What the report looks at besides the run: a second judge's ``scores.jsonl``, for agreement."""

    second: str | None = None


@dataclass(frozen=True)
class IterateSettings:
    """Rounds of sample -> judge -> pairs -> DPO: the host's recipe for DPO, and how often."""

    rounds: int = _at_least(1, 2)
    recipe: str = ""
    shards: bool = True


@dataclass(frozen=True)
class RewardSettings:
    """Everything. ``prices`` is per million tokens, by model: ``{input, output, batch}``."""

    folder: str
    questions: str
    media_dir: str | None = None
    seed: int = 0
    limit: int | None = _at_least(1, None)
    max_cost: float | None = _at_least(0, None)
    prices: dict[str, Any] = field(default_factory=dict)
    sample: SampleSettings = field(default_factory=SampleSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    iterate: IterateSettings = field(default_factory=IterateSettings)

    def __post_init__(self) -> None:
        """Check what concerns more than one key.

        Raises:
            SettingsError: a back end without its model, or a limit of cost without prices.
        """
        prices = read_prices(self.prices)
        if self.judge.backend != "lexical" and not self.judge.model:
            raise SettingsError(f"judge.model: backend {self.judge.backend} needs the name of a model.")
        if self.sample.backend != "given" and not self.sample.model:
            raise SettingsError(f"sample.model: backend {self.sample.backend} needs a checkpoint or a model's name.")
        if self.sample.backend == "given" and not self.sample.answers:
            raise SettingsError("sample.answers: backend given needs a JSONL file of id, candidate and answer.")
        paid = [self.judge.model] if self.judge.backend in ("openai", "openai-batch", "vision") else []
        paid += [self.sample.model] if self.sample.backend == "openai" else []
        unknown = [model for model in paid if model not in prices]
        if self.max_cost is not None and unknown:
            raise SettingsError(f"max_cost: there is no price for {', '.join(unknown)}; add it under `prices`.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``run.json``."""
        return asdict(self)


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> RewardSettings:
    """Settings from a YAML file.

    Args:
        path: the file.
        overrides: ``key=value`` or ``block.key=value``, values in YAML.

    Raises:
        SettingsError: no such file, no YAML, an unknown key or a bad value; the message names it.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: expected a YAML file: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected `key: value` lines; got {type(values).__name__}.")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise SettingsError(f"{override!r}: expected key=value, such as judge.k=3.")
        block = values
        *above, last = name.split(".")
        for part in above:
            block = block.setdefault(part, {})
            if not isinstance(block, dict):
                raise SettingsError(f"{name}: {part} is no block.")
        block[last] = yaml.safe_load(text)
    return build_settings(values)


def build_settings(values: Mapping[str, Any]) -> RewardSettings:
    """Settings from plain values; errors as :func:`read_settings`."""
    built = _build(RewardSettings, values, "")
    assert isinstance(built, RewardSettings)
    return built


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise SettingsError(f"{where.rstrip('.')}: expected a block of `key: value` lines; got {values!r}.")
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    for name in values:
        if name in ("api_key", "key"):
            raise SettingsError(f"{where}{name}: keys are read from the environment only; name it in api_key_env.")
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise SettingsError(f"{where}{name}: unknown key.{hint} Known keys: {', '.join(known)}.")
    missing = [
        n for n, item in known.items()
        if n not in values and item.default is MISSING and item.default_factory is MISSING
    ]  # fmt: skip
    if missing:
        raise SettingsError(f"{where}{missing[0]}: must be given.")
    given = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            given[name] = _build(hints[name], value if value is not None else {}, f"{where}{name}.")
        else:
            given[name] = _value(hints[name], value, f"{where}{name}", known[name].metadata.get("range"))
    return kind(**given)


def _value(hint: Any, value: Any, where: str, span: tuple[float, float] | None) -> Any:
    """``value`` if it is what the hint allows, whole numbers as floats where those are wanted."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    (kind,) = (option for option in options if option is not type(None))
    if typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
        raise SettingsError(f"{where}: expected one of {', '.join(typing.get_args(kind))}; got {value!r}.")
    kind = typing.get_origin(kind) or kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a block"}
        raise SettingsError(f"{where}: expected {names[kind]}; got {value!r}.")
    if span is not None and not span[0] <= value <= span[1]:
        raise SettingsError(f"{where}: expected at least {span[0]:g} and at most {span[1]:g}; got {value!r}.")
    return value
