"""Writes ``docs/options.md`` from the table of options that the tests run: ``python docs/write_options.py``.

A test compares the page with what this prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.options.meanings import SECTIONS  # noqa: E402
from tests.options.option import WORK, Row  # noqa: E402
from tests.options.rows import ROWS  # noqa: E402

_ASIDE = ("max_steps", "learning_rate", "lora_rank", "model_name_or_path", "per_device_train_batch_size")
_PLAIN = (("lora_target", "all"), ("per_device_eval_batch_size", 2))
PAGE = Path(__file__).with_name("options.md")
TEXT = """\
# Options of LLaMA-Factory with this model

This page is written by `python docs/write_options.py` from the table that the tests run: each line is a training, an
export or an answer of the tiny model with LLaMA-Factory's own command, or what its web UI starts. An option works as
it says, or is refused by name before any work, with what to set instead. Options that are not listed are the host's
own and pass through; so do all options of other models.

"""


def page() -> str:
    """The page's text."""
    parts = [TEXT]
    for title, meanings in SECTIONS.items():
        parts.append(f"## {title}\n\n| stage | set | |  |\n|---|---|---|---|\n")
        for name, meaning in meanings.items():
            option = ROWS[name]
            stops = option.refused and option.refused.startswith("stops")
            verdict = "stops" if stops else "refused" if option.refused else "works"
            parts.append(f"| {option.kind} | {_settings(option)} | {verdict} | {meaning} |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


def _settings(option: Row) -> str:
    shown = {key: value for key, value in option.values.items() if (key, value) not in _PLAIN and key not in _ASIDE}
    return "<br>".join(f"`{key}: {_value(value)}`" for key, value in (shown or option.values).items()) or "nothing else"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return Path(value).name if value.startswith(("/", WORK)) else value.replace("|", "\\|")
    return json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written to {PAGE}")
