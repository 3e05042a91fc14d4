"""Tokens and what they cost, by the user's own table; no price is built in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.errors import SettingsError

CHARACTERS_PER_TOKEN = 4.0
"""For estimates before anything is sent; English text has about 4. What was used is read from the answers."""


@dataclass(frozen=True)
class Price:
    """Per million tokens, in any one currency; ``batch`` is the factor for the Batch API."""

    input: float
    output: float
    batch: float = 1.0

    def cost(self, prompt_tokens: int, completion_tokens: int, batched: bool = False) -> float:
        """The cost of so many tokens."""
        full = (prompt_tokens * self.input + completion_tokens * self.output) / 1e6
        return full * self.batch if batched else full


def read_prices(table: Mapping[str, Any] | None) -> dict[str, Price]:
    """``{model: {input: 2.5, output: 10, batch: 0.5}}``.

    Raises:
        SettingsError: a price is no number of at least 0, or a key is unknown.
    """
    prices = {}
    for model, values in (table or {}).items():
        if not isinstance(values, Mapping) or not {"input", "output"} <= set(values) <= {"input", "output", "batch"}:
            raise SettingsError(f"prices.{model}: expected input, output and if wanted batch; got {values!r}.")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise SettingsError(f"prices.{model}.{name}: expected a number of at least 0; got {value!r}.")
        prices[str(model)] = Price(**values)
    return prices


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN))
