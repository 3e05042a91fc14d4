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

_CONTROL = re.compile(r"<\|(?:im_(?:start|end)|(?:start|end)_header_id|eot_id|endoftext|end|user|assistant|system)\|>"
                      r"|<(?:start|end)_of_turn>|</s>|<｜end▁of▁sentence｜>")  # fmt: skip


def has_reasoning(text: str) -> bool:
    """Whether a reply begins with a tag of reasoning, or has one that closes; ``[thinking]`` within a text is text."""
    return any(_closes(tag) or not text[: tag.start()].strip() for tag in _TAG.finditer(text))


def without_end(text: str) -> str:
    """A reply without the end-of-turn tokens that leaked at its end, such as ``</s>``; unchanged if there are none."""
    cut = _cut(text)
    return text if cut == text.rstrip() else cut


def control_token(text: str) -> str:
    """The first token of a chat template within a reply, such as ``<|im_start|>``; empty if there is none."""
    found = _CONTROL.search(text)
    return found[0] if found else ""


def _cut(text: str) -> str:
    end = len(text)
    while end and (leaked := _LEAKED.search(text, max(0, end - 64), end)):
        end = leaked.start()
    return text[:end]


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
    answer = _cut("\n".join(shown))
    answer = _OPENED.sub("", answer, count=1) if _OPENED.match(answer) else answer
    wrapped = _WRAPPED.fullmatch(answer)
    return wrapped[2] if wrapped else answer
