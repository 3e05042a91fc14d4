"""What the rows of a ``tokenized_path`` were made for, in a note next to them.

The host loads such a folder whatever the recipe says otherwise. With the note, a run whose template, processor, rows or
settings would give other tokens is refused, with their names.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from llamafactory.extras import logging

from hound_plugin.errors import DataError
from hound_plugin.host import run_identity, settings_state
from hound_plugin.records.files import write_json

logger = logging.get_logger(__name__)

NOTE = "hound_tokens.json"
_SETTINGS = (
    "stage", "template", "dataset", "max_samples", "val_size", "mix_strategy", "interleave_probs", "cutoff_len",
    "train_on_prompt", "mask_history", "packing", "neat_packing",
)  # fmt: skip
"""Of :func:`run_identity.settings_of`: options of the host that decide which rows there are, and their tokens."""


def made_for(template: Any, processor: Any, data_args: Any, training_args: Any) -> dict[str, Any]:
    """What the tokens of a run's rows depend on, as JSON.

    Args:
        template, data_args, training_args: of the host; the template has the system prompt of this run.
        processor: of the model.
    """
    run = settings_state.run()
    made = {key: run[key] for key in _SETTINGS if key in run}
    made["eval_dataset"] = data_args.eval_dataset
    made["system prompt"] = template.default_system
    made["predict_with_generate"] = bool(training_args.predict_with_generate)
    if data_args.media_dir != data_args.dataset_dir:  # the host's default
        made["media_dir"] = os.path.realpath(data_args.media_dir)
    if made.get("val_size") or made.get("mix_strategy") != "concat":
        made["seed"] = run.get("seed")
    made["tokens of a clip"], made["tokens of an image"] = processor.tokens_per_video, processor.tokens_per_image
    made["placeholder ids"] = [processor.image_token_id, processor.video_token_id]
    vocabulary = sorted(processor.tokenizer.get_vocab().items())
    made["tokenizer"] = hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:12]
    made[run_identity.ROWS] = run_identity.data_rows(data_args)
    value: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return value


def check(folder: str, now: dict[str, Any]) -> None:
    """Compare :func:`made_for` a run with what the rows in a folder were made for.

    Raises:
        DataError: naming what differs.
    """
    before = read(folder)
    if before is None:
        logger.warning_rank0(
            f"{folder} (`tokenized_path`) has no {NOTE}, which says what its rows were made for: only the visual "
            "tokens of the first row are compared with this run."
        )
        return
    differing = [
        f"{name}: {before[name]!r:.200} there, {value!r:.200} now"
        for name, value in now.items()
        if name in before and name != run_identity.ROWS and before[name] != value
    ]
    differing += [
        f"{name}: {before[name]!r:.200} there" for name in ("media_dir",) if name in before.keys() - now.keys()
    ]
    differing += run_identity.changed_rows(before, now[run_identity.ROWS])
    if differing:
        raise DataError(
            f"Expected rows that were tokenised for this run in {folder} (`tokenized_path`), found others "
            f"({'; '.join(differing)}). Set back what has changed, delete the folder, or choose another."
        )


def write(folder: str, made: dict[str, Any]) -> None:
    """Note what rows were made for that have just been saved."""
    write_json(Path(folder) / NOTE, made)


def read(folder: str) -> dict[str, Any] | None:
    """The note of a folder; None if it has none that can be read."""
    try:
        value = json.loads((Path(folder) / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def rows_of(data_args: Any) -> dict[str, str]:
    """Digests of the rows that a training reads, by data set, and of tokenised ones.

    As :func:`run_identity.data_rows`; those of a ``tokenized_path`` are noted next to it.
    """
    folder = data_args.tokenized_path
    if not folder or not os.path.isdir(folder):
        return run_identity.data_rows(data_args)
    noted = (read(folder) or {}).get(run_identity.ROWS)
    return {**(noted if isinstance(noted, dict) else {}), **run_identity.tokenised_rows(folder)}
