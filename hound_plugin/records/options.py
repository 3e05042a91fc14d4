"""Questions with options: the choices, a question that shows them, and an answer that is one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hound_plugin.records.messages import text_of
from hound_plugin.records.record import Findings, Turn


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


def answer_with_text(answer: Any, options: Mapping[str, str], where: str, findings: Findings) -> str | None:
    """The chosen option as ``A. a ball``: from its letter, its number from 0, or its text.

    An answer that is more than a choice (a sentence) stays unchanged; one that may mean two choices is a problem.
    """
    text = text_of(answer)
    if text is None:
        findings.problem("answer", where, "text", answer)
        return None
    bare = text.strip().strip("().: ").casefold()
    matches = [key for key, option in options.items() if bare in (key.casefold(), option.strip().casefold())]
    if isinstance(answer, int) and text not in options:
        if 0 <= answer < len(options):
            matches.append(list(options)[answer])
        elif not matches:
            findings.problem("options", where, f"a number from 0 to {len(options) - 1}", answer)
            return None
    if len(set(matches)) > 1:
        findings.problem("options", where, "an answer that means one choice", f"{answer!r} for {dict(options)}")
        return None
    if matches:
        return f"{matches[0]}. {options[matches[0]]}"
    if len(bare) <= 2:
        findings.problem("options", where, f"one of {', '.join(options)}", answer)
        return None
    return text


def other_forms(answer: str, options: Sequence[str]) -> tuple[str, ...]:
    """What else states the choice of an answer such as ``B. blue``: its letter, and its text.

    A form that would also be another choice's letter or text is left out; an answer that is no choice has none.
    """
    for text in options:
        letter = answer.removesuffix(f". {text}")
        if letter != answer and re.fullmatch(r"\w+", letter):
            break
    else:
        return ()
    words = [_words(option) for option in options]
    is_unique = words.count(_words(text)) == 1 and _words(text)
    is_label = len(text) == 1 and not text.isdigit() if not letter.isdigit() else text.isdigit()
    forms = [letter] if _words(letter) not in words else []
    return (*forms, text) if is_unique and not is_label else tuple(forms)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def check_options(options: Mapping[str, str], turns: Sequence[Turn], where: str, findings: Findings) -> None:
    """Refuse choices that no turn shows: the answer would be about something the model never saw."""
    patterns = [rf"(?<!\w){re.escape(option.strip())}(?!\w)" for option in options.values()]
    if options and not any(all(re.search(pattern, turn.text) for pattern in patterns) for turn in turns):
        findings.problem("options", where, "a question that shows them", list(options.values()))
