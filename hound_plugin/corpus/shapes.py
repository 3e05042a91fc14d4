"""Earlier name of :func:`hound_plugin.corpus.convert.convert_record`."""

from __future__ import annotations

from hound_plugin.corpus.convert import convert_record

__all__ = ["convert_record"]
