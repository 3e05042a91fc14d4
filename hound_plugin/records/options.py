"""Questions with options: the choices, a question that shows them, and an answer that is one of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from hound_plugin.records.messages import text_of
from hound_plugin.records.record import Findings, Turn, Words
from hound_plugin.records.words import words_of

_OWN_LABEL = re.compile(r"\s*\(?(\w{1,2})\s*[.):]\s")
_WITH_LABEL = re.compile(r"\s*\(?(\w{1,2})\s*[.):]{1,3}\s*(\S.*)", re.DOTALL)
# What appears before or around a choice: `Option B`, `Answer: (B)`, `**B**`, `\\boxed{B}`; and as a sentence.
_KIND = r"(?:(?:final|correct|right|best)\s+)?(?:answer|option|choice)\b"
_ANNOUNCED = re.compile(rf"{_KIND}[\s:=\-]*(?:(?:option|choice)\b\s*)?(?=\S)", re.I)
_SENTENCE = re.compile(
    rf"(?:(?:therefore|so|thus)[,\s]+)?(?:the\s+)?{_KIND}\s+is\s*:?\s*(?:(?:option|choice)\b\s*)?(?=\S)", re.I
)
_WRAPPED = re.compile(
    r"(?:\*\*|__|[*_`\"'\[]|\$?\\boxed\{(?:\\text\{)?|<(?:answer|option|choice)>)(.+?)"
    r"(?:\*\*|__|[*_`\"'\]]|\}{1,2}\$?|</(?:answer|option|choice)>)\.?",
    re.I | re.DOTALL,
)
_BETWEEN = re.compile(r"[\s,;/&+]+(?:(?:and|or)\s+)?")
_NUMBER = re.compile(r"[-+]?[\d.,]+(?:e[-+]?\d+)?")


def read_options(value: Any, where: str, findings: Findings) -> dict[str, str]:
    """Choices of a question by letter: ``["a ball", ...]``, ``["A. a ball", ...]`` or ``{"A": "a ball"}``."""
    if isinstance(value, Mapping):
        pairs: Sequence[tuple[Any, Any]] = [(key, item) for key, item in value.items() if item is not None]
    elif isinstance(value, list | tuple):
        pairs = [(chr(ord("A") + number), item) for number, item in enumerate(value)]
    else:
        pairs = []
    texts = {str(key): text_of(item) for key, item in pairs}
    if not 2 <= len(texts) <= 26 or any(text is None or not text.strip() for text in texts.values()):
        findings.problem("options", where, "two or more choices, each with text", value)
        return {}
    letters = {key: re.match(rf"\s*\(?{re.escape(key)}\s*[.):]\s*", str(text)) for key, text in texts.items()}
    own = [match[1] for text in texts.values() if (match := _OWN_LABEL.match(str(text)))]
    if own != list(texts) and sorted(own) == sorted(texts):
        findings.problem("options", where, f"choices in the order of their letters {', '.join(sorted(own))}", value)
        return {}
    if all(str(text).strip().strip("().: ") in (key, "") for key, text in texts.items()):  # the texts are elsewhere
        findings.problem("options", where, "choices with their texts, and not labels alone", value)
        return {}
    if not all(letters.values()):  # next to `G. Washington`, `A. Lincoln` is a name
        return {key: str(text) for key, text in texts.items()}
    return {key: str(text)[letter.end() :] for key, text in texts.items() if (letter := letters[key])}


def shows(question: str, options: Mapping[str, str]) -> bool:
    """Whether a question shows every choice after its own letter or number."""
    label = r"(?:(?:^|[\s(])\w{1,2}|(?:^|\n)\w+)\s*[.):]\s*"
    return all(re.search(rf"{label}{re.escape(text.strip())}(?!\w)", question) for text in options.values())


def with_options(question: str, options: Mapping[str, str]) -> str:
    """The question with its choices, one per line; unchanged if it already shows all of them."""
    if shows(question, options):
        return question
    return "\n".join([question.rstrip(), *(f"{key}. {text}" for key, text in options.items())])


def shown_labels(question: str, options: Mapping[str, str]) -> dict[str, str]:
    """The letter or number that a question shows before each choice, by the choice's own; empty if it shows not all.

    Marks after a label (``A.``, ``(A)``) may be missing if the labels are those of the choices, each one once.
    """
    strict = r"(?:(?:(?<!\w)|(?<=[\s(]))(\w{1,2})|(?:^|\n)(\w+))\s*[.):]\s*"
    for label in (strict, r"(?<!\w)(\w{1,2})()\s+"):
        shown: dict[str, str] = {}
        for key, text in options.items():
            found = re.findall(rf"{label}{re.escape(text.strip())}(?!\w)", question)
            labels = [short or long for short, long in found]
            own = [one for one in labels if one.casefold() == key.casefold()]
            if labels:
                shown[key] = (own or labels)[0]
        if len(shown) == len(options) and (label == strict or set(shown.values()) == set(options)):
            return shown
    return {}


def check_labels(question: str, options: Mapping[str, str], where: str, findings: Findings) -> dict[str, str]:
    """Refuse a question that shows the choices under other labels, or in another order, than the row gives them.

    Returns:
        What :func:`shown_labels` finds, if the two agree.
    """
    shown = shown_labels(question, options)
    labels = list(shown.values())
    same = all(key.casefold() == label.casefold() for key, label in shown.items())
    numbered = all(label.isdecimal() for label in labels)
    order = [int(label) if numbered else label.casefold() for label in labels]
    other_kind = {key.casefold() for key in options}.isdisjoint(label.casefold() for label in labels)
    if same or (other_kind and all(first < second for first, second in pairwise(order))):  # type: ignore[operator]
        return shown
    asked = ", ".join(f"{label}. {options[key]}" for key, label in shown.items())
    given = ", ".join(f"{key}. {text}" for key, text in options.items())
    findings.problem("options", where, "the labels that the question shows", Words(f"{given}; it shows {asked}"))
    return {}


def answer_with_text(
    answer: Any,
    options: Mapping[str, str],
    where: str,
    findings: Findings,
    shown: Mapping[str, str] | None = None,
    in_sentences: bool = False,
) -> str | None:
    """The chosen option as ``A. a ball``: from its letter, its number from 0 (also 1.0, as in Parquet), or its text.

    The label is the one that the question shows.

    The exact text of a choice or its label counts before one that differs in marks and case, and before both together
    (``(A) a ball``) or a word before them (``Option A``, ``Answer: A``). An answer that is more than a choice (a
    sentence) stays unchanged; one that may mean two choices (the letter of one with the text of another, ``A, C``),
    and a number or a label of none, are problems.

    Args:
        answer: as the row has it.
        options: the choices by letter.
        where: the answer's field.
        findings: takes the problems.
        shown: the labels that the question shows, by the choices' letters.
        in_sentences: also read ``The answer is A.`` and ``A. a ball, because ...``, and refuse other sentences that
            begin with a label, as in ``(A) another thing``.
    """
    text = text_of(answer)
    if text is None:
        findings.problem("answer", where, "text", answer)
        return None
    texts = {text.strip()}
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
        texts.add(str(answer))
    shown = shown or {}
    said = _said(text, in_sentences)
    matches = _matching(texts, options) or _labelled(text, options, shown)
    matches = matches or _matching({said}, options) or _labelled(said, options, shown) or _several(said, options, shown)
    if in_sentences and not matches:
        matches = _explained(said, options, shown)
    if isinstance(answer, int | float):  # 3 and 3.0, of a column of numbers
        matches += [key for key, option in options.items() if _is_equal(option, answer)]
    if isinstance(answer, int) and str(answer) not in options:
        if 0 <= answer < len(options):
            matches.append(list(options)[answer])
            labels = {key: match[1] for key, option in options.items() if (match := _OWN_LABEL.match(option))}
            for own in (shown, labels if len(labels) == len(options) else {}):
                matches += [key for key, label in own.items() if label == str(answer)]
        elif not matches:
            findings.problem("options", where, f"a number from 0 to {len(options) - 1}", answer)
            return None
    if len(set(matches)) > 1:
        findings.problem("options", where, "an answer that means one choice", f"{answer!r} for {dict(options)}")
        return None
    if matches:
        label = shown.get(matches[0], matches[0])
        return f"{matches[0] if label.casefold() == matches[0].casefold() else label}. {options[matches[0]]}"
    if _is_label(said) or (in_sentences and _begins_with_label(said, options, shown)):
        findings.problem("options", where, f"one of {', '.join(options)}", answer)
        return None
    return text


def _is_label(text: str) -> bool:
    return len(_bare(text)) <= 2 or _NUMBER.fullmatch(_bare(text)) is not None


def _said(text: str, in_sentences: bool) -> str:
    """An answer without the words and marks around the choice; unchanged if what is left could not be one."""
    said = text.strip()
    for _ in range(3):
        wrapped = _WRAPPED.fullmatch(said)
        begun = _ANNOUNCED.match(said) or (_SENTENCE.match(said) if in_sentences else None)
        if wrapped:
            said = wrapped[1].strip()
        elif begun:
            said = said[begun.end() :]
    return said


def _several(text: str, options: Mapping[str, str], shown: Mapping[str, str]) -> list[str]:
    """The choices of an answer that is labels alone, as in ``A, C``, ``A and C`` or ``ACD``; none of a single label."""
    by_label = {label.casefold(): key for key in options for label in (key, shown.get(key, key))}
    words = [_bare(word) for word in _BETWEEN.split(text.strip()) if _bare(word)]
    letters = [*text.strip()]
    if text.isupper() and text.isalpha() and letters == sorted(set(letters)):  # `BAD` and `FAA` are words
        words = words if len(words) > 1 else [letter.casefold() for letter in letters]
    keys = [by_label.get(word) for word in words]
    return [key for key in keys if key is not None] if len(set(keys)) > 1 and None not in keys else []


def _explained(text: str, options: Mapping[str, str], shown: Mapping[str, str]) -> list[str]:
    """The choice of a sentence that begins with its label and its text, or has it as its first line.

    As in ``B. a bus, since it is late``.
    """
    first, line_break, _ = text.partition("\n")
    alone = _matching({_said(first, True)}, options) if line_break else []
    match = _WITH_LABEL.fullmatch(text)
    return alone or [
        key
        for key, option in options.items()
        if match
        and match[1].casefold() in (key.casefold(), shown.get(key, key).casefold())
        and re.match(rf"{re.escape(_bare(option))}(?!\w)", match[2].casefold())
    ]


def _begins_with_label(text: str, options: Mapping[str, str], shown: Mapping[str, str]) -> bool:
    match = _WITH_LABEL.fullmatch(text)
    labels = {label.casefold() for key in options for label in (key, shown.get(key, key))}
    return match is not None and match[1].casefold() in labels


def _matching(texts: Collection[str], options: Mapping[str, str]) -> list[str]:
    """The choices whose label or text is one of ``texts``; only if there is none, marks and case do not count."""
    exact = [key for key, option in options.items() if key in texts or option.strip() in texts]
    bare = {_bare(text) for text in texts}
    return exact or [key for key, option in options.items() if _bare(key) in bare or _bare(option) in bare]


def _is_equal(option: str, number: float) -> bool:
    try:
        return float(option) == number
    except ValueError:
        return False


def _labelled(text: str, options: Mapping[str, str], shown: Mapping[str, str]) -> list[str]:
    """The choices that a label followed by a text means; two, if they are of two choices; none in a sentence."""
    match = _WITH_LABEL.fullmatch(text)
    label, said = (match[1].casefold(), match[2]) if match else ("", "")
    by_label = [key for key in options if label and label in (key.casefold(), shown.get(key, "").casefold())]
    by_text = [
        key
        for key in _matching([said.strip()], {key: option for key, option in options.items() if _bare(said)})
        if _bare(options[key]) == _bare(said)  # and not its label
    ]
    agreed = [key for key in by_label if key in by_text]  # another choice may have the same text
    return agreed or (by_label + by_text if by_label and by_text else [])


def choice_of(
    answer: str, question: str, options: Sequence[str], where: str, findings: Findings, in_sentences: bool = True
) -> str:
    """The choice that a right answer names, as ``B. blue`` by the labels that its question shows.

    An answer that names none stays unchanged; one that may mean two, or that begins with a label and goes on with
    something else than its choice, is a problem; see :func:`answer_with_text`.
    """
    by_letter = {chr(ord("A") + number): text for number, text in enumerate(options)}
    shown = shown_labels(question, by_letter)
    by_label = {shown.get(key, key): text for key, text in by_letter.items()}
    if len(by_label) != len(options):
        return answer
    return answer_with_text(answer, by_label, where, findings, in_sentences=in_sentences) or answer


def _bare(text: str) -> str:
    return text.strip().strip("().: ").casefold()


def other_forms(answer: str, options: Sequence[str]) -> tuple[str, ...]:
    """What else states the choice of an answer such as ``B. blue``: its letter, and its text.

    A form that would also be another choice's letter or text is left out; an answer that is no choice has none.
    """
    for text in options:
        letter = answer.removesuffix(f". {text}")
        if letter != answer and words_of(letter) == [letter.casefold()]:
            break
    else:
        return ()
    words = [words_of(option) for option in options]
    is_unique = words.count(words_of(text)) == 1 and words_of(text)
    is_label = len(text) == 1 and not text.isdigit() if not letter.isdigit() else text.isdigit()
    forms = [letter] if words_of(letter) not in words else []
    return (*forms, text) if is_unique and not is_label else tuple(forms)


def check_options(options: Mapping[str, str], turns: Sequence[Turn], where: str, findings: Findings) -> None:
    """Refuse choices that no turn shows, or shows under other labels: the answer would be about something else."""
    for turn in turns if options else ():
        if turn.role == "user":
            check_labels(turn.text, options, where, findings)
    patterns = [rf"(?<!\w){re.escape(option.strip())}(?!\w)" for option in options.values()]
    if options and not any(all(re.search(pattern, turn.text) for pattern in patterns) for turn in turns):
        findings.problem("options", where, "a question that shows them", list(options.values()))
