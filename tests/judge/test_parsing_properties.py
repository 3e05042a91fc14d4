"""A score is what a reply states: built from its grammar, wrapped in what models write around it, and noise."""

from __future__ import annotations

import json

from hypothesis import assume, given
from hypothesis import strategies as st

from hound_plugin.judge.parsing import Scale, read_score
from hound_plugin.judge.verdicts import read_verdict, stated_reason
from hound_plugin.llm.reasoning import REASONING

SCALES = st.sampled_from([Scale(), Scale(0, 1), Scale(1, 10), Scale(0, 100)])
PROSE = st.text(
    st.characters(
        codec="utf-8", exclude_characters="{}[]<>\\\"'`$|◁▷", exclude_categories=("Cs", "Cc", "Cf", "Nd", "Nl", "No")
    ),
    max_size=60,
).filter(lambda text: "score" not in text.casefold())


@st.composite
def stated(draw: st.DrawFn, scale: Scale, score: int) -> str:
    """A score in one of the forms that a reply may have."""
    end = draw(st.sampled_from(["", ".", f"/{scale.highest}", f" / {scale.highest}", f" out of {scale.highest}", ".0"]))
    mark = draw(st.sampled_from(["", "**", "__", "`"]))
    word = draw(st.sampled_from(["SCORE", "Score", "score", "Final score"]))
    line = f"{mark}{word}: {score}{end}{mark}"
    value = draw(st.sampled_from([score, float(score), str(score), f"{score}/{scale.highest}"]))
    reason = draw(PROSE)
    shape = json.dumps({"reason": reason, "score": value}, ensure_ascii=draw(st.booleans()))
    fenced = f"```json\n{shape}\n```"
    return draw(st.sampled_from([f"{reason}\n{line}", line, shape, fenced, f"{reason}\n{shape}"]))


@given(data=st.data(), scale=SCALES)
def test_a_stated_score_is_read(data: st.DataObject, scale: Scale) -> None:
    score = data.draw(st.integers(scale.lowest, scale.highest))
    reply = data.draw(stated(scale, score))
    assert read_score(reply, scale).score == score, reply


@given(data=st.data(), scale=SCALES, name=st.sampled_from(REASONING), thought=PROSE)
def test_what_stands_in_reasoning_never_counts(data: st.DataObject, scale: Scale, name: str, thought: str) -> None:
    """Neither beside a score nor alone."""
    other, score = (data.draw(st.integers(scale.lowest, scale.highest)) for _ in range(2))
    inside = f"<{name}>{thought}\nSCORE: {other}</{name}>"
    assert read_score(inside, scale).score is None
    assert read_score(f"{inside}\n{data.draw(stated(scale, score))}", scale).score == score


@given(data=st.data(), scale=SCALES)
def test_two_scores_are_none(data: st.DataObject, scale: Scale) -> None:
    numbers = st.integers(scale.lowest, scale.highest)
    first, second = data.draw(numbers), data.draw(numbers)
    assume(first != second)
    assert read_score(f"SCORE: {first}\nand then\nSCORE: {second}", scale).score is None


@given(scale=SCALES, number=st.one_of(st.integers(), st.floats(allow_nan=True)))
def test_a_number_off_the_scale_is_none(scale: Scale, number: float) -> None:
    on_scale = number == number and float(number).is_integer() and number in scale
    for reply in (f"SCORE: {number}", json.dumps({"score": number})):
        reading = read_score(reply, scale)
        if not on_scale:
            assert reading.score is None, reply
            assert reading.why
        elif reading.score is not None:  # 1e2 as a line is none
            assert reading.score == number, reply


@given(text=st.text(max_size=300), scale=SCALES)
def test_any_text_has_a_score_on_the_scale_or_a_reason(text: str, scale: Scale) -> None:
    reading, verdict = read_score(text, scale), read_verdict(text, scale)
    assert reading.score in scale if reading.score is not None else reading.why
    assert verdict.correct is not None or verdict.why
    assert verdict.score is None or verdict.score in scale
    assert isinstance(stated_reason(text, scale), str)


@given(correct=st.booleans(), score=st.integers(0, 5), before=PROSE)
def test_a_stated_verdict_is_read(correct: bool, score: int, before: str) -> None:
    word = "yes" if correct else "no"
    for reply in (
        f"{before}\nVERDICT: {word}\nSCORE: {score}",
        json.dumps({"reason": before, "verdict": word, "score": score}),
        repr({"verdict": word, "score": score}),
    ):
        reading = read_verdict(reply, Scale(0, 5))
        assert (reading.correct, reading.score) == (correct, score), reply
