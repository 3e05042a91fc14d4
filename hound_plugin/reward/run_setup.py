"""A run of ``hound reward``: its settings, folder and checked questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hound_plugin.engines.choice import make_engine
from hound_plugin.errors import DataError, LedgerError, SettingsError
from hound_plugin.judge.backends import gives_verdict, make_judge, required_fields, scale_of, template_id
from hound_plugin.judge.parsing import Scale
from hound_plugin.llm.ledger import Ledger
from hound_plugin.pages.frames import FrameReader
from hound_plugin.records.bad_rows import LIST, RowReport, to_lines
from hound_plugin.records.files import write_whole
from hound_plugin.records.media_identity import media_digest
from hound_plugin.records.questions import Question, check_fields, read_questions
from hound_plugin.records.run_folders import open_folder
from hound_plugin.reward.candidates import Generator
from hound_plugin.reward.captions import with_captions
from hound_plugin.reward.run_folder import CANDIDATES, LEDGER
from hound_plugin.reward.settings import RewardSettings, SampleSettings

MakeGenerator = Callable[[SampleSettings], Generator]
MakeFrames = Callable[[SampleSettings, int], FrameReader]


@dataclass
class Run:
    """A run folder with checked questions.

    Attributes:
        settings: all of them.
        folder: where everything is written.
        questions: checked.
        say: receives lines for the user.
        make_generator: loads the model for sampling in this process.
        make_frames: gives the reader of the frames that the sampler saw; without it, pages show eight of each clip.
        counts: by stage, for ``run.json``.
        is_bound: whether the questions were compared with what the folder's answers are about.
    """

    settings: RewardSettings
    folder: Path
    questions: list[Question]
    say: Callable[[str], None]
    make_generator: MakeGenerator | None = None
    make_frames: MakeFrames | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    is_bound: bool = False
    _digests: dict[str, str] | None = None

    def media_digests(self) -> dict[str, str] | None:
        """Hash of each question's clip if requests show it, else None; computed once."""
        if self.settings.judge.backend != "vision":
            return None
        if self._digests is None:
            self._digests = {question.id: media_digest(question.paths) for question in self.questions}
        return self._digests


def open_run(
    settings: RewardSettings,
    say: Callable[[str], None],
    make_generator: MakeGenerator | None = None,
    make_frames: MakeFrames | None = None,
    *,
    dry: bool = False,
) -> Run:
    """Make every check that needs no request, then open the folder; if ``dry``, write nothing.

    Raises:
        DataError, MediaNotFoundError: questions that cannot be used.
        SettingsError: a folder that is not writable, no API key, a bad prompt template.
        LedgerError: a ledger made with another prompt template.
        EnvironmentMismatchError: the engine is not installed.
    """
    check_scale(settings)
    make_engine(settings.engine)
    report = RowReport(settings.questions)
    questions = read_run_questions(settings, report)
    check_fields(questions, required_fields(settings.judge), f"judge.backend {settings.judge.backend}")
    blind = [question.id for question in questions if not question.medium]
    if settings.judge.backend == "vision" and blind:
        raise DataError(f"judge.backend vision: {len(blind)} questions have no clip; the first is {blind[0]}.")
    if settings.pairs.chosen_from_reference and not any(question.reference for question in questions):
        raise DataError("pairs.chosen_from_reference: no question has a `reference`.")
    run = Run(settings, Path(settings.folder), questions, say, make_generator, make_frames)
    if dry:
        report_bad_rows(report, settings, None, say)
        return run
    folder = open_folder(settings.folder)
    try:
        with Ledger(folder / LEDGER, template_id(settings.judge)) as ledger:
            make_judge(settings.judge, ledger, lambda _: None, probe_server=False)
    except LedgerError as error:
        raise LedgerError(
            f"{error} The same answers can be judged in a new folder: sample.backend=given "
            f"sample.answers={folder / CANDIDATES}."
        ) from error
    report_bad_rows(report, settings, folder, say)
    return run


def check_scale(settings: RewardSettings) -> None:
    """Compare the settings of pairs with the judge's scale.

    Raises:
        SettingsError: a judge of verdicts, a threshold or a difference that no scores can have, or a default threshold
            on another scale.
    """
    if gives_verdict(settings.judge):
        raise SettingsError(
            f"judge.protocol: {settings.judge.template} asks for a yes or no besides the score, which is for `hound "
            "eval`. Preference data is made of scores alone: use `caption`, `vision`, or a file without `verdict`."
        )
    scale, pairs = scale_of(settings.judge), settings.pairs
    if not scale.lowest <= pairs.threshold <= scale.highest:
        raise SettingsError(
            f"pairs.threshold: expected a number on the judge's scale, {scale}; got {pairs.threshold:g}."
        )
    for name in ("margin", "min_gap"):
        value, most = getattr(pairs, name), scale.highest - scale.lowest
        if value > most and (name == "min_gap" or pairs.policy == "margin"):
            raise SettingsError(f"pairs.{name}: expected at most {most} on the judge's scale, {scale}; got {value:g}.")
    if scale != Scale() and pairs.policy == "threshold" and "threshold" not in pairs.model_fields_set:
        raise SettingsError(f"pairs.threshold: must be given, because the judge's scale is {scale}, not {Scale()}.")


def read_run_questions(settings: RewardSettings, report: RowReport | None = None) -> list[Question]:
    """The questions of a run, with captions of their clips if there is a file of them.

    Raises:
        DataError, MediaNotFoundError: as :func:`hound_plugin.records.questions.read_questions` and
            :func:`hound_plugin.reward.captions.with_captions`.
    """
    report = report if report is not None else RowReport(settings.questions)
    questions = read_questions(
        settings.questions,
        settings.media_dir,
        settings.limit,
        on_bad_rows=settings.on_bad_rows,
        max_bad_rows=settings.max_bad_rows,
        report=report,
    )
    if settings.captions is None:
        return questions
    return with_captions(questions, settings.captions, settings.media_dir, report)


def report_bad_rows(
    report: RowReport, settings: RewardSettings, folder: Path | None, say: Callable[[str], None]
) -> None:
    """Print what was decided about rows of questions, and list those left out in the folder if there is one."""
    for line in report.remarks():
        say(line)
    listed = None if folder is None else folder / LIST
    if listed is not None and report.bad:
        write_whole(listed, to_lines(report.entries))
    elif listed is not None:
        listed.unlink(missing_ok=True)  # of an earlier run
    if report.bad:
        say(f"warning: {report.settle('skip', settings.max_bad_rows, listed)}")
