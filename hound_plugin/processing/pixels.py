"""What the image and the video processor share: statistics, sizes, and the settings of their steps.

The steps, and their order, are those of the original's ``LanguageBindVideoProcessor`` and
``LanguageBindImageProcessor``: the released checkpoints depend on them. So the settings that transformers' processors
have are either honoured (size, statistics, rescaling, normalisation, padding) or refused by name where the steps know
only one value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from hound_plugin.errors import SettingsError
from hound_plugin.media.pixel_cache import PixelCache

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
RESCALE_FACTOR = 1 / 255

# Settings of transformers' processors without a meaning here; `False` and None are what they are by default.
_ABSENT = ("pad_size", "image_seq_length", "size_divisor", "fps", "return_metadata")
_SQUARE = "a square: the towers see squares, cut from the middle after the short side was resized"


@dataclass(frozen=True)
class PixelSteps:
    """How pixels become a tensor, settled for one call.

    Attributes:
        side: of the square result, in pixels.
        mean, std: per channel, for values that were rescaled.
        pad: make an image square with the mean colour first.
        rescale_factor: of values 0..255; None: they stay as they are.
        normalise: subtract ``mean`` and divide by ``std``.
        channels_first: of arrays whose shape does not tell; None: the last axis is taken for the channels.
    """

    side: int
    mean: tuple[float, ...] = IMAGE_MEAN
    std: tuple[float, ...] = IMAGE_STD
    pad: bool = False
    rescale_factor: float | None = RESCALE_FACTOR
    normalise: bool = True
    channels_first: bool | None = None


class StepSettings:
    """Settings of an image or a video processor, for a class that also derives from transformers' base.

    ``size`` is ``{"shortest_edge": side}`` and ``crop_size`` ``{"height": side, "width": side}``, as transformers
    writes them; a whole number is taken for the side, and where ``size`` is given alone, ``crop_size`` follows it.
    """

    image_mean = IMAGE_MEAN
    image_std = IMAGE_STD
    size: Any = {"shortest_edge": 224}  # noqa: RUF012  (copied by the base)
    crop_size: Any = None
    default_to_square = False
    do_resize = True
    do_center_crop = True
    do_rescale = True
    rescale_factor = RESCALE_FACTOR
    do_normalize = True
    do_convert_rgb = True
    do_pad = False
    fixed: ClassVar[Mapping[str, Any]] = {}  # settings of which the steps know one value
    runtime: ClassVar[tuple[str, ...]] = ("pixel_cache",)  # how media are read on this machine; not saved
    valid_kwargs: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pixel_cache: PixelCache | None = None  # set where questions are answered
        self.crop_size = {"height": self.steps().side, "width": self.steps().side}

    def settled(self, **given: Any) -> dict[str, Any]:
        """Every setting of a call: those given, else this processor's own.

        Raises:
            SettingsError: one that is unknown, or that the steps cannot honour.
        """
        names = set(self.valid_kwargs.__annotations__)
        unknown = sorted(set(given) - names)
        if unknown:
            raise SettingsError(f"{unknown[0]}: expected one of {', '.join(sorted(names))}.", unknown[0])
        values = {name: getattr(self, name, None) for name in names}
        if given.get("size") is not None and given.get("crop_size") is None:
            values["crop_size"] = None
        values.update({name: value for name, value in given.items() if value is not None})
        for name, only in {**dict.fromkeys(_ABSENT), **self.fixed}.items():
            if values.get(name) not in (only, None, False if only is None else only):
                wanted = f"{only!r}, the only way the towers were trained with" if only is not None else "nothing"
                raise SettingsError(f"{name}: expected {wanted}; got {values[name]!r}. Leave it out.", name)
        if values.get("data_format") not in (None, "channels_first"):
            raise SettingsError(
                f"data_format: expected channels_first, as the model takes them; got {values['data_format']!r}.",
                "data_format",
            )
        return values

    def steps(self, **given: Any) -> PixelSteps:
        """The steps of a call: settings given, else this processor's own.

        Raises:
            SettingsError: as :meth:`settled`.
        """
        values = self.settled(**given)
        return PixelSteps(
            side=_side(values["size"], values["crop_size"]),
            mean=_statistics("image_mean", values["image_mean"]),
            std=_statistics("image_std", values["image_std"]),
            pad=bool(values["do_pad"]),
            rescale_factor=float(values["rescale_factor"]) if values["do_rescale"] else None,
            normalise=bool(values["do_normalize"]),
            channels_first=_is_channels_first(values["input_data_format"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """What is saved: settings, and not how media are read on this machine."""
        values: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        return {name: value for name, value in values.items() if name not in self.runtime}


def _side(size: Any, crop: Any) -> int:
    """The side of the square that ``size`` and ``crop_size`` describe."""
    sides = set()
    for name, value in (("size", size), ("crop_size", crop)):
        if value is None:
            continue
        given = {"side": value} if isinstance(value, int | list | tuple) else dict(value)  # a SizeDict too
        if isinstance(value, list | tuple):
            given = dict(zip(("height", "width"), value, strict=False))
        edges = {edge for edge in given.values() if edge is not None}
        if len(edges) != 1 or "longest_edge" in {key for key, edge in given.items() if edge is not None}:
            raise SettingsError(f"{name}: expected {_SQUARE}; got {given!r}.", name)
        sides |= edges
    if len(sides) != 1:
        raise SettingsError(f"size, crop_size: expected the same side, {_SQUARE}; got {sorted(sides)}.", "size")
    (side,) = sides
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise SettingsError(f"size: expected an image size of at least 1 pixel; got {side!r}.", "size")
    return side


def _statistics(name: str, values: Any) -> tuple[float, ...]:
    numbers = (values,) * 3 if isinstance(values, int | float) else tuple(values)
    if len(numbers) != 3:
        raise SettingsError(f"{name}: expected a number for each of red, green and blue; got {values!r}.", name)
    return numbers


def _is_channels_first(layout: Any) -> bool | None:
    names = {"channels_first": True, "channels_last": False, None: None}
    value = getattr(layout, "value", layout)
    if value not in names:
        raise SettingsError(
            f"input_data_format: expected channels_first or channels_last; got {value!r}.", "input_data_format"
        )
    return names[value]


# --- arithmetic


def resized(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width after the short side became ``size``; the long side is rounded down.

    Raises:
        SettingsError: ``size`` is below 1.
    """
    if size < 1:
        raise SettingsError(f"Expected an image size of at least 1 pixel; got {size}.")
    if width < height:
        return math.floor(height / width * size), size
    return size, math.floor(width / height * size)


