"""Earlier names of :mod:`hound_plugin.records` and :mod:`hound_plugin.corpus.checking`."""

from __future__ import annotations

from hound_plugin.corpus.checking import Checked, RowKind, check_record, media_of
from hound_plugin.records.placeholders import IMAGE_TOKEN, VIDEO_TOKEN
from hound_plugin.records.record import Problem

__all__ = ["IMAGE_TOKEN", "VIDEO_TOKEN", "Checked", "Problem", "RowKind", "check_record", "media_of"]
