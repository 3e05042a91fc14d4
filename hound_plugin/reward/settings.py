"""Settings of ``hound reward``: one YAML for all stages. Unknown keys and bad values are refused by name.

A stage's block may be left out. On the command line ``block.key=value`` overrides the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hound_plugin.engines.settings import EngineSettings
from hound_plugin.judge.settings import JudgeSettings
from hound_plugin.llm.prices import Prices
from hound_plugin.llm.sampler_settings import SamplerSettings
from hound_plugin.validation import Settings, build, read_recipe


class SampleSettings(SamplerSettings):
    """Where the answers to be judged come from, and how many there are."""

    n: int = Field(default=6, ge=1, description="answers per question")


class PairSettings(Settings):
    """Which answers become pairs."""

    policy: Literal["threshold", "best-worst", "all", "margin"] = Field(
        default="threshold",
        description="chosen at or above `threshold`, rejected below it; best against worst; all; by `margin`",
    )
    threshold: float = Field(
        default=3.0,
        ge=0,
        le=100,
        description="lowest score of a chosen answer; must be given if the protocol's scale is not 1 to 5",
    )
    margin: float = Field(default=2.0, ge=0, le=100, description="smallest difference of scores under policy `margin`")
    min_gap: float = Field(default=1.0, ge=0, le=100, description="smallest difference of scores under every policy")
    max_length_ratio: float | None = Field(
        default=None, ge=1, description="3: neither answer of a pair is more than three times as long as the other"
    )
    near_duplicate: float | None = Field(default=0.9, ge=0, le=1, description="answers this similar make no pair")
    max_pairs: int = Field(default=1, ge=1, description="pairs per question, at most")
    chosen_from_reference: bool = Field(default=False, description="use the reference answer as the chosen one")
    replace_dropped: bool = Field(
        default=False,
        description="another pair of the same question takes the place of one that was dropped by hand",
    )
    name: str = Field(default="hound_pairs", description="name of the data set and of its file")


class ReportSettings(Settings):
    """What the report includes besides the run."""

    second: str | None = Field(default=None, description="another judge's `scores.jsonl`, for agreement")


class IterateSettings(Settings):
    """Rounds of sample, judge, pairs and DPO."""

    rounds: int = Field(default=2, ge=1, description="number of rounds")
    recipe: str = Field(default="", description="LLaMA-Factory's YAML for DPO")
    shards: bool = Field(default=True, description="each round has its own share of the questions")
    evaluation: str | None = Field(
        default=None,
        description="a YAML of `hound eval`, by which the first model and that of every round are evaluated",
    )


class RewardSettings(Settings):
    """Everything ``hound reward`` reads from its YAML.

    Raises:
        SettingsError: as :class:`~hound_plugin.validation.Settings`; a back end without its model, or ``max_cost``
            without prices.
    """

    folder: str = Field(description="where the run is written")
    questions: str = Field(description="a file of questions (JSONL, Parquet; a URL)")
    media_dir: str | None = Field(default=None, description="folder of the clips and images")
    captions: str | None = Field(
        default=None,
        description="a JSONL of clips with captions, as `hound caption` writes it, for questions without one",
    )
    seed: int = Field(default=0, description="for sampling and shuffling")
    limit: int | None = Field(default=None, ge=1, description="use only this many questions, from the first on")
    on_bad_rows: Literal["error", "skip"] = Field(
        default="error",
        description="rows that cannot be used: `error` stops; `skip` leaves them out, listed in the folder's "
        "`bad_rows.jsonl`",
    )
    max_bad_rows: float = Field(
        default=0.01, ge=0, le=1, description="largest share of rows that `on_bad_rows: skip` may leave out"
    )
    max_cost: float | None = Field(default=None, ge=0, description="the run stops before its total cost exceeds this")
    prices: Prices = Field(default_factory=dict, description="per million tokens, by model; none is built in")
    sample: SampleSettings = SampleSettings()
    judge: JudgeSettings = JudgeSettings()
    pairs: PairSettings = PairSettings()
    report: ReportSettings = ReportSettings()
    iterate: IterateSettings = IterateSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _check_combinations(self) -> RewardSettings:
        if self.judge.backend != "lexical" and not self.judge.model:
            raise ValueError(f"judge.model: backend {self.judge.backend} needs the name of a model.")
        if self.sample.backend != "given" and not self.sample.model:
            raise ValueError(f"sample.model: backend {self.sample.backend} needs a checkpoint or a model's name.")
        if self.sample.backend == "given" and not self.sample.answers:
            raise ValueError("sample.answers: backend given needs a JSONL file of id, candidate and answer.")
        paid = [self.judge.model] if self.judge.backend in ("openai", "openai-batch", "vision") else []
        paid += [self.sample.model] if self.sample.backend == "openai" else []
        unknown = [model for model in paid if model not in self.prices]
        if self.max_cost is not None and unknown:
            raise ValueError(f"max_cost: there is no price for {', '.join(unknown)}; add it under `prices`.")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``run.json``."""
        return self.model_dump()


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> RewardSettings:
    """Settings from a YAML file.

    Args:
        path: the file.
        overrides: ``key=value`` or ``block.key=value``, values in YAML.

    Raises:
        SettingsError: no such file, not valid YAML, an unknown key or a bad value; the message names it.
    """
    return build_settings(read_recipe(path, overrides))


def build_settings(values: Mapping[str, Any]) -> RewardSettings:
    """Settings from plain values; raises as :func:`read_settings`."""
    return build(RewardSettings, values)
