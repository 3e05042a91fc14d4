"""``AutoProcessor`` knows LLaVA-Hound once this module is imported: the processor that belongs to the configuration."""

from transformers import AutoProcessor

from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.processing.processor import LlavaHoundProcessor

AutoProcessor.register(LlavaHoundConfig, LlavaHoundProcessor, exist_ok=True)
