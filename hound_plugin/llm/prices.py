"""The cost of tokens by the user's own price table; no price is built in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hound_plugin.validation import Settings

CHARACTERS_PER_TOKEN = 4.0
"""For estimates before anything is sent; English text has about 4. Actual use comes from the replies."""
OTHER_CHARACTERS_PER_TOKEN = 1.0
"""Of characters beyond ASCII; Chinese, Hindi and Thai text has about 1."""


class Price(Settings):
    """Per million tokens, in any one currency; ``batch`` is a factor for the Batch API."""

    input: float = Field(ge=0, description="tokens read")
    output: float = Field(ge=0, description="tokens written")
    batch: float = Field(default=1.0, ge=0, description="factor for the Batch API")

    def cost(self, prompt_tokens: int, completion_tokens: int, batched: bool = False) -> float:
        """The cost of these numbers of tokens."""
        full = (prompt_tokens * self.input + completion_tokens * self.output) / 1e6
        return full * self.batch if batched else full


def _names(table: Any) -> Any:
    """Prices by model name; YAML may read a name as a number, and an empty block as null."""
    return {str(name): price for name, price in table.items()} if isinstance(table, dict) else table or {}


Prices = Annotated[dict[str, Price], BeforeValidator(_names)]
"""``{model: {input: 2.5, output: 10, batch: 0.5}}``."""


def estimate_tokens(text: str) -> int:
    """Roughly how many tokens a text has, in any script."""
    others = 0 if text.isascii() else sum(not character.isascii() for character in text)
    return max(1, round((len(text) - others) / CHARACTERS_PER_TOKEN + others / OTHER_CHARACTERS_PER_TOKEN))
