"""Words that read as translated do not come back into messages, help texts, docstrings and comments.

To clean another package, correct its sentences and add it to ``CLEAN`` (``PENDING`` are modules of these packages that
are not clean yet); to forbid another phrase, add its pattern to
``PHRASES``, with a sentence that has it and one that only looks like it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hound_plugin"
PENDING: tuple[str, ...] = ()
CLEAN = (
    "errors",
    "validation",
    "settings",
    "moved",
    "records",
    "media",
    "processing",
    "model",
    "corpus",
    "llm",
    "pages",
    "judge",
    "reward",
    "evaluation",
    "host",
    "demo",
    "doctor",
    "cli",
)

# pattern -> what to write, sentences that it must find, sentences that it must not
PHRASES: dict[str, tuple[str, list[str], list[str]]] = {
    r"\b(cannot|could not) be had\b": ("is unavailable", ["The corpus cannot be had."], ["There is more to be had."]),
    r"\banew\b": ("again, from scratch", ["do everything anew"], ["a new folder"]),
    r"\bwithout a word\b": ("silently", ["it is dropped without a word"], ["a question without words"]),
    r"(?<!here )\b(is|are) no (YAML|JSON|such|text|number|file|folder|video|image|picture|list|pair|regular|whole)\b": (
        "is not a ...",
        ["The file is no YAML.", "it is no regular file", "16.5 is no whole number"],
        ["there is no file of this name", "There are no JSON lines in it.", "is not a file"],
    ),
    r"\bin place of\b": ("instead of", ["a text in place of a list"], ["in the place of absent media"]),
    r"\bnothing is to be done\b": ("nothing to do", ["It is done; nothing is to be done."], ["there is nothing to do"]),
    r"\bso many (tokens|rows|frames|bytes|packets|times|seconds)\b": (
        "this many, the number of",
        ["stop after so many tokens"],
        ["so many that they do not fit"],
    ),
    r"\bcannot be told(?! from| apart)\b": (
        "is unknown",
        ["None where it cannot be told"],
        ["clips that cannot be told from frames", "the two cannot be told apart"],
    ),
    r"\bfor ever\b": ("forever", ["it would wait for ever"], ["for every file"]),
    r"\bat hand\b": ("available", ["the tower is not at hand"], ["at handover"]),
    r"\btaken whole\b": ("used unchanged", ["a row is taken whole"], ["the whole row"]),
    r"\b(lies?|lying) (on|in|at|under|beside|where|there)\b": (
        "is in, is at",
        ["as they lie on the hub", "where a file lies under the folder"],
        ["relies on the host", "the difficulty lies with it"],
    ),
    r"\b(stands?|standing) (in(?! for)|under|beside|behind|before|where|there|at|twice)\b": (
        "is in, appears in, follows",
        ["rows stand under `data`", "the key stands twice"],
        ["`<video>` stands for the clip", "a description that stands in for the clip", "it is understood"],
    ),
    r"\bbehind (it|them|the (last|first|question|answer|text|option|header))\b": (
        "after",
        ["an answer behind the last question"],
        ["a server behind a proxy", "the idea behind this"],
    ),
    r"\bbeside (it|them|the|its)\b": ("next to, besides", ["a list beside the file"], ["besides the file"]),
}


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string and comment; what is filled into a string is shown as ``{}``."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def matches(pattern: str, text: str) -> bool:
    """Whether a text has a phrase, whatever its line breaks."""
    return re.search(pattern, " ".join(text.split()), re.IGNORECASE) is not None


def files(name: str) -> list[Path]:
    folder = PACKAGE / name
    if not folder.is_dir():
        return [folder.with_suffix(".py")]
    return [file for file in sorted(folder.rglob("*.py")) if file.relative_to(PACKAGE).as_posix() not in PENDING]


@pytest.mark.parametrize("name", CLEAN)
def test_no_phrase_comes_back(name: str) -> None:
    bad = [
        f"{file.relative_to(PACKAGE)}:{line}: {' '.join(text.split())[:90]!r}: write {PHRASES[pattern][0]!r}"
        for file in files(name)
        for line, text in sentences(file.read_text(encoding="utf-8"))
        for pattern in PHRASES
        if matches(pattern, text)
    ]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("pattern", PHRASES)
def test_the_check_can_fail(pattern: str) -> None:
    _, translated, native = PHRASES[pattern]
    for text in translated:
        for source in (
            f'"""{text}"""',
            f"x = 1  # {text}",
            f'raise ValueError(f"{{x}} {text}")',
            f"'{text[:7]}' '{text[7:]}'",
        ):
            assert any(matches(pattern, sentence) for _, sentence in sentences(source)), source
    for text in native:
        assert not matches(pattern, text), text
