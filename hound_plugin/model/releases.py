"""What differs between the releases of transformers that the model runs on, found by looking and not by number.

Everything else of the model side is written so that it holds in all of them (5.5 to the newest; ``make compat``).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE_FIELD = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"
"""What a model's key-value cache is called in its arguments and its output: renamed in 5.24."""


def cache_of(output: Any) -> Any:
    """The key-value cache in a model's output, or None."""
    return getattr(output, CACHE_FIELD)
