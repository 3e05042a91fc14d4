"""Settings of ``hound eval``: one YAML for all stages. Unknown keys and bad values are refused by name.

On the command line ``key=value`` or ``block.key=value`` overrides the file.
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
from hound_plugin.records.row_sources import names_rows
from hound_plugin.validation import Settings, build, read_recipe

NEEDS_A_MODEL = ("openai", "openai-batch", "vision", "local")


class PredictSettings(SamplerSettings):
    """Where predictions come from: our model in this process, a server, or a file that some model's program wrote."""

    temperature: float = Field(default=0.0, ge=0, description="0 is greedy, as the published numbers are")
    top_p: float = Field(default=0.9, ge=1e-6, le=1, description="nucleus sampling: share of probability")
    max_new_tokens: int = Field(default=1024, ge=1, description="longest answer, in tokens")
    batch_size: int = Field(default=16, ge=1, description="questions at a time, for a model in this process")
    answers: str | None = Field(
        default=None,
        description="backend `given`: a file of predictions, in any of the known forms; `{set}` in it stands for the "
        "name of the test set",
    )


class EvaluationJudgeSettings(JudgeSettings):
    """Which model judges, and how its replies are read."""

    protocol: str | None = Field(
        default=None,
        description="`official`, `caption`, `vision`, or a YAML file with your own prompt; by default the suite's",
    )
    parsing: Literal["strict", "original"] = Field(
        default="strict",
        description="`original` reads replies and counts as the original's scripts do, for comparison with its numbers",
    )
    max_words: int | None = Field(
        default=256, ge=1, description="the judge sees this many words of a prediction, as in the original; null: all"
    )
    metric: Literal["exact_match", "contains", "token_f1", "rouge_l"] = Field(
        default="exact_match",
        description="backend `lexical`: what decides, without a judge; `token_f1` and `rouge_l` give no verdict; "
        "`rouge_l` for captions unless given",
    )
    correct_from: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="lowest score of a right answer, for protocols without a verdict; 3 on the scale from 1 to 5",
    )


class EvaluationReportSettings(Settings):
    """What the report shows."""

    examples: int = Field(default=200, ge=0, description="questions on the page with frames, worst first; 0: all")


class EvaluationSettings(Settings):
    """Everything ``hound eval`` reads from its YAML.

    Raises:
        SettingsError: as :class:`~hound_plugin.validation.Settings`; a back end without its model or file, or
            ``max_cost`` without prices.
    """

    suite: str = Field(
        default="demo", description="a suite of `hound eval list`, or a file of questions: JSONL, Parquet, a URL"
    )
    model: str = Field(
        default="", description="checkpoint or adapter (folder or hub id), or the server's name of a model"
    )
    name: str = Field(default="run", description="the run's name; its folder is `<folder>/<name>/<suite>`")
    folder: str = Field(default="saves/hound_eval", description="where runs are written")
    data: str | None = Field(
        default=None, description="folder of `hound corpus download`, or of `hound demo`; by default the suite's"
    )
    media_dir: str | None = Field(default=None, description="folder of the clips; by default the suite's, under `data`")
    limit: int | None = Field(default=None, ge=1, description="use only this many questions of each test set")
    seed: int = Field(default=0, description="of resampling, and of answers if `predict.temperature` is not 0")
    max_cost: float | None = Field(default=None, ge=0, description="stop before the folder's total cost exceeds this")
    prices: Prices = Field(default_factory=dict, description="per million tokens, by model; none is built in")
    predict: PredictSettings = PredictSettings()
    judge: EvaluationJudgeSettings = EvaluationJudgeSettings()
    report: EvaluationReportSettings = EvaluationReportSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="before")
    @classmethod
    def _one_model(cls, values: Any) -> Any:
        """``model`` and ``predict.model`` are the same key."""
        predict = values.get("predict") if isinstance(values, Mapping) else None
        if isinstance(predict, PredictSettings):
            predict = {name: getattr(predict, name) for name in predict.model_fields_set}
        if not isinstance(values, Mapping) or not isinstance(predict, Mapping | None):
            return values
        inner, outer = (predict or {}).get("model", ""), values.get("model", "")
        if inner and outer and inner != outer:
            raise ValueError(f"model: {outer!r} is not predict.model, {inner!r}; give only one of them.")
        return {**values, "model": outer or inner, "predict": {**(predict or {}), "model": outer or inner}}

    @model_validator(mode="after")
    def _check_combinations(self) -> EvaluationSettings:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(
                f"name: expected a name for a folder, without `/` and without `.` at the start; got {self.name!r}."
            )
        if self.judge.backend in NEEDS_A_MODEL and not self.judge.model:
            raise ValueError(f"judge.model: backend {self.judge.backend} needs the name of a model.")
        if self.predict.backend == "given" and not self.predict.answers:
            raise ValueError("predict.answers: backend given needs a file of predictions.")
        paid = [self.judge.model] if self.judge.backend in ("openai", "openai-batch", "vision") else []
        paid += [self.model] if self.predict.backend == "openai" else []
        unknown = [model for model in paid if model not in self.prices]
        if self.max_cost is not None and unknown:
            raise ValueError(f"max_cost: there is no price for {', '.join(unknown)}; add it under `prices`.")
        return self

    def for_suite(self, protocol: str, measure: str) -> EvaluationSettings:
        """These settings with a suite's protocol and measure where the user chose none; frames have their own."""
        chosen = {name: getattr(self.judge, name) for name in self.judge.model_fields_set}
        if self.judge.protocol is None and self.judge.backend != "vision":
            chosen["protocol"] = protocol
        chosen.setdefault("metric", measure)
        return self.changed(judge=EvaluationJudgeSettings(**chosen))

    @property
    def suite_name(self) -> str:
        """Name of the suite; of a file, its name without the suffix."""
        return Path(self.suite).stem if names_rows(self.suite) else self.suite

    @property
    def run_folder(self) -> Path:
        """``<folder>/<name>/<suite>``."""
        return Path(self.folder) / self.name / self.suite_name

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``run.json``."""
        return self.model_dump()


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """Settings from a YAML file.

    Args:
        path: the file.
        overrides: ``key=value`` or ``block.key=value``, values in YAML.

    Raises:
        SettingsError: no such file, not valid YAML, an unknown key or a bad value; the message names it.
    """
    return build(EvaluationSettings, read_recipe(path, overrides))
