"""transformers' Auto classes know LLaVA-Hound's processors once this module is imported."""

from transformers import AutoImageProcessor, AutoProcessor, AutoVideoProcessor
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.processing.image_processor import LlavaHoundImageProcessor
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

_BACKENDS = dict.fromkeys(("torchvision", "pil"), LlavaHoundImageProcessor)  # it is the same with either

AutoImageProcessor.register(LlavaHoundConfig, image_processor_classes=_BACKENDS, exist_ok=True)
try:
    AutoVideoProcessor.register(LlavaHoundConfig, LlavaHoundVideoProcessor, exist_ok=True)
except ImportError:  # some releases refuse it without torchvision, which ours does not use
    VIDEO_PROCESSOR_MAPPING.register(LlavaHoundConfig, LlavaHoundVideoProcessor, exist_ok=True)
AutoProcessor.register(LlavaHoundConfig, LlavaHoundProcessor, exist_ok=True)
