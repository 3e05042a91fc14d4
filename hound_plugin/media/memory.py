"""The old name of :mod:`hound_plugin.media.pixel_memory`."""

from hound_plugin.media.pixel_memory import MEBIBYTE, BoundedMemory, MediaMemory

__all__ = ["MEBIBYTE", "BoundedMemory", "MediaMemory"]
