"""The prompt as a Jinja template, for everyone who renders messages without this package's own encoding (vLLM, TRL)."""

from __future__ import annotations

import json
from typing import Any

from hound_plugin.processing.prompt import SYSTEM

_MARK = "{#- LLaVA-Hound, vicuna_v1 -#}"
_BEFORE_MARKS = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set message = messages[0] %}"
_TEXT_OF = (  # `text` of a message: its placeholders, then its texts
    "{%- if message['content'] is string %}{% set text = message['content'] %}{% else %}"
    "{% set parts = namespace(media=[], lines=[]) %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ['video', 'video_url', 'input_video'] %}"
    "{% set parts.media = parts.media + ['<video>'] %}{% set parts.lines = parts.lines + [''] %}"
    "{% elif part['type'] in ['image', 'image_url', 'input_image'] %}"
    "{% set parts.media = parts.media + ['<image>'] %}{% set parts.lines = parts.lines + [''] %}"
    "{% elif part['type'] in ['text', 'input_text', 'output_text'] %}"
    "{% set parts.lines = parts.lines + [part['text']] %}"
    "{% else %}{{ raise_exception('Expected parts of type text, video or image, got ' + part['type']) }}{% endif %}"
    "{% endfor %}"
    "{% set text = parts.lines | join('\\n') %}"
    "{% if parts.media %}{% set text = ((parts.media | join('\\n')) + '\\n' + (text | trim)) | trim %}{% endif %}"
    "{% if parts.media and message['content'] | length == 1 %}{% set text = text + '\\n' %}{% endif %}"
    "{% endif %}"
)
_CHAT_TEMPLATE = (
    _MARK + "{{- bos_token }}{% set system = DEFAULT %}"
    "{% if messages[0]['role'] in ['system', 'developer'] %}{% set message = messages[0] %}" + _TEXT_OF + ""
    "{% set system = text or system %}{% set messages = messages[1:] %}{% endif %}"
    "{% if system %}{{ system + ' ' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('Expected messages of user and assistant in turn, got ' + message['role']) }}{% endif %}"
    + _TEXT_OF
    + "{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + text + ' ASSISTANT:' if text else 'USER:ASSISTANT:' }}"
    "{% else %}{% generation %}{{ ' ' + text + eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
)


def chat_template(system: str = SYSTEM) -> str:
    """Jinja for ``apply_chat_template``.

    A question ends in ``ASSISTANT:``, so it is ready for its answer with or without ``add_generation_prompt``. Contents
    are texts or lists of parts (``text``, ``image``, ``video``); a text is taken as it is, and the placeholders of
    parts come first. ``{% generation %}`` marks what is learnt.

    Args:
        system: the system prompt of conversations that bring none.
    """
    return _CHAT_TEMPLATE.replace("DEFAULT", json.dumps(system, ensure_ascii=False))


CHAT_TEMPLATE = chat_template()


def is_own(template: Any) -> bool:
    """Whether a template is the one of this package, of this version or an earlier one."""
    return isinstance(template, str) and template.startswith((_MARK, _BEFORE_MARKS))
