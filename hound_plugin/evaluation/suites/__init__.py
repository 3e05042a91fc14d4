"""Suites: which test sets, where they are, how the paper judges them. Each is one YAML file beside this module."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from hound_plugin.corpus.schema import CORPORA, FRAMES
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.row_sources import is_file, is_url, names_rows
from hound_plugin.validation import Settings, build, read_yaml

BUILT_IN = ("in-domain", "out-of-domain", "official", "captions", "demo")
DATA = "data"
"""Default folder of ``hound corpus download``."""


class Suite(Settings):
    """A suite as its file declares it.

    Raises:
        SettingsError: as :class:`~hound_plugin.validation.Settings`; no test set, or an unknown corpus.
    """

    title: str = Field(description="one line for `hound eval list`")
    paper: str = Field(default="", description="what the paper calls it")
    sets: dict[str, str] = Field(default_factory=dict, description="name of a test set -> id of its corpus")
    files: dict[str, str] = Field(default_factory=dict, description="name of a test set -> its file under the root")
    root: str = Field(default=DATA, description="folder of the files, if `data` does not name another")
    media: str = Field(default=FRAMES, description="folder of the clips under the root")
    ask: str | None = Field(default=None, description="asked about every clip once, with its caption as the reference")
    protocol: Literal["official", "caption"] = Field(default="official", description="the judge's prompt")
    measure: Literal["exact_match", "contains", "token_f1", "rouge_l"] = Field(
        default="exact_match", description="what decides without a judge"
    )
    metric: str = Field(default="", description="what is reported, in words")

    @model_validator(mode="after")
    def _check_sets(self) -> Suite:
        if not self.sets and not self.files:
            raise ValueError("sets: a suite needs one test set or more, in `sets` or `files`.")
        unknown = [corpus for corpus in self.sets.values() if corpus not in CORPORA]
        if unknown:
            raise ValueError(f"sets: unknown corpora {', '.join(unknown)}; `hound corpus list` shows those there are.")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the test sets."""
        return (*self.sets, *self.files)

    @property
    def rows(self) -> int | None:
        """About how many questions there are, as the authors state it; None if they do not."""
        numbers = [CORPORA[corpus].rows for corpus in self.sets.values()]
        return None if None in numbers or self.files else sum(number or 0 for number in numbers)

    def paths(self, data: str | None) -> dict[str, Path | str]:
        """The file of each test set, also as Parquet of the same name; a URL as text.

        Args:
            data: the folder that replaces ``root``.
        """
        root = Path(data if data is not None else self.root)
        files = {**{name: CORPORA[corpus].paths()[0] for name, corpus in self.sets.items()}, **self.files}
        return {name: str(file) if is_url(file) else _either(root / file) for name, file in files.items()}

    def media_dir(self, data: str | None) -> str:
        """The folder that the rows' paths are relative to."""
        return str(Path(data if data is not None else self.root) / self.media)


def _either(path: Path) -> Path:
    """A file of JSON lines, or the same rows as Parquet if only those are there."""
    parquet = path.with_suffix(".parquet")
    return parquet if parquet.is_file() and not path.is_file() else path


def read_suite(name: str) -> Suite:
    """A built-in suite, or one test set from a JSONL file of questions.

    Raises:
        SettingsError: no such suite; the message lists them.
        DataError: no such file.
    """
    if names_rows(name):
        if not is_file(name):
            raise DataError(f"suite: expected a file of questions, but {name} does not exist.")
        if is_url(name):
            return Suite(title=f"questions of {name}", files={Path(name).stem: name}, root=".", media="")
        file = Path(name).absolute()
        return Suite(title=f"questions of {name}", files={file.stem: file.name}, root=str(file.parent), media="")
    if name not in BUILT_IN:
        raise SettingsError(
            f"suite: expected one of {', '.join(BUILT_IN)}, or a file of questions (JSONL, Parquet); got {name!r}."
        )
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return build(Suite, read_yaml(text), f"suite {name}: ")


def missing_files(suite: Suite, data: str | None) -> list[Path | str]:
    """Files of a suite's questions that are not on this machine."""
    return [path for path in suite.paths(data).values() if not is_file(path)]


def how_to_get(name: str, suite: Suite, data: str | None) -> str:
    """The commands that bring a suite's questions and clips onto this machine."""
    if not suite.sets:
        return "Run `hound demo --run`." if name == "demo" else ""
    into = [] if data in (None, DATA) else ["--folder", str(data)]
    ids = dict.fromkeys(suite.sets.values())
    download = ["hound", "corpus", "download", "--only", *ids, "--with-media", *into]
    extract = ["hound", "corpus", "extract", *into]
    return f"Run `{' '.join(download)}` and `{' '.join(extract)}`."
