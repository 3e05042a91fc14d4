"""Earlier name of :func:`hound_plugin.corpus.dataset_conversion.convert_record`."""

from __future__ import annotations

from hound_plugin.corpus.dataset_conversion import convert_record

__all__ = ["convert_record"]
