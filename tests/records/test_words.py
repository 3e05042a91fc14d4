"""Words in every script: what is a letter, what belongs to it, and where one word ends."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hound_plugin.evaluation.metrics import contains, exact_match, measure, rouge_l, token_f1
from hound_plugin.records.words import overlap, words_of
from hound_plugin.reward.pairs import similarity

DIFFERENT = [
    ("फल", "फूल"),  # fruit, flower
    ("काला", "कला"),  # black, art
    ("মা", "মি"),
    ("கல்", "கால்"),  # stone, leg
    ("ਪਾਣੀ", "ਪੁਣਾ"),
    ("หมา", "หมี"),  # dog, bear
    ("ປາ", "ປີ"),  # fish, year
    ("ကား", "ကူး"),
    ("ตา", "ต่า"),
    ("résumé", "resume"),
    ("שֶׁמֶן", "שָׁמֵן"),
    ("කැට", "කට"),
]
ALIKE = ["Ångström", "Crème brûlée", "tiếng Việt", "가위 바위", "ñandú", "が", "Ὀδυσσεύς", "क़लम", "שׁלום"]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_marks_tell_words_apart(one: str, other: str) -> None:
    assert exact_match(one, one) == 1
    assert exact_match(one, other) == exact_match(f"x {one}", f"x {other}") == 0
    assert contains(f"x {one}", other) == 0
    assert token_f1(one, other) < 1 > rouge_l(one, other)
    assert similarity(f"x {one}", f"x {other}") < 0.9


@pytest.mark.parametrize("text", ALIKE)
def test_two_spellings_of_one_letter_are_one(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")] + [text.upper()]
    assert len({tuple(words_of(form)) for form in forms}) == 1
    assert {tuple(measure(form, other).values()) for form in forms for other in forms} == {(1.0,) * 4}
    assert similarity(forms[0], forms[1]) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("एक लाल गेंद।", ["एक", "लाल", "गेंद"]),
        ("红色的球向左", list("红色的球向左")),
        ("赤いボール、3個", ["赤", "い", "ボ", "ー", "ル", "3", "個"]),
        ("แมวดำ 2 ตัว", ["แ", "ม", "ว", "ดำ"[0], "ำ", "2", "ตั", "ว"]),
        ("빨간 공이", ["빨간", "공이"]),
        ("GPU显卡 x2", ["gpu", "显", "卡", "x2"]),
        ("می‌رود", ["میرود"]),
        ("Der Fuß, 20°", ["der", "fuss", "20"]),
        ("2️⃣ cats ❤️ it", ["2", "cats", "it"]),
        ("\u0301", []),
    ],
)
def test_where_words_end(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text("abcXYZ019_ '.,-!?\n\u00e9\u00df\u00c5\u0416\u03c3\u4e00"[:-1], max_size=60))
def test_languages_with_spaces_have_the_words_that_they_always_had(text: str) -> None:
    folded = unicodedata.normalize("NFC", text).casefold()
    assert words_of(text) == re.findall(r"\w+", folded)


def test_overlap_by_hand() -> None:
    assert overlap(words_of("蓝色的车"), words_of("红色的车")) == pytest.approx(2 * 3 / 8)
    assert overlap([], []) == 0
    assert similarity("在左边的是红色", "在左边的是红色。") == 1


@pytest.mark.parametrize("part", ["\u0e01\u0e34", "e\u0301", "a\u200d", "\u0301", "字", "\u200c"])
def test_work_grows_with_the_length_alone(part: str) -> None:
    started = time.process_time()
    words_of(part * 500_000)
    assert time.process_time() - started < 5
