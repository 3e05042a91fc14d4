"""transformers' Auto classes know LLaVA-Hound's processors once this module is imported."""

from transformers import AutoImageProcessor, AutoProcessor
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.processing.image_processor import LlavaHoundImageProcessor
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

_BACKENDS = dict.fromkeys(("torchvision", "pil"), LlavaHoundImageProcessor)  # it is the same with either

AutoImageProcessor.register(LlavaHoundConfig, image_processor_classes=_BACKENDS, exist_ok=True)
# what AutoVideoProcessor.register does, which newer releases refuse without torchvision; ours does not use it
VIDEO_PROCESSOR_MAPPING.register(LlavaHoundConfig, LlavaHoundVideoProcessor, exist_ok=True)
AutoProcessor.register(LlavaHoundConfig, LlavaHoundProcessor, exist_ok=True)
