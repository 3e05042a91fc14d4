"""The report of a run as one page: what was run, distributions, and pairs next to the frames that the model saw."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hound_plugin.llm.redaction import cut
from hound_plugin.pages.charts import Chart, bar_chart, density_chart, even_bins, histogram
from hound_plugin.pages.content import Answer, Bound, Choice, Filter, Item, Strip, Table, Tone
from hound_plugin.pages.frames import FrameReader, read_many
from hound_plugin.pages.rendering import render_page
from hound_plugin.records.questions import Question
from hound_plugin.records.tables import shown_value
from hound_plugin.records.words import words_of
from hound_plugin.reward.run_folder import Row

PAIRS_ON_PAGE = 200
FIRST_REPLIES = 5
KEPT, DROPPED = "kept", "dropped"
NONE = "(none)"
Scores = Mapping[tuple[str, int], Row]


def report_page(
    summary: Mapping[str, Any],
    facts: Sequence[tuple[str, Any]],
    tables: Sequence[Table],
    pairs: Sequence[Row],
    questions: Mapping[str, Question],
    scores: Scores,
    answers: Mapping[tuple[str, int], Row],
    dropped: frozenset[str],
    read: FrameReader,
) -> str:
    """The page as HTML.

    Args:
        summary: of :func:`hound_plugin.reward.summary.summarise`.
        facts: what was run, by name.
        tables: the numbers.
        pairs: all of them; at most :data:`PAIRS_ON_PAGE`, evenly spread, are shown.
        questions: by id.
        scores, answers: by question and number.
        dropped: ids of pairs dropped by hand.
        read: reads the frames of a clip.
    """
    shown = spread(pairs, PAIRS_ON_PAGE)
    clips: dict[str, Any] = {}
    for pair in shown:
        question = questions.get(pair["question_id"])
        clips.setdefault(clip_of(question), None if question is None else question.paths)
    strips = read_many(clips, read)
    items = [pair_item(pair, questions, scores, dropped, strips) for pair in shown]
    text = f"All {len(pairs)} pairs." if len(shown) == len(pairs) else (
        f"{len(shown)} of {len(pairs)} pairs, evenly spread over the file; `hound reward browse` shows all of them."
    )  # fmt: skip
    text = f"{text} {read.legend}"
    return render_page(
        "report.html",
        title="Preference data: report",
        smoke_test=summary["smoke_test"],
        lead=[],
        run=facts,
        raw=[("judge, as recorded with the scores", "\n".join(summary["judges"]))],
        charts=charts(summary),
        tables=tables,
        missing=missing_replies(scores, answers),
        heading="Pairs",
        shown=text,
        unit="pairs",
        filters=pair_filters(items),
        items=items,
    )


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most this many rows, evenly spread, the first among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[position * len(rows) // most] for position in range(most)]


def clip_of(question: Question | None) -> str:
    """Which clip a question is about, for items that share one."""
    return "" if question is None else json.dumps(question.paths, ensure_ascii=False)


# --- pairs


def pair_item(
    pair: Row,
    questions: Mapping[str, Question],
    scores: Scores,
    dropped: frozenset[str],
    strips: Mapping[str, Strip],
) -> Item:
    """A pair for a page; a question that is no longer in the file is said to be absent."""
    question = questions.get(pair["question_id"])
    strip = Strip(note="The question is no longer in the file of questions, so its clip is unknown.")
    clip = clip_of(question)
    texts: tuple[tuple[str, str], ...] = ()
    if question is not None:
        strip = strips[clip]
        texts = (("caption", question.caption), ("reference", question.reference))
    asked = question.text if question is not None else pair["prompt"]
    values = pair_values(pair, dropped)
    tags = [("source", pair.get("source") or NONE)]
    if "gap" in values:
        tags.insert(0, ("gap", shown_value(values["gap"])))
    sides: tuple[tuple[str, str, Tone], ...] = (("chosen", "rejected", "good"), ("rejected", "chosen", "bad"))
    answers = tuple(_side(pair, name, other, tone, scores) for name, other, tone in sides)
    return Item(str(pair["id"]), clip, strip, asked, texts, answers, tuple(tags), values)


def pair_values(pair: Row, dropped: frozenset[str]) -> dict[str, str | float]:
    """What the filters look at; a reference answer has no score, and its pair no gap."""
    values: dict[str, str | float] = {
        "words": max(len(words_of(pair["chosen"])), len(words_of(pair["rejected"]))),
        "source": pair.get("source") or NONE,
        "verdict": DROPPED if pair["id"] in dropped else KEPT,
    }
    chosen, rejected = pair.get("chosen_score"), pair.get("rejected_score")
    if chosen is not None:
        values["score"] = chosen
    if chosen is not None and rejected is not None:
        values["gap"] = round(chosen - rejected, 6)
    return values


def pair_filters(items: Sequence[Item]) -> list[Filter]:
    """Filters that fit these pairs."""
    return filters_of([item.values for item in items])


def filters_of(values: Sequence[Mapping[str, str | float]]) -> list[Filter]:
    """Filters whose bounds keep all of these values."""

    def numbers(name: str) -> list[float]:
        return [float(value[name]) for value in values if name in value]

    scores = numbers("score")
    filters: list[Filter] = [
        Choice("verdict", "verdict", (KEPT, DROPPED)),
        Choice("source", "source", tuple(sorted({str(value["source"]) for value in values}))),
    ]
    if scores:
        filters += [
            Bound("score", "chosen score from", "from", min(scores)),
            Bound("score", "chosen score to", "to", max(scores)),
            Bound("gap", "gap at least", "from", min(numbers("gap"), default=0.0)),
        ]
    return [*filters, Bound("words", "words at most", "to", max(numbers("words"), default=0.0), 10)]


def _side(pair: Row, name: str, other: str, tone: Tone, scores: Scores) -> Answer:
    candidate, score = str(pair[f"{name}_candidate"]), pair.get(f"{name}_score")
    row = scores.get((pair["question_id"], int(candidate))) if candidate.isdecimal() else None
    note = "" if candidate.isdecimal() else "the reference answer, which was not judged"
    answer = Answer(name, pair[name], score=score, tone=tone, note=note, other=pair[other])
    if row is None:
        return answer
    reasons = tuple(reason for reason in row.get("reasons", ()) if reason)
    raw = (("judgement, as recorded", json.dumps(row, ensure_ascii=False, indent=2)),)
    return replace(answer, reasons=reasons, raw=raw)


# --- what is missing


def missing_replies(scores: Scores, answers: Mapping[tuple[str, int], Row]) -> dict[str, Any]:
    """The first judgements without a score, with what the judge replied."""
    lacking = [(key, entry) for key, row in scores.items() for entry in row.get("missing", ())]
    rows = [
        {
            "id": f"{name}, answer {number}",
            "why": ": ".join(str(entry[part]) for part in ("status", "why", "reason") if entry.get(part)),
            "answer": answers.get((name, number), {}).get("answer", ""),
            "raw": cut(str(entry.get("raw", ""))),
        }
        for (name, number), entry in lacking[:FIRST_REPLIES]
    ]
    note = f"The first {len(rows)} of {len(lacking)}: the answer, and the judge's reply as it came."
    return {"title": "Judgements without a score", "note": note, "rows": rows}


# --- distributions


def charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Scores, scores of pairs, lengths of pairs, length against score."""
    pairs, scores = summary["pairs"], summary["scores"]
    ticks = [shown_value(middle) for middle in scores["middles"]]
    drawn = [bar_chart("Scores of answers", ticks, [("", "plain", scores["counts"])], "score", "answers")]
    if pairs["lengths"]:
        sides = [("chosen", "good", pairs["chosen_scores"]), ("rejected", "bad", pairs["rejected_scores"])]
        drawn.append(
            bar_chart("Scores in pairs", [shown_value(middle) for middle in pairs["middles"]], sides, "score", "pairs")
        )
        edges, labels = even_bins([length for both in pairs["lengths"] for length in both], 12)
        long, short = (histogram([both[side] for both in pairs["lengths"]], edges) for side in (0, 1))
        sides = [("chosen", "good", long), ("rejected", "bad", short)]
        drawn.append(bar_chart("Lengths in pairs", labels, sides, "words", "pairs"))
    points = summary["length_score"]["points"]
    if points:
        edges, labels = even_bins([length for length, _ in points], 12)
        score_edges = summary["scores"]["edges"]
        rows = [
            histogram([length for length, score in points if low <= score < high], edges)
            for low, high in itertools.pairwise(score_edges)
        ]
        value = shown_value(summary["length_score"]["spearman"])
        drawn.append(density_chart(f"Length and score, Spearman {value}", labels, ticks, rows, "words", "score"))
    return drawn
