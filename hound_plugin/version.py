"""The version of this package, as in ``setup.cfg``."""

__version__ = "0.1.0"
