"""The old name of :mod:`hound_plugin.media.pixel_cache`."""

from hound_plugin.media.pixel_cache import MEBIBYTE, MemoryCache, PixelCache

__all__ = ["MEBIBYTE", "MemoryCache", "PixelCache"]
