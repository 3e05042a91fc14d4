"""A CLIP vision tower with optional divided space-time attention.

With ``add_time_attn`` every block first attends over time at each patch position, then over space in each frame
(the LanguageBind video tower; the factorisation is TimeSformer's, arXiv 2102.05095). The temporal embedding is added
to the residual stream in *every* block, CLS included. There are no attention masks anywhere.

The parameter names are those of the LanguageBind files, so that loading and converting need no mapping for them.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from hound_plugin.errors import MediaError
from hound_plugin.model.configuration import LlavaHoundTowerConfig


class TowerEmbeddings(nn.Module):
    """Patches, CLS and learned positions: ``[N, 3, H, W] -> [N, 1 + P, C]``."""

    def __init__(self, config: LlavaHoundTowerConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.class_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size, bias=False
        )
        self.position_embedding = nn.Embedding(config.patches_per_frame + 1, config.hidden_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed frames of the tower's own size."""
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        cls = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([cls, patches], dim=1) + self.position_embedding.weight


class TowerBlock(GradientCheckpointingLayer):
    """One pre-norm block: time (optional), space, MLP. ``[N * T, 1 + P, C]`` in and out."""

    def __init__(self, config: LlavaHoundTowerConfig) -> None:
        super().__init__()
        self.num_frames = config.num_frames if config.add_time_attn else None
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if config.add_time_attn:
            self.temporal_embedding = nn.Parameter(torch.zeros(1, config.num_frames, config.hidden_size))
            self.temporal_attn = CLIPAttention(config)
            self.temporal_layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        if self.num_frames is not None:
            hidden = self._over_time(hidden, self.num_frames)
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), attention_mask=None)[0]
        return hidden + self.mlp(self.layer_norm2(hidden))

    def _over_time(self, hidden: torch.Tensor, frames: int) -> torch.Tensor:
        rows, tokens, width = hidden.shape
        clips = rows // frames
        # [(b t), n, c] -> [(b n), t, c]: attention runs over t at each patch position
        hidden = hidden.view(clips, frames, tokens, width).transpose(1, 2).reshape(clips * tokens, frames, width)
        hidden = hidden + self.temporal_embedding
        hidden = hidden + self.temporal_attn(self.temporal_layer_norm1(hidden), attention_mask=None)[0]
        return hidden.view(clips, tokens, frames, width).transpose(1, 2).reshape(rows, tokens, width)


class TowerEncoder(nn.Module):
    """The stack of blocks, named as in the files."""

    def __init__(self, config: LlavaHoundTowerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([TowerBlock(config) for _ in range(config.num_hidden_layers)])


class LlavaHoundTower(PreTrainedModel):
    """A LanguageBind tower for images (``[N, 3, H, W]``) or clips (``[N, T, 3, H, W]``).

    Blocks after the selected layer and ``post_layernorm`` are part of the files and kept for converting back, but
    :meth:`features` never runs them; they have no gradients.
    """

    config_class = LlavaHoundTowerConfig
    config: LlavaHoundTowerConfig
    base_model_prefix = "tower"
    main_input_name = "pixel_values"
    input_modalities = ("image", "video")
    supports_gradient_checkpointing = True
    _no_split_modules = ("TowerBlock",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LlavaHoundTowerConfig) -> None:
        super().__init__(config)
        self.embeddings = TowerEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # (sic) as in the files
        self.encoder = TowerEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range * self.config.initializer_factor
        if isinstance(module, TowerEmbeddings):
            init.normal_(module.class_embedding, std=std)
            init.normal_(module.patch_embedding.weight, std=std)
            init.normal_(module.position_embedding.weight, std=std)
        elif isinstance(module, TowerBlock) and module.num_frames is not None:
            init.normal_(module.temporal_embedding, std=std)

    def blocks_for(self, select_layer: int) -> int:
        """The number of blocks that run for the hidden state ``select_layer`` (-2: all but the last)."""
        states = len(self.encoder.layers) + 1
        index = select_layer if select_layer >= 0 else states + select_layer
        if not 0 <= index < states:
            raise MediaError(f"Expected a layer in -{states}..{states - 1}, got {select_layer}.")
        return index

    def freeze_unused(self, select_layer: int) -> None:
        """Freeze what :meth:`features` never runs; distributed training would wait for its gradients."""
        for block in self.encoder.layers[self.blocks_for(select_layer) :]:
            block.requires_grad_(False)
        self.post_layernorm.requires_grad_(False)

    def forward(self, pixel_values: torch.Tensor, blocks: int | None = None) -> tuple[torch.Tensor, ...]:
        """Run ``blocks`` blocks (all if None).

        Args:
            pixel_values: ``[N, 3, H, W]`` or ``[N, T, 3, H, W]``, normalised. A tower with temporal attention needs
                clips with T a multiple of ``num_frames``; more frames are treated as consecutive groups.

        Returns:
            All hidden states, the first one after ``pre_layrnorm``; each ``[N, 1 + P, C]`` for images and
            ``[N, T, 1 + P, C]`` for clips.

        Raises:
            MediaError: wrong number of dimensions, frame size or frame count.
        """
        frames = self._check(pixel_values)
        hidden = self.pre_layrnorm(self.embeddings(pixel_values.flatten(0, -4)))
        states = [hidden]
        for block in self.encoder.layers[:blocks]:
            hidden = block(hidden)
            states.append(hidden)
        if frames is None:
            return tuple(states)
        return tuple(state.unflatten(0, (-1, frames)) for state in states)

    def features(self, pixel_values: torch.Tensor, select_layer: int = -2) -> torch.Tensor:
        """Patch features without CLS, frame-major.

        Returns:
            ``[N, P, C]`` for images, ``[N, T * P, C]`` for clips, in the dtype of ``pixel_values``.
        """
        hidden = self(pixel_values, self.blocks_for(select_layer))[-1]
        return hidden[..., 1:, :].flatten(1, -2).to(pixel_values.dtype)

    def _check(self, pixel_values: torch.Tensor) -> int | None:
        """Validate the shape; return T for clips and None for images."""
        size = self.config.image_size
        shape = tuple(pixel_values.shape)
        if len(shape) not in (4, 5) or shape[-3:] != (self.config.num_channels, size, size):
            raise MediaError(
                f"Expected pixel values [N, {self.config.num_channels}, {size}, {size}] (images) or [N, T, "
                f"{self.config.num_channels}, {size}, {size}] (clips), got {list(shape)}. Note that time comes before "
                "the colour channels here."
            )
        frames = shape[1] if len(shape) == 5 else None
        if self.config.add_time_attn and (frames is None or frames % self.config.num_frames):
            raise MediaError(
                f"Expected clips of a multiple of {self.config.num_frames} frames for this tower's temporal "
                f"attention, got {'an image' if frames is None else f'{frames} frames'}. Set `num_frames` to "
                f"{self.config.num_frames}."
            )
        return frames
