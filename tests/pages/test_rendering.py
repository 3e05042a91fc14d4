"""Pages consist of our own parts alone: texts are escaped, and the policy names one script and one style."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib import resources

import jinja2
import pytest

from hound_plugin.pages.content import Answer, Bound, Choice, Frame, Item, Strip, Table
from hound_plugin.pages.rendering import environment, render_item, render_page

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "</style><style>@import url(https://evil.example)</style>",
    "</script><script>alert(1)//",
    "{{ 7 * 7 }} {% raw %}",
    "<svg/onload=alert(1)>\u2028<!--",
    "javascript:alert(1)",
]


def hostile_item(text: str) -> Item:
    answers = (
        Answer(text, text, text, 1.0, "good", (text,), ((text, text),), text, other="other " + text),
        Answer(text, None, note=text),
    )
    strip = Strip((Frame(b"\xff\xd8", text),), text)
    return Item(text, text, strip, text, ((text, text),), answers, ((text, text),), {"source": text, "score": 1.0})


def page_of(text: str) -> str:
    return render_page(
        "report.html", title=text, smoke_test=text, lead=[text], run=[(text, text)], raw=[(text, text)], charts=[],
        tables=[Table(text, (text,), ((text,), (None,), (1.5,)), text)],
        missing={"title": text, "note": text, "rows": [{"id": text, "why": text, "answer": text, "raw": text}]},
        heading=text, shown=text, unit=text, filters=[Choice("source", text, (text,)), Bound("score", text, "from", 1)],
        items=[hostile_item(text), hostile_item(text)],
    )  # fmt: skip


class Elements(HTMLParser):
    """Counts elements, and collects attributes that run or load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.bad: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attributes:
            loads = name in ("src", "href", "srcset", "action", "formaction", "data", "poster")
            if name.startswith("on") or name == "style" or (loads and not (value or "").startswith("data:image/jpeg")):
                self.bad.append((name, value))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(text: str) -> None:
    page, plain = Elements(page_of(text)), Elements(page_of("harmless"))
    assert page.bad == []
    marks = page.counts.pop("mark", 0), plain.counts.pop("mark", 0)  # as many as there are words
    assert page.counts == plain.counts, marks
    assert page.counts["script"] == page.counts["style"] == 1


def test_the_policy_names_the_script_and_the_style() -> None:
    page = page_of("x")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].replace("&#39;", "'").split("; "))
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert text is not None
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "connect-src" not in rules, "a file asks nobody"


def test_nothing_comes_from_outside() -> None:
    for file in resources.files("hound_plugin.pages").joinpath("templates").iterdir():
        if not file.name.endswith((".html", ".css", ".js")):
            continue
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(?i)https?://|//[a-z]+\.|@import|url\(|@font-face|\|\s*safe|autoescape", text), file.name


def test_a_name_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render_page("report.html", title="x")
    assert environment().autoescape is True


def test_one_item() -> None:
    part = render_item(hostile_item("<b>"), 7, video="/clip/6")
    assert 'id="item-7"' in part
    assert "<b>" not in part.replace("<b>judge</b>", "")
    assert 'src="/clip/6"' in part


@pytest.mark.parametrize(
    ("value", "text"), [(3.3333333, "3.3333333"), (123456789, "123456789"), (4.0, "4"), (-0.5, "-0.5")]
)
def test_bounds_are_not_rounded(value: float, text: str) -> None:
    bar = environment().get_template("parts.html").module.filter_bar([Bound("x", "x", "to", value)], 1, "items")
    assert f'value="{text}"' in bar


def test_words_are_counted() -> None:
    item = Item("i", "c", Strip(), "q", (), (Answer("a", "one"), Answer("b", "one two")))
    assert re.findall(r"(\d words?)<", render_item(item, 1)) == ["1 word", "2 words"]
