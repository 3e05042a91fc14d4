"""What ``dataset_info.json`` says of a run's data sets, checked before any of their rows is read.

The host takes every value as it is: ``"ranking": "false"`` means true, a misspelt key is dropped, and a list of columns
ends in ``'list' object has no attribute 'get'``. :mod:`hound_plugin.host.column_checks` compares entries with rows.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from llamafactory.data.converter import DATASET_CONVERTERS
from llamafactory.extras import logging

from hound_plugin.errors import DataError
from hound_plugin.host import settings_state
from hound_plugin.host.held_out_rows import unmixed

logger = logging.get_logger(__name__)

FILE = "dataset_info.json"
_HUBS = ("hf_hub_url", "ms_hub_url", "om_hub_url")
_SOURCES = (*_HUBS, "script_url", "cloud_file_name", "file_name")
_PARTS = ("subset", "folder")  # of a hub's or a script's data set
_TEXTS = (*_SOURCES, *_PARTS, "split")
_COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools", "images", "videos", "audios", "chosen",
    "rejected", "kto_tag",
)  # fmt: skip
_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
_KEYS = (*_TEXTS, "formatting", "ranking", "num_samples", "columns", "tags")


def check_stage(
    original: Callable[..., Any],
    dataset_names: Any,
    model_args: Any,
    data_args: Any,
    training_args: Any,
    stage: str,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """``_get_merged_dataset``, which takes values of any type, and calls a data set for another stage "not applicable".

    Raises:
        DataError: names the data set, and what to write; or one is named repeatedly.
    """
    from llamafactory.data.parser import get_dataset_list

    ours = settings_state.is_ours() and dataset_names is not None
    if ours:
        _check_repeated(dataset_names)
        check_entries(dataset_names, data_args.dataset_dir)
    attrs = get_dataset_list(dataset_names, data_args.dataset_dir) if ours else []
    for name, attr in zip(dataset_names if ours else [], attrs, strict=True):
        _check_kind(name, attr, stage)
        if attr.num_samples is not None and data_args.streaming:
            raise DataError(
                f"dataset {name!r}: `num_samples` of its entry in {FILE} has no effect with `streaming: true`, which "
                "reads all rows. Remove one of the two."
            )
    if ours:
        data_args = unmixed(dataset_names, data_args)
    return original(dataset_names, model_args, data_args, training_args, stage, *args, **kwargs)


def _check_repeated(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"Expected each data set once, found {', '.join(map(repr, repeated))} repeatedly in {', '.join(names)}: "
            "the host would read it once. To train on its rows more often, give it a second name in "
            f"{FILE}, or mix by `mix_strategy` and `interleave_probs`."
        )


def _check_kind(name: str, attr: Any, stage: str) -> None:
    """Rows of pairs, of labelled answers and of conversations each have their stages."""
    chosen = settings_state.stage()
    if stage == "rm" and not attr.ranking:
        raise DataError(
            f"Expected data sets of pairs for `stage: {chosen}`; {name!r} is not one by its entry in {FILE}. If its "
            'rows have `chosen` and `rejected`, write "ranking": true into the entry; otherwise choose `stage: sft`, '
            "or `stage: kto` for labelled answers."
        )
    if stage != "rm" and attr.ranking:
        raise DataError(
            f"Expected data sets of conversations for `stage: {chosen}`; {name!r} has pairs by its entry in {FILE} "
            '("ranking": true). Choose `stage: dpo`, or another data set.'
        )
    if attr.formatting == "hound":
        return  # labels are found in the rows
    if stage == "kto" and attr.kto_tag is None:
        raise DataError(
            f"Expected data sets of labelled answers for `stage: kto`; {name!r} names no column of labels in {FILE}. "
            'Write "columns": {"kto_tag": ...} with that column into its entry, or choose `stage: sft`.'
        )
    if stage not in ("kto", "rm") and attr.kto_tag is not None:
        raise DataError(
            f"Expected data sets of good answers for `stage: {chosen}`; {name!r} has labelled ones by its entry in "
            f'{FILE} ("kto_tag": "{attr.kto_tag}"). Choose `stage: kto`; or, if all of its answers are good, remove '
            "`kto_tag` from the entry."
        )


def check_entries(names: Iterable[str], dataset_dir: Any) -> None:
    """Check the entries of data sets, in a local folder or given as an object.

    Args:
        names: of the data sets; unknown ones are left to the host, which names them.
        dataset_dir: the host's option.

    Raises:
        DataError: an entry has a value of another type, or a key that is probably misspelt; all problems of all
            entries are listed.
    """
    entries = dataset_dir
    if isinstance(dataset_dir, str):
        file = os.path.join(dataset_dir, FILE)
        if not os.path.isfile(file):
            return  # the host says so, or its data sets are on the hub
        with open(file, encoding="utf-8") as opened:
            try:
                entries = json.load(opened)
            except ValueError as error:
                raise DataError(f"Expected JSON in {file}: {error}. Correct the file.") from error
    if not isinstance(entries, dict):
        raise DataError(f"Expected an object with an entry for each data set in {FILE}, found {_shown(entries)}.")
    problems = []
    for name in names:
        if name in entries:
            problems += [f"dataset {name!r}: {problem}" for problem in _problems(name, entries[name])]
    if problems:
        raise DataError(f"{'; '.join(problems)}. Correct {FILE}.")


def _problems(name: str, entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return [f"expected an object as its entry, found {_shown(entry)}"]
    problems = _unknown(name, entry)
    problems += [_expected(key, "a text", entry[key]) for key in _TEXTS if not _is_text(entry, key, key in _PARTS)]
    formats = sorted(DATASET_CONVERTERS)
    if "formatting" in entry and entry["formatting"] not in formats:
        problems.append(_expected("formatting", f"one of {', '.join(formats)}", entry["formatting"]))
    if "ranking" in entry and not isinstance(entry["ranking"], bool):
        problems.append(_expected("ranking", "true or false, without quotes", entry["ranking"]))
    samples = entry.get("num_samples")
    if samples is not None and (type(samples) is not int or samples < 1):
        problems.append(_expected("num_samples", "a whole number of at least 1", samples))
    for key, known in (("columns", _COLUMNS), ("tags", _TAGS)):
        problems += _names(key, known, entry[key]) if key in entry else []
    return [*problems, *_sources(entry)]


def _unknown(name: str, entry: dict[str, Any]) -> list[str]:
    problems = []
    for key in entry.keys() - set(_KEYS):
        near = get_close_matches(key, (*_KEYS, *_COLUMNS, *_TAGS), 1, 0.75)
        if not near:
            logger.warning_rank0_once(f"dataset {name!r}: nothing reads `{key}` of its entry in {FILE}.")
        elif near[0] in _KEYS:
            problems.append(f"`{key}` is not a key that the host reads (did you mean `{near[0]}`?)")
        else:
            within = "columns" if near[0] in _COLUMNS else "tags"
            problems.append(f'`{key}` belongs into `{within}`: "{within}": {{"{near[0]}": {json.dumps(entry[key])}}}')
    return sorted(problems)


def _names(key: str, known: tuple[str, ...], value: Any) -> list[str]:
    """Problems of ``columns`` or ``tags``: an object of texts by known names; null leaves one out."""
    if not isinstance(value, dict):
        return [_expected(key, f"an object such as {{{json.dumps(known[0])}: ...}}", value)]
    problems = []
    for name, given in value.items():
        if name not in known:
            near = get_close_matches(name, known, 1, 0.7)
            advice = f"did you mean `{near[0]}`?" if near else f"the host reads {', '.join(known)}"
            problems.append(f"`{key}` has `{name}`, which nothing reads ({advice})")
        elif given is not None and not (isinstance(given, str) and given):
            problems.append(_expected(f"{key}.{name}", "a text", given))
    return problems


def _sources(entry: dict[str, Any]) -> list[str]:
    """An entry has one place that its rows come from, and names a part of it only where the host looks for one."""
    given = [key for key in _SOURCES if key in entry]
    if not given:
        return ["expected `file_name`, `hf_hub_url` or another place of its rows, found none"]
    if len(given) > 1 and not set(given) <= set(_HUBS):
        return [f"expected one place of its rows, found {' and '.join(f'`{key}`' for key in given)}"]
    unread = [key for key in _PARTS if entry.get(key) is not None and given[0] in ("file_name", "cloud_file_name")]
    return [f"`{key}` has no effect with `{given[0]}`; name the file or folder there" for key in unread]


def _is_text(entry: dict[str, Any], key: str, or_null: bool) -> bool:
    value = entry.get(key, "absent")
    return (value is None and or_null) or (isinstance(value, str) and bool(value))


def _expected(key: str, expected: str, value: Any) -> str:
    return f"`{key}`: expected {expected}, found {_shown(value)}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:100]
