"""Templates to HTML: everything is escaped, and each page forbids whatever it does not consist of."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from hound_plugin.pages.content import Bound, Item
from hound_plugin.pages.differences import differences
from hound_plugin.records.tables import shown_value


@functools.cache
def _asset(name: str) -> str:
    return resources.files("hound_plugin.pages").joinpath("templates", name).read_text(encoding="utf-8")


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of this package, with escaping on and undefined names as errors."""
    loader = jinja2.PackageLoader("hound_plugin.pages", "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"cell": shown_value, "data_uri": data_uri, "number": number, "exact": exact}
    made.globals |= {"differences": differences, "is_bound": lambda kind: isinstance(kind, Bound)}
    return made


def data_uri(jpeg: bytes) -> str:
    """A picture as part of the page itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def number(value: float) -> str:
    """A score: ``4``, ``3.5``, ``3.333``."""
    return f"{value:.4g}"


def exact(value: float) -> str:
    """A number for a field, at full precision: rounding it would hide what it bounds."""
    return str(int(value)) if value == int(value) else repr(float(value))


def content_security_policy(script: str, style: str, **more: str) -> str:
    """A policy that allows one script and one style, by their hashes, and pictures of the page itself.

    Args:
        script, style: their texts.
        more: further directives, with ``_`` for ``-``, such as ``connect_src="'self'"``.
    """
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render_page(template: str, scripts: tuple[str, ...] = ("page.js",), served: bool = False, **values: Any) -> str:
    """A whole page, which needs nothing but itself, or the site that serves it.

    Args:
        template: name of a template that extends ``base.html``.
        scripts: names of script files, joined into one.
        served: whether it may ask its own site for data and clips.
        values: for the template.
    """
    script = "\n".join(map(_asset, scripts))
    style = _asset("page.css")
    more = {"connect_src": "'self'", "media_src": "'self'"} if served else {}
    policy = content_security_policy(script, style, **more)
    own = {"policy": policy, "script": Markup(script), "style": Markup(style)}  # our own files
    return environment().get_template(template).render(**own, **values)


def render_item(item: Item, position: int, **values: Any) -> str:
    """One item as a part of a page."""
    parts: Any = environment().get_template("parts.html").module
    return str(parts.item(item, position, **values))
