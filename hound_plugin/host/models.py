"""The released checkpoints in the host's model list, and the names of the composite model's parts."""

from __future__ import annotations

TEMPLATE = "llava_hound"
# Names in the host's lists (web UI too), and hub ids of the weights, in the original layout.
MODELS = {
    "LLaVA-Hound-7B-Pretrain": "ShareGPTVideo/LLaVA-Hound-Pretrain",
    "LLaVA-Hound-7B-SFT": "ShareGPTVideo/LLaVA-Hound-SFT",
    "LLaVA-Hound-7B-DPO": "ShareGPTVideo/LLaVA-Hound-DPO",
    "LLaVA-Hound-7B-SFT-Image_only": "ShareGPTVideo/LLaVA-Hound-SFT-Image_only",
}


def register_names() -> None:
    """Add the model names to the host, once."""
    from llamafactory.extras.constants import SUPPORTED_MODELS, DownloadSource, register_model_group

    models = {name: {DownloadSource.DEFAULT: hub_id} for name, hub_id in MODELS.items() if name not in SUPPORTED_MODELS}
    if models:
        register_model_group(models=models, template=TEMPLATE, multimodal=True)


def register_composite() -> None:
    """Tell the host which modules are towers, projector and language model, once."""
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS, _register_composite_model

    if TEMPLATE not in COMPOSITE_MODELS:
        _register_composite_model(
            model_type=TEMPLATE,
            projector_keys=["model.multi_modal_projector"],
            vision_model_keys=["image_tower", "video_tower"],
            language_model_keys=["language_model", "lm_head"],
        )