def crop_offset(length: int, size: int) -> int:
    """Where a crop of ``size`` from the middle of ``length`` starts; halves go to even, as in the original."""
    return round((length - size) / 2.0)


def rescale(pixels: torch.Tensor, factor: float | None) -> torch.Tensor:
    """Multiply values 0..255 in place; the usual factor is the original's division by 255, to the bit."""
    if factor is None:
        return pixels
    return pixels.div_(255) if factor == RESCALE_FACTOR else pixels.mul_(factor)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise ``[..., 3, H, W]`` in place."""
    shift, scale = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std))
    return pixels.sub_(shift).div_(scale)


def as_tensors(pixels: list[torch.Tensor], return_tensors: Any) -> Any:
    """Pixels of one size as one tensor (``pt``), one array (``np``) or as they are (None).

    Raises:
        SettingsError: another framework.
    """
    kind = tensor_kind(return_tensors)
    if kind is None:
        return pixels
    stacked = torch.stack(pixels)
    return stacked if kind == "pt" else stacked.cpu().numpy()


def tensor_kind(return_tensors: Any) -> str | None:
    """``pt``, ``np`` or None.

    Raises:
        SettingsError: another framework.
    """
    kind: Any = getattr(return_tensors, "value", return_tensors)
    if kind not in ("pt", "np", None):
        raise SettingsError(f"Expected return_tensors 'pt', 'np' or None, got {kind!r}.", "return_tensors")
    return kind
