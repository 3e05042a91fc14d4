"""LLaVA-Hound in vLLM: the only place that imports it.

vLLM finds the model by the entry point ``vllm.general_plugins``; then ``vllm serve ShareGPTVideo/LLaVA-Hound-DPO`` and
``vllm.LLM(...)`` work with both checkpoint layouts. The language model is vLLM's own; towers, projector, frames, pixels
and prompt tokens are this package's, so that answers are those of ``hound_plugin.load``.
"""
