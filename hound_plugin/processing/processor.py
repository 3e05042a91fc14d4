"""Text, images and clips to model inputs: a processor as transformers' own are, with the tokens of the training.

The number of visual tokens is arithmetic (frames x patches), so that :meth:`LlavaHoundProcessor.tokens_per_video` and
everything that only counts never opens a file.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.processing_utils import MultiModalData
from transformers.video_processing_utils import BaseVideoProcessor

from hound_plugin.errors import CheckpointError, DataError, SettingsError, damage_named
from hound_plugin.processing.call_settings import DEFAULTS, LlavaHoundProcessorKwargs, TextSettings
from hound_plugin.processing.chat_inputs import ChatInputs
from hound_plugin.processing.chat_template import chat_template as template_for
from hound_plugin.processing.chat_template import is_own
from hound_plugin.processing.image_processor import LlavaHoundImageProcessor
from hound_plugin.processing.media_inputs import as_clips, as_images, check_rows
from hound_plugin.processing.prompt import IMAGE_TOKEN, SYSTEM, VIDEO_TOKEN, add_placeholder_tokens, expand_prompt
from hound_plugin.processing.saved_settings import (
    HUB_KEYS,
    check_tokenizer,
    part_settings,
    saved_settings,
    saved_template,
)
from hound_plugin.processing.token_rows import Row, as_kind, pad_rows
from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor


class _PartOf:
    """A setting that lives in one of the processor's parts."""

    def __init__(self, part: str, name: str) -> None:
        self.part, self.name = part, name

    def __get__(self, processor: Any, owner: Any = None) -> Any:
        return self if processor is None else getattr(getattr(processor, self.part), self.name)

    def __set__(self, processor: Any, value: Any) -> None:
        setattr(getattr(processor, self.part), self.name, value)


