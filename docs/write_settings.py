"""Writes ``docs/settings.md`` from the models of the settings: ``python docs/write_settings.py``.

A test compares the page with what this prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic.fields import FieldInfo

from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.judge.prompts import PromptTemplate
from hound_plugin.llm.prices import Price
from hound_plugin.reward.settings import RewardSettings
from hound_plugin.settings import ENVIRONMENT_PREFIX, HoundSettings
from hound_plugin.validation import accepts, default_in_words, documented

PAGE = Path(__file__).with_name("settings.md")
TEXT = f"""\
# Settings

This page is written by `python docs/write_settings.py` from the code that reads the settings. Unknown keys and values
that do not fit are refused before anything starts, all of them in one message.

## The `hound:` block

In any YAML that `llamafactory-cli` reads. The same keys work as `hound.key=value` on its command line, under *Extra
arguments* in its web UI, and as environment variables (`{ENVIRONMENT_PREFIX}NUM_FRAMES=16`), which come below the YAML.

{{hound}}

## `hound reward`: one YAML for every stage

`hound reward run examples/yaml/hound_reward.yaml judge.k=3` overrides a key on the command line. A block that is left
out has its defaults. Keys of services are read from the environment only.

{{reward}}

## `hound eval`: one YAML for every stage

`hound eval run examples/yaml/hound_eval.yaml suite=official name=dpo` overrides keys on the command line. `model` and
`predict.model` are the same key.

{{evaluation}}

## `prices`

One block a model, in any one currency per million tokens: `prices: {{{{my-judge: {{{{input: 1.0, output: 4.0}}}}}}}}`.

{{prices}}

## Files for `judge.protocol`

A YAML file with words of your own instead of `hound_plugin/judge/templates/caption.yaml`. It must have every one of
these keys.

{{protocol}}
"""


def table(rows: Iterable[tuple[str, FieldInfo]]) -> str:
    """A Markdown table of keys: what they accept, their default, what they mean."""
    lines = ["| key | accepts | default | |", "|---|---|---|---|"]
    for key, field in rows:
        default = "must be given" if field.is_required() else f"`{default_in_words(field)}`"
        cells = (f"`{key}`", accepts(field), default, field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = {
        "hound": HoundSettings,
        "reward": RewardSettings,
        "evaluation": EvaluationSettings,
        "prices": Price,
        "protocol": PromptTemplate,
    }
    return TEXT.format(**{name: table(documented(model)) for name, model in parts.items()})


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"written to {PAGE}\n")
