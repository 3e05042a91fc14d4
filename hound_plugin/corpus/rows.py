"""An alias: rows are read in :mod:`hound_plugin.records.jsonl`."""

from hound_plugin.records.jsonl import LARGEST_ARRAY, LONGEST_LINE, Row, read_rows

__all__ = ["LARGEST_ARRAY", "LONGEST_LINE", "Row", "read_rows"]
