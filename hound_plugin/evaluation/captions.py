"""``hound caption``: a detailed caption for each clip, as rows of a corpus; resumable like every prediction.

The work is predicting: each clip is a question with a request drawn from a pool. Its folder, ``FILE.run/``, is that of
an evaluation; from it FILE is written at the end, in the order of the clips.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hound_plugin.engines.work import LOCAL, Engine
from hound_plugin.errors import LedgerError
from hound_plugin.evaluation.asked import bind_run
from hound_plugin.evaluation.caption_clips import ClipToDescribe
from hound_plugin.evaluation.caption_requests import Instructions
from hound_plugin.evaluation.items import CUT, Question
from hound_plugin.evaluation.prediction import Predictor, Say, predict_with_model, wait_for_others
from hound_plugin.evaluation.run_folder import QUESTIONS, freeze_questions, load_run
from hound_plugin.evaluation.server import predict_with_server
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.evaluation.shards import Shard
from hound_plugin.records.files import clear_leftovers, write_rows
from hound_plugin.records.parquet import SUFFIX, check_columns, write_parquet
from hound_plugin.records.placeholders import token_of
from hound_plugin.records.record import Record, Turn
from hound_plugin.records.run_folders import locked, open_folder, write_run
from hound_plugin.records.write import to_row

SET = "captions"
EMPTY = "the model answered nothing"


@dataclass(frozen=True)
class CaptionResult:
    """What became of the clips.

    Attributes:
        captions: how many have one.
        broken: id -> why there is none.
        added: captions of this process.
        cut: captions that reached the limit of tokens: their end is missing.
        missing: clips that a server has not answered about yet; then no file is written.
        usage: requests, tokens and cost of a server.
    """

    captions: int
    broken: dict[str, str] = field(default_factory=dict)
    added: int = 0
    cut: int = 0
    missing: int = 0
    usage: dict[str, Any] | None = None


def bad_list(out: Path) -> Path:
    """The file that lists clips without a caption, next to ``out``."""
    return out.with_name(f"{out.stem}.bad.jsonl")


def run_folder(out: Path) -> Path:
    """The folder of the work on ``out``."""
    return out.with_name(f"{out.name}.run")


def caption_clips(
    clips: Sequence[ClipToDescribe],
    out: Path,
    settings: EvaluationSettings,
    pool: Instructions,
    make_predictor: Callable[[EvaluationSettings, Shard], Predictor],
    shard: Shard,
    say: Say,
    engine: Engine = LOCAL,
) -> CaptionResult:
    """Describe every clip that has no caption yet, then write ``out`` and the list of clips without one.

    A server may leave clips without a reply (it failed, or the budget ended); then nothing is written, and the next run
    asks about the rest. Clips may be added in a later run; those that are there keep their captions.

    Args:
        clips: what to describe.
        out: the file to write.
        settings: the model and how it answers.
        pool: the requests.
        make_predictor: makes the model, unless a server is asked.
        shard: this process's part; only the first one writes ``out``, and only it asks a server.
        say: receives lines for the user.
        engine: where the model answers.

    Raises:
        LedgerError: an earlier run on ``out`` had another model, other settings, another pool or other clips, or other
            content of a clip.
        DataError: ``out`` is Parquet, which has no column for clips of these kinds together.
        JudgeError: the server refuses every request.
    """
    started, error = time.time(), ""
    questions = [to_question(clip, pool, settings.seed) for clip in clips]
    if out.suffix == SUFFIX:
        pairs = zip(clips, questions, strict=True)
        check_columns(out, [_row(clip, question.prompt, "Its caption.") for clip, question in pairs])
    folder = open_folder(run_folder(out))
    result = CaptionResult(0)
    try:
        clear_leftovers(folder)
        clear_leftovers(out.parent, out.name)
        _note_questions(folder, questions)
        if shard.is_first:
            bind_run(folder, settings, say, "another --out")
        if settings.predict.backend == "openai":
            counts = predict_with_server(folder, settings, say, {"instructions": pool.id}) if shard.is_first else {}
        else:
            counts = _predict(folder, make_predictor(settings, shard), settings, pool, shard, say, engine)
            if shard.is_first:
                wait_for_others(folder, shard, say)
        if shard.is_first:
            result = write_captions(folder, clips, out, settings, pool)
            result = replace(result, added=counts["added"], usage=counts.get("usage"))
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        if shard.is_first:
            write_run(folder, ("caption",), started, error, lambda: _values(settings, pool, clips, out, result))
    return result


def to_question(clip: ClipToDescribe, pool: Instructions, seed: int) -> Question:
    """A clip as a question of an evaluation."""
    text = pool.draw(clip.kind, seed, clip.id)
    return Question(clip.id, SET, clip.id, clip.paths, f"{token_of(clip.kind)}\n{text}", text)


def _note_questions(folder: Path, questions: Sequence[Question]) -> None:
    """Write the questions, or add to those of an earlier run.

    Raises:
        LedgerError: the earlier ones are not among these.
    """
    if not (folder / QUESTIONS).is_file():
        freeze_questions(folder, questions)
        return
    now = {question.id: question for question in questions}
    with locked(folder, "questions"):
        before = load_run(folder).questions
        changed = [question.id for question in before if now.get(question.id) != question]
        if changed:
            raise LedgerError(
                f"{folder.name.removesuffix('.run')} was begun with other clips, paths or requests: "
                f"{len(changed)} of {len(before)} differ or are gone, such as {changed[0]!r}. Choose another --out, or "
                "name the same clips, --media-dir, --seed and --instructions again (further clips may be added)."
            )
        if [question.id for question in before] != list(now):
            write_rows(folder / QUESTIONS, [question.to_row() for question in questions])


def _predict(
    folder: Path,
    predictor: Predictor,
    settings: EvaluationSettings,
    pool: Instructions,
    shard: Shard,
    say: Say,
    engine: Engine,
) -> dict[str, Any]:
    """The loop of every prediction, with a bar on a terminal and lines elsewhere."""
    from tqdm import tqdm

    run = load_run(folder)
    missing = len(run.questions) - len(run.predictions)
    with tqdm(total=missing, unit="clip", desc="caption", disable=None if shard.size == 1 else True) as bar:
        quiet = say if bar.disable else lambda _: None
        return predict_with_model(
            folder,
            predictor,
            settings.predict.questions_at_a_time,
            shard,
            quiet,
            engine=engine,
            also={"instructions": pool.id},  # another pool asks for other answers
            count=bar.update,
        )


def write_captions(
    folder: Path, clips: Sequence[ClipToDescribe], out: Path, settings: EvaluationSettings, pool: Instructions
) -> CaptionResult:
    """Write the captions and the list of clips without one, each whole; an empty list is removed.

    Nothing is written while a clip is missing.
    """
    run = load_run(folder)
    if missing := sum(clip.id not in run.predictions for clip in clips):
        return CaptionResult(0, missing=missing)
    asked = {question.id: question for question in run.questions}
    rows: list[dict[str, Any]] = []
    broken: dict[str, str] = {}
    for clip in clips:
        prediction = run.predictions[clip.id]
        if prediction.text is None or not prediction.text.strip():
            broken[clip.id] = prediction.error or EMPTY
            continue
        made_by = {"model": settings.predict.model, "protocol": pool.id, "seed": settings.seed}
        made_by |= {"finish": prediction.finish} if prediction.finish else {}
        rows.append({**_row(clip, asked[clip.id].prompt, prediction.text), **made_by})
    (write_parquet if out.suffix == SUFFIX else write_rows)(out, rows)
    if broken:
        write_rows(bad_list(out), [{"id": name, "problem": why} for name, why in broken.items()])
    else:
        bad_list(out).unlink(missing_ok=True)  # of an earlier run
    return CaptionResult(len(rows), broken, cut=sum(row.get("finish") == CUT for row in rows))


def _row(clip: ClipToDescribe, prompt: str, caption: str) -> dict[str, Any]:
    turns = (Turn("user", prompt), Turn("assistant", caption))
    return to_row(Record(id=clip.id, media=(clip.media,), turns=turns, caption=caption, source=clip.source))


def _values(
    settings: EvaluationSettings,
    pool: Instructions,
    clips: Sequence[ClipToDescribe],
    out: Path,
    result: CaptionResult,
) -> dict[str, Any]:
    counts: dict[str, Any] = {"clips": len(clips), "captions": result.captions, "cut": result.cut}
    counts |= {"broken": len(result.broken), "added": result.added}
    if result.usage is not None:
        counts |= {"missing": result.missing, "usage": result.usage}
    return {
        "out": str(out),
        "model": settings.predict.model,
        "settings": settings.predict.model_dump(),
        "seed": settings.seed,
        "instructions": pool.id,
        "counts": {"caption": counts},
    }
