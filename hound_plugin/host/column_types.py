"""Types of a data set's columns, given to ``Dataset.map`` instead of guessed from the first rows.

``Dataset.map`` takes the type of a column from the first rows that it writes. If none of them has an image, the column
has the type "null", and the first image later on is an error ("Couldn't cast array of type list<item: string> to
null"). Clips are paths in one row and lists of frames in another, which no Arrow type allows: :class:`MediaItems` keeps
them as text.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pyarrow
from datasets import Dataset, Features, Sequence, Value
from datasets.features.features import register_feature

from hound_plugin.host.mm_plugin import is_ours

MEDIA = ("images", "videos", "audios")
_SEARCHED = 100  # rows, for one that the host does not drop


@dataclass
class MediaItems:
    """A column's type: any mixture of paths and lists of frames, stored as JSON text and read as lists."""

    dtype: ClassVar[str] = "string"
    pa_type: ClassVar[Any] = pyarrow.string()
    _type: str = field(default="HoundMediaItems", init=False, repr=False)

    def __call__(self) -> Any:
        """The type in Arrow."""
        return self.pa_type

    def encode_example(self, value: Any) -> str | None:
        """A list as text."""
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def decode_example(self, value: str, token_per_repo_id: Any = None) -> Any:
        """The list in a text."""
        return json.loads(value)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of `datasets`: the function is experimental
    register_feature(MediaItems, "HoundMediaItems")

_MESSAGES = [{"role": Value("string"), "content": Value("string")}]
ALIGNED = Features(
    {
        "_prompt": _MESSAGES,
        "_response": _MESSAGES,
        "_system": Value("string"),
        "_tools": Value("string"),
        "_images": Sequence(Value("string")),
        "_videos": MediaItems(),
        "_audios": Sequence(Value("string")),
    }
)


def without_decoding(dataset: Any) -> Any:
    """A data set whose images and clips stay paths and bytes until a batch is made."""
    features = {name: _without_decoding(feature) for name, feature in (dataset.features or {}).items()}
    for name, feature in features.items():
        if feature != dataset.features[name]:
            dataset = dataset.cast_column(name, feature)
    return dataset


def _without_decoding(feature: Any) -> Any:
    if isinstance(feature, dict):
        return {name: _without_decoding(item) for name, item in feature.items()}
    if hasattr(feature, "feature"):  # a list
        changed = copy(feature)
        changed.feature = _without_decoding(feature.feature)
        return changed
    return replace(feature, decode=False) if getattr(feature, "decode", None) is True else feature


class Encoded:
    """A function for ``map`` whose column ``name`` becomes text."""

    def __init__(self, function: Callable[..., Any], name: str, batched: bool) -> None:
        self._function, self._name, self._batched = function, name, batched

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        columns = dict(self._function(*args, **kwargs))
        if self._name in columns:
            value, encode = columns[self._name], MediaItems().encode_example
            columns[self._name] = [encode(item) for item in value] if self._batched else encode(value)
        return columns


class _TypedMap:
    """Stands in for a dataset where the host calls ``map`` on it, and adds the features."""

    def __init__(self, dataset: Any, features: Callable[[Any, bool], Features | None]) -> None:
        self._dataset = dataset
        self._features = features

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)

    def __len__(self) -> int:
        return len(self._dataset)

    def map(self, function: Any, batched: bool = False, **kwargs: Any) -> Any:
        """``Dataset.map`` with features; without them if the host drops all rows."""
        features = self._features(function, batched)
        if features is not None and isinstance(self._dataset, Dataset):  # a stream hands its rows on as they are
            for name, feature in features.items():
                if isinstance(feature, MediaItems):
                    function = Encoded(function, name, batched)
        return self._dataset.map(function, batched=batched, features=features, **kwargs)


def merge_with_types(original: Callable[..., Any], all_datasets: list[Any], *args: Any, **kwargs: Any) -> Any:
    """The host's ``merge_dataset``, for data sets of our format mixed with others."""
    ours = [isinstance((dataset.features or {}).get("_videos"), MediaItems) for dataset in all_datasets]
    if any(ours) and not all(ours):
        all_datasets = [
            dataset if mine else _with_media_items(dataset) for dataset, mine in zip(all_datasets, ours, strict=True)
        ]
    return original(all_datasets, *args, **kwargs)


def _with_media_items(dataset: Any) -> Any:
    features = dataset.features or Dataset.from_list([next(iter(dataset))]).features
    given = {f"_{name}": ALIGNED[f"_{name}"] for name in MEDIA if not _is_typed(features.get(f"_{name}"))}
    features = Features({**features, **given, "_videos": MediaItems()})
    return _TypedMap(dataset, lambda function, batched: features).map(dict)


def tokenise_with_types(
    original: Callable[..., Any],
    dataset: Any,
    data_args: Any,
    training_args: Any,
    stage: str,
    template: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """The host's ``_get_preprocessed_dataset`` for our template, which is given the types of the media columns."""
    args = (data_args, training_args, stage, template, *args)
    typed = isinstance(dataset, Dataset) and any(_is_typed(dataset.features.get(f"_{name}")) for name in MEDIA)
    if not typed or stage == "pt" or not is_ours(template):
        return original(dataset, *args, **kwargs)

    def features(function: Any, batched: bool) -> Features | None:
        columns: Any = None
        for number in range(min(len(dataset), _SEARCHED)):
            columns = function(dataset[number : number + 1])
            if columns:
                break
        if not columns:
            return None  # the host dropped all of these
        inferred = Dataset.from_dict({name: values for name, values in columns.items() if name not in MEDIA}).features
        if not all(map(_is_typed, inferred.values())):
            return None
        for name in columns.keys() & set(MEDIA):
            given = dataset.features.get(f"_{name}")
            inferred[name] = given if _is_typed(given) else Dataset.from_dict({name: columns[name]}).features[name]
        return inferred

    return original(_TypedMap(dataset, features), *args, **kwargs)


def _is_typed(feature: Any) -> bool:
    return feature is not None and feature != Value("null")