class LlavaHoundProcessor(ChatInputs, ProcessorMixin):
    """Processor of LLaVA-Hound.

    Args:
        image_processor, video_processor: pixels to tensors; the released checkpoints' where they are None.
        tokenizer: a fast LLaMA tokenizer; the two placeholders are added above ``vocab_size`` if they are missing.
        image_patches, frame_patches: visual tokens of one image and of one frame.
        frame_multiple: the video tower takes multiples of this many frames.
        vocab_size: rows of the model's embedding.
        system: the system prompt of conversations that bring none, as the model was trained.
        chat_template: Jinja instead of this model's own prompt.
        parts: ``num_frames``, ``frame_sampling`` and ``image_aspect_ratio`` (``pad`` or None), for the parts.

    Attributes:
        decoder, decode_timeout, frame_cache, frame_cache_limit (bytes), on_bad_media: how clips are read on this
            machine; not saved.
    """

    valid_processor_kwargs = LlavaHoundProcessorKwargs
    text_kwargs, images_kwargs, videos_kwargs = (DEFAULTS[f"{name}_kwargs"] for name in ("text", "images", "videos"))
    num_frames = _PartOf("video_processor", "num_frames")
    frame_sampling = _PartOf("video_processor", "frame_sampling")
    decoder = _PartOf("video_processor", "decoder")
    decode_timeout = _PartOf("video_processor", "decode_timeout")
    frame_cache = _PartOf("video_processor", "frame_cache")
    frame_cache_limit = _PartOf("video_processor", "frame_cache_limit")

    def __init__(
        self,
        image_processor: LlavaHoundImageProcessor | None = None,
        tokenizer: Any = None,
        video_processor: LlavaHoundVideoProcessor | None = None,
        image_patches: int = 256,
        frame_patches: int = 256,
        frame_multiple: int = 1,
        vocab_size: int | None = None,
        system: str = SYSTEM,
        chat_template: str | dict[str, str] | None = None,
        **parts: Any,
    ) -> None:
        image_processor = image_processor or LlavaHoundImageProcessor()
        if video_processor is None:
            like_images = {name: getattr(image_processor, name) for name in ("size", "image_mean", "image_std")}
            video_processor = LlavaHoundVideoProcessor(**like_images)
        self.image_patches = image_patches
        self.frame_patches = frame_patches
        self.frame_multiple = frame_multiple
        self.vocab_size = vocab_size
        self.system = system
        self.on_bad_media = "error"
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        self.image_token_id, self.video_token_id = add_placeholder_tokens(tokenizer, vocab_size)
        own = template_for(system)
        if is_own(tokenizer.chat_template):
            tokenizer.chat_template = own
        template = own if chat_template is None or is_own(chat_template) else chat_template
        super().__init__(image_processor, tokenizer, video_processor, chat_template=template)
        for name, value in parts.items():
            if name not in ("num_frames", "frame_sampling", "image_aspect_ratio"):
                raise TypeError(f"Unexpected keyword argument {name}.")
            setattr(self, name, value)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """As transformers', which does not find the class of video processors where torchvision is missing."""
        if argument_name == "video_processor" and isinstance(argument, BaseVideoProcessor):
            return BaseVideoProcessor
        return super().check_argument_for_proper_class(argument_name, argument)

    def __copy__(self) -> LlavaHoundProcessor:
        """A processor whose settings may be changed without this one's; the tokenizer is shared."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        for name in ("image_processor", "video_processor"):
            setattr(other, name, copy.copy(getattr(self, name)))
        return other

    @classmethod
    def from_config(cls, config: Any, tokenizer: Any, **settings: Any) -> LlavaHoundProcessor:
        """Build the processor that belongs to a model's configuration.

        Args:
            config: a :class:`hound_plugin.LlavaHoundConfig`.
            tokenizer: the language model's.
            settings: for this class, and dicts for its ``image_processor`` and ``video_processor``.

        Raises:
            CheckpointError: they say a size that the towers do not take.
        """
        tower = config.video_tower_config
        name = config.name_or_path or "the checkpoint"
        image, video = (part_settings(settings.pop(part, {}), tower.image_size, name) for part in _PARTS)
        image = {"do_pad": config.image_aspect_ratio == "pad", **image, "size": tower.image_size}
        video = {"num_frames": config.default_num_frames, **video, "size": tower.image_size}
        defaults = {
            "image_patches": config.tokens_per_image,
            "frame_patches": tower.patches_per_frame,
            "frame_multiple": tower.num_frames if tower.add_time_attn else 1,
            "vocab_size": config.text_config.vocab_size,
        }
        return cls(
            LlavaHoundImageProcessor(**image),
            tokenizer,
            LlavaHoundVideoProcessor(**video),
            **{**defaults, **settings},
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> LlavaHoundProcessor:
        """Load from a checkpoint of either layout; what the processor's own files lack comes from the config.

        Args:
            pretrained_model_name_or_path: a folder or a hub id.
            kwargs: where on the hub, and settings of the processor and its parts that go before the saved ones.

        Raises:
            CheckpointError: the checkpoint is of another architecture, or one of its files is damaged.
        """
        name = pretrained_model_name_or_path
        hub = {key: kwargs[key] for key in HUB_KEYS if kwargs.get(key) is not None}
        with damage_named(name, "config.json"):
            config = AutoConfig.from_pretrained(name, **hub, trust_remote_code=False)
        if config.model_type != "llava_hound":
            raise CheckpointError(
                f"Expected a LLaVA-Hound checkpoint in {name}, found model_type {config.model_type!r}."
            )
        with damage_named(name, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right", **hub, trust_remote_code=False)
        check_tokenizer(tokenizer, name)
        settings = saved_settings(name, **hub)
        template = kwargs.get("chat_template") or saved_template(name, **hub)
        parts = {part: dict(settings[part]) for part in _PARTS}
        for part, kind in zip(_PARTS, (LlavaHoundImageProcessor, LlavaHoundVideoProcessor), strict=True):
            parts[part].update({key: kwargs[key] for key in kind.valid_kwargs.__annotations__ if key in kwargs})
        if "image_aspect_ratio" in kwargs:
            parts["image_processor"]["do_pad"] = kwargs["image_aspect_ratio"] == "pad"
        system = kwargs.get("system", settings.get("system", SYSTEM))
        return cls.from_config(config, tokenizer, system=system, chat_template=template, **parts)

    def set_system(self, system: str) -> None:
        """Take another system prompt for conversations that bring none; saved with the processor and its tokenizer."""
        self.system = system
        self.chat_template = self.tokenizer.chat_template = template_for(system)

    def take_settings_of(self, adapter: str) -> None:
        """Take what an adapter was trained with, if its folder tells: system prompt, number and choice of frames."""
        saved = saved_settings(adapter)
        system = saved.get("system")
        if system is not None and system != self.system:
            self.set_system(system)
        for name in ("num_frames", "frame_sampling"):
            if saved["video_processor"].get(name) is not None:
                setattr(self, name, saved["video_processor"][name])

    @property
    def image_aspect_ratio(self) -> str | None:
        """``pad``: images are made square with the mean colour, as the checkpoint was trained; or None."""
        return "pad" if self.image_processor.do_pad else None

    @image_aspect_ratio.setter
    def image_aspect_ratio(self, value: str | None) -> None:
        self.image_processor.do_pad = value == "pad"

    @property
    def pixel_cache(self) -> Any:
        """What is kept of media between questions, for both kinds; None: nothing."""
        return self.video_processor.pixel_cache

    @pixel_cache.setter
    def pixel_cache(self, value: Any) -> None:
        self.image_processor.pixel_cache = self.video_processor.pixel_cache = value

    # --- arithmetic

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens of one image."""
        return self.image_patches

    @property
    def tokens_per_video(self) -> int:
        """Visual tokens of one clip: frames x patches; no file is opened for it."""
        return int(self.num_frames) * self.frame_patches

    def expanded(self, text: str) -> str:
        """A text with every placeholder once per visual token."""
        text = text.replace(VIDEO_TOKEN, VIDEO_TOKEN * self.tokens_per_video)
        return text.replace(IMAGE_TOKEN, IMAGE_TOKEN * self.tokens_per_image)

    def visual_tokens(self, num_frames: int) -> dict[str, int]:
        """Visual tokens of each placeholder.

        Raises:
            SettingsError: the video tower does not take this many frames.
        """
        if num_frames % self.frame_multiple:
            raise SettingsError(
                f"num_frames: expected a multiple of {self.frame_multiple} for this model's temporal attention, got "
                f"{num_frames}.",
                "num_frames",
            )
        return {IMAGE_TOKEN: self.image_patches, VIDEO_TOKEN: num_frames * self.frame_patches}

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Any] | None = None, video_sizes: Sequence[Any] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Visual tokens of images and clips of these sizes, as vLLM asks; the sizes do not matter."""
        tokens = self.visual_tokens(kwargs.get("num_frames") or self.num_frames)
        counts: dict[str, list[int]] = {}
        if image_sizes is not None:
            counts["num_image_tokens"] = [tokens[IMAGE_TOKEN]] * len(image_sizes)
            counts["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            counts["num_video_tokens"] = [tokens[VIDEO_TOKEN]] * len(video_sizes)
        return MultiModalData(**counts)

    def replace_image_token(self, image_inputs: Any = None, image_idx: int = 0, **kwargs: Any) -> str:
        """What represents one image in the text (transformers 5.18 and later ask)."""
        return IMAGE_TOKEN * self.tokens_per_image

    def replace_video_token(self, video_inputs: Any = None, video_idx: int = 0, **kwargs: Any) -> str:
        """What represents one clip in the text (transformers 5.18 and later ask)."""
        return VIDEO_TOKEN * self.tokens_per_video

    # --- media

    def read_video(self, video: Any) -> torch.Tensor:
        """Decode, sample and normalise one clip; see :meth:`LlavaHoundVideoProcessor.read`.

        Raises:
            MediaError: it cannot be found, read, or has no frames.
        """
        pixels: torch.Tensor = self.video_processor.read(video)
        return pixels

    def read_image(self, image: Any) -> torch.Tensor:
        """Open and normalise one image; see :meth:`LlavaHoundImageProcessor.read`.

        Raises:
            MediaError: it cannot be found or read.
        """
        pixels: torch.Tensor = self.image_processor.read(image)
        return pixels

    def black_video(self) -> torch.Tensor:
        """An all-black clip instead of a bad one whose row is masked: ``[num_frames, 3, side, side]``."""
        pixels: torch.Tensor = self.video_processor.black()
        return pixels

    # --- everything together

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare one prompt or a batch of prompts.

        Args:
            images: an image or a list of images, in the order of the ``<image>`` placeholders of all texts; or a list
                for each text.
            text: whole prompts; BOS is put in front. Each chunk between placeholders is tokenised on its own.
            videos: a clip or a list of clips, in the order of the ``<video>`` placeholders; or a list for each text. A
                list of frames is one clip; put it into a list of its own if there are several.
            audio: none; LLaVA-Hound sees frames only.
            kwargs: settings as transformers' processors take them, all in one or in ``text_kwargs``,
                ``images_kwargs`` and ``videos_kwargs``. ``padding`` is true and ``padding_side`` left by default, so
                that ``model.generate`` goes on where the prompts end (the model's outputs at attended positions are
                the same on either side); ``return_tensors`` is "pt" by default, or "np" or None.

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, S]``, ``pixel_values_images`` ``[N, 3, H, W]`` and
            ``pixel_values_videos`` ``[N, T, 3, H, W]`` where there are any.

        Raises:
            PlaceholderError: placeholders and media differ in number.
            MediaError: a clip or an image cannot be used.
            SettingsError: a setting cannot be honoured, such as a truncation that would cut visual tokens.
        """
        if images is None and text is None and videos is None and audio is None:
            raise SettingsError("Expected text, images or videos, got none of them.")
        if audio is not None:
            raise DataError("Expected no audio: LLaVA-Hound sees frames only.")
        settings = self._settings(**kwargs)
        rows = None if text is None else self._rows(text, images, videos, settings)
        return self._inputs(rows, as_images(images), as_clips(videos), settings)

    def _settings(self, **kwargs: Any) -> dict[str, Any]:
        """Settings of a call by what they are for; the tokenizer's own side of padding is the training's."""
        init = {key: value for key, value in self.tokenizer.init_kwargs.items() if key != "padding_side"}
        settings: dict[str, Any] = self._merge_kwargs(LlavaHoundProcessorKwargs, tokenizer_init_kwargs=init, **kwargs)
        return settings

    def _rows(self, text: str | Sequence[str], images: Any, videos: Any, settings: dict[str, Any]) -> list[Row]:
        texts = [text] if isinstance(text, str) else list(text)
        if not all(isinstance(item, str) for item in texts):
            raise SettingsError(f"text: expected a string or a list of strings, got {text!r:.200}.", "text")
        tokens = self.visual_tokens(settings["videos_kwargs"].get("num_frames") or self.num_frames)
        adds_bos = TextSettings.of(settings).adds_bos
        left = {}
        for token, items, flatten in ((IMAGE_TOKEN, images, as_images), (VIDEO_TOKEN, videos, as_clips)):
            check_rows(items, texts, token)
            left[token] = len(flatten(items))
        rows = []
        for number, item in enumerate(texts):
            # the last text answers for what is left over
            taken = left if number == len(texts) - 1 else {token: item.count(token) for token in left}
            counts = {token: [tokens[token]] * taken[token] for token in left}
            rows.append(Row(expand_prompt(self.tokenizer, item, counts, adds_bos)))
            left = {token: left[token] - taken[token] for token in left}
        return rows

    def _inputs(
        self, rows: Sequence[Row] | None, images: Sequence[Any], videos: Sequence[Any], settings: dict[str, Any]
    ) -> BatchFeature:
        """Rows and media, in order, as the model takes them."""
        text = TextSettings.of(settings)
        data = {} if rows is None else pad_rows(self.tokenizer, rows, text)
        if rows is not None and text.token_types:
            ids = data["input_ids"]
            types = self.create_mm_token_type_ids(ids if isinstance(ids, list) else ids.tolist())
            data["mm_token_type_ids"] = types if text.kind is None else as_kind(types, text.kind)
        if images:
            data.update(self.image_processor(images, **settings["images_kwargs"]))
        if videos:
            data.update(self.video_processor(videos, **settings["videos_kwargs"]))
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the inputs that this processor makes."""
        return ["input_ids", "attention_mask", "pixel_values_images", "pixel_values_videos"]


_PARTS = ("image_processor", "video_processor")
