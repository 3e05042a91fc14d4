"""LLaVA-Hound (arXiv 2404.01258) for LLaMA-Factory: model, template, video collator, chat and training.

>>> import hound_plugin  # doctest: +SKIP
>>> hound = hound_plugin.load("ShareGPTVideo/LLaVA-Hound-DPO", device="cuda", dtype="bfloat16")  # doctest: +SKIP
>>> hound.chat("What is this video about?", video="clip.mp4", temperature=0)  # doctest: +SKIP

Layers, each importing only what is to its left (``tests/test_layering.py``)::

    errors, settings <- records <- media <- processing <- model.inference <- cli
                   model.configuration <- processing, model  <- host (the only one that imports llamafactory)
    errors, media  <- judge <- reward <- cli (which hands our model to reward; neither of the two imports torch)

Importing this package imports nothing heavy. It only arranges that ``AutoConfig``, ``AutoProcessor`` and
``AutoModelForImageTextToText`` know LLaVA-Hound once transformers is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hound_plugin.version import __version__

_HOME = {
    "ArchiveError": "hound_plugin.errors",
    "CheckpointError": "hound_plugin.errors",
    "ClientDisconnectedError": "hound_plugin.errors",
    "ContextLengthError": "hound_plugin.errors",
    "CorpusError": "hound_plugin.errors",
    "DataError": "hound_plugin.errors",
    "DecodeTimeoutError": "hound_plugin.errors",
    "DiskFullError": "hound_plugin.errors",
    "DownloadError": "hound_plugin.errors",
    "EmptyMediaError": "hound_plugin.errors",
    "EnvironmentMismatchError": "hound_plugin.errors",
    "HoundError": "hound_plugin.errors",
    "HoundModel": "hound_plugin.model.inference",
    "HoundSettings": "hound_plugin.settings",
    "InUseError": "hound_plugin.errors",
    "JudgeError": "hound_plugin.errors",
    "LedgerError": "hound_plugin.errors",
    "LlavaHoundConfig": "hound_plugin.model.configuration",
    "LlavaHoundForConditionalGeneration": "hound_plugin.model.modeling",
    "LlavaHoundImageProcessor": "hound_plugin.processing.image_processor",
    "LlavaHoundProcessor": "hound_plugin.processing.processor",
    "LlavaHoundVideoProcessor": "hound_plugin.processing.video_processor",
    "MediaDecodeError": "hound_plugin.errors",
    "MediaError": "hound_plugin.errors",
    "MediaNotFoundError": "hound_plugin.errors",
    "PlaceholderError": "hound_plugin.errors",
    "SettingsError": "hound_plugin.errors",
    "TrainingError": "hound_plugin.errors",
    "load": "hound_plugin.model.inference",
}
__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from hound_plugin.errors import ArchiveError as ArchiveError
    from hound_plugin.errors import CheckpointError as CheckpointError
    from hound_plugin.errors import ClientDisconnectedError as ClientDisconnectedError
    from hound_plugin.errors import ContextLengthError as ContextLengthError
    from hound_plugin.errors import CorpusError as CorpusError
    from hound_plugin.errors import DataError as DataError
    from hound_plugin.errors import DecodeTimeoutError as DecodeTimeoutError
    from hound_plugin.errors import DiskFullError as DiskFullError
    from hound_plugin.errors import DownloadError as DownloadError
    from hound_plugin.errors import EmptyMediaError as EmptyMediaError
    from hound_plugin.errors import EnvironmentMismatchError as EnvironmentMismatchError
    from hound_plugin.errors import HoundError as HoundError
    from hound_plugin.errors import InUseError as InUseError
    from hound_plugin.errors import JudgeError as JudgeError
    from hound_plugin.errors import LedgerError as LedgerError
    from hound_plugin.errors import MediaDecodeError as MediaDecodeError
    from hound_plugin.errors import MediaError as MediaError
    from hound_plugin.errors import MediaNotFoundError as MediaNotFoundError
    from hound_plugin.errors import PlaceholderError as PlaceholderError
    from hound_plugin.errors import SettingsError as SettingsError
    from hound_plugin.errors import TrainingError as TrainingError
    from hound_plugin.model.configuration import LlavaHoundConfig as LlavaHoundConfig
    from hound_plugin.model.inference import HoundModel as HoundModel
    from hound_plugin.model.inference import load as load
    from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration as LlavaHoundForConditionalGeneration
    from hound_plugin.processing.image_processor import LlavaHoundImageProcessor as LlavaHoundImageProcessor
    from hound_plugin.processing.processor import LlavaHoundProcessor as LlavaHoundProcessor
    from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor as LlavaHoundVideoProcessor
    from hound_plugin.settings import HoundSettings as HoundSettings


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


def _activate() -> None:
    from hound_plugin.host.autoload import activate
    from hound_plugin.moved import install

    activate()
    install()


_activate()
