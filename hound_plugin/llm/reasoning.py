"""Reasoning in a model's reply, between tags such as ``<think>`` and ``</think>``."""

from __future__ import annotations

import re

REASONING = ("think", "thinking", "thought", "thoughts", "reasoning", "reflection", "analysis", "scratchpad",
             "rationale", "seed:think", "mm:think")  # fmt: skip
"""Names of tags whose content is reasoning: ``<think>...</think>``; also ``[THINK]``, ``◁think▷``, harmony channels and
the tokens of Cohere and Gemma. ``[Reasoning]`` is a heading."""
_NAMES = "|".join(REASONING)
_TAG = re.compile(
    rf"<\s*+(?P<slash>/?)\s*+(?P<name>{_NAMES})(?:\s[^<>]*)?>"
    rf"|◁(?P<slash_2>/?)(?P<name_2>{_NAMES})▷|\[(?P<slash_4>/?)(?P<name_4>think(?:ing)?)\]"
    r"|<\|(?P<edge>begin|end)_of_(?P<name_3>thought)\|>|<\|(?P<edge_2>start|end)_(?P<name_5>thinking)\|>"
    r"|<unused(?:94>(?P<name_6>thought)\b|(?P<slash_6>95)>)"
    r"|<\|channel\|>\s*(?P<channel>analysis|commentary|final)[^<>|]*<\|message\|>",
    re.IGNORECASE,
)
_WRAPPED = re.compile(r"\s*<(answer|response|output|result)>(.*)</\1>\s*", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"\s*<\|start_response\|>", re.IGNORECASE)
_LEAKED = re.compile(r"(?:</s>|<\|[A-Za-z_]{1,30}\|>|<end_of_turn>|<eos>|<｜end▁of▁sentence｜>|\s+)\Z")


def has_reasoning(text: str) -> bool:
    """Whether a reply begins with a tag of reasoning, or has one that closes; ``[thinking]`` within a text is text."""
    return any(_closes(tag) or not text[: tag.start()].strip() for tag in _TAG.finditer(text))


def _closes(tag: re.Match[str]) -> bool:
    return any(tag[group] for group in ("slash", "slash_2", "slash_4", "slash_6")) or (
        tag["edge"] or tag["edge_2"] or tag["channel"] or ""
    ).lower() in ("end", "final")


def visible(text: str) -> str:
    """A reply without its reasoning and leaked end-of-turn tokens; empty if the reasoning never ends."""
    shown: list[str] = []
    position, inside, answers = 0, "", False
    for tag in _TAG.finditer(text):
        named = (tag[group] for group in ("name", "name_2", "name_3", "name_4", "name_5", "name_6"))
        name = next(filter(None, named), "thought" if tag["slash_6"] else "channel").lower()
        closes = _closes(tag)
        if inside:
            if closes and name == inside:
                inside, position = "", tag.end()
                answers = answers or (tag["channel"] or "").lower() == "final"
            continue
        if closes and answers:  # a second answer: read both
            shown.append(text[position : tag.start()])
        elif closes:
            shown.clear()
        else:
            shown.append(text[position : tag.start()])
            inside = name
        position = tag.end()
        answers = answers or (tag["channel"] or "").lower() == "final"
    if inside:
        return ""
    shown.append(text[position:])
    answer = "\n".join(shown)
    end = len(answer)
    while end and (leaked := _LEAKED.search(answer, max(0, end - 64), end)):
        end = leaked.start()
    answer = _OPENED.sub("", answer[:end], count=1) if _OPENED.match(answer) else answer[:end]
    wrapped = _WRAPPED.fullmatch(answer)
    return wrapped[2] if wrapped else answer
