"""``hound.reference_log_probs``: the rows of a training find their reference's log-probabilities in a file.

The file is read, or computed and written, before the policy is loaded; every row of the data sets gets the number of
its values, which travels with it through shuffling, shards and collator. No reference is loaded or run after that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from llamafactory.extras import logging

from hound_plugin.errors import DataError
from hound_plugin.host import ranks
from hound_plugin.host.media_checks import named_datasets
from hound_plugin.host.reference import checks, forward
from hound_plugin.host.reference.file import (
    PartialFile,
    Rows,
    read_file,
    read_partials,
    remove_partials,
    write_file,
)
from hound_plugin.host.reference.identity import reference_identity, row_keys
from hound_plugin.host.reference.shared_weights import share_frozen_weights
from hound_plugin.host.reference.state import ROW, STATE, Arguments, Table
from hound_plugin.host.settings_state import settings
from hound_plugin.records.files import HeldLock, hold

logger = logging.get_logger(f"llamafactory.{__name__}")


def begin(parsed: Iterable[Any]) -> None:
    """Note what the host parsed for a run with our template, and check it.

    Raises:
        SettingsError: ``reference_log_probs`` means nothing to this run.
    """
    STATE.arguments = STATE.table = None
    found = checks.arguments_of(list(parsed))
    if found is not None and settings().reference_log_probs is not None:
        checks.check_run(found)
        STATE.arguments = found


@contextlib.contextmanager
def completing() -> Iterator[None]:
    """Let a file that lacks rows be completed, and not refused: for ``hound reward ref-logps``."""
    STATE.completes = True
    try:
        yield
    finally:
        STATE.completes = False


def attach(module: dict[str, Any], template: Any, tokens: dict[str, Any]) -> dict[str, Any]:
    """Give every row of the data sets the number of its values, which are read or computed.

    Args:
        module: ``train_dataset`` and ``eval_dataset`` of the host.
        template: of the host.
        tokens: ``tokenizer`` and ``processor``.

    Raises:
        DataError: the file is damaged, stale, or lacks rows of the data sets.
        InUseError: another run computes it.
    """
    arguments = STATE.arguments
    if arguments is None:
        return module
    stage = arguments.finetuning.stage
    known: dict[Any, Any] = {}
    datasets = dict(named_datasets(module))
    keys = ranks.on_first_rank(lambda: {name: list(row_keys(data, stage, known)) for name, data in datasets.items()})
    places: dict[str, forward.Place] = {}
    for name, dataset in datasets.items():
        for number, key in enumerate(keys[name]):
            places.setdefault(key, (dataset, number))
    rows = _rows(Path(str(settings().reference_log_probs)), arguments, template, tokens, places)
    STATE.table = Table(
        sums=torch.tensor([rows[key].log_probs for key in places]).view(-1, 2),
        tokens=torch.tensor([rows[key].tokens for key in places]).view(-1, 2),
    )
    numbers = {key: number for number, key in enumerate(places)}
    named = {name: data.add_column(ROW, [numbers[key] for key in keys[name]]) for name, data in datasets.items()}
    return _replaced(module, named)


def _replaced(module: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    for name in ("train_dataset", "eval_dataset"):
        if isinstance(module.get(name), dict):
            module[name] = {key: named[f"{name} {key}"] for key in module[name]}
        elif module.get(name) is not None:
            module[name] = named[name]
    return module


def _rows(
    path: Path, arguments: Arguments, template: Any, tokens: dict[str, Any], places: dict[str, forward.Place]
) -> Rows:
    """The values of all rows, from the file or computed and then in it."""
    lock: list[HeldLock] = []

    def look() -> tuple[dict[str, Any], Rows, bool]:
        reference = reference_identity(arguments, tokens["processor"])
        rows, is_complete = _known_rows(path, reference, places, lock)
        return reference, rows, is_complete

    try:
        reference, rows, is_complete = ranks.on_first_rank(look)
        if is_complete:
            logger.info_rank0(f"The reference's log-probabilities of {len(places)} rows are read from {path}.")
            return rows
        logger.info_rank0(
            f"The reference's log-probabilities of {len(places)} rows are computed and written to {path}"
            f"{f'; {len(places.keys() & rows.keys())} are there already' if rows else ''}."
        )
        part = PartialFile(path, ranks.rank_and_size()[0], reference)
        computed = forward.compute_rows(arguments, template, tokens, places, rows, part)

        ranks.on_first_rank(lambda: write_file(path, reference, {**rows, **computed}))
        remove_partials(path)  # on every machine
        return computed
    finally:
        for held in lock:
            held.release(remove=True)


def _known_rows(
    path: Path, reference: dict[str, Any], places: dict[str, forward.Place], lock: list[HeldLock]
) -> tuple[Rows, bool]:
    """What is known of the rows, and whether that is all; if not, this process holds the lock of the file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        busy = f"hound.reference_log_probs: another run computes {path}. Wait for it, or name another file."
        lock.append(hold(path.with_name(f"{path.name}.lock"), busy))
    if not path.exists():
        return read_partials(path, reference), False
    rows = read_file(path, reference)
    missing = [key for key in places if key not in rows]
    if not missing:
        return rows, True
    if not STATE.completes:
        raise DataError(_lacking(path, places, missing))
    if not lock:
        busy = f"hound.reference_log_probs: another run computes {path}. Wait for it."
        lock.append(hold(path.with_name(f"{path.name}.lock"), busy))
    return {**rows, **read_partials(path, reference)}, False


def _lacking(path: Path, places: dict[str, forward.Place], missing: list[str]) -> str:
    dataset, number = places[missing[0]]
    row = dataset[number]
    media = [*(row.get("videos") or []), *(row.get("images") or [])]
    return (
        f"hound.reference_log_probs: {path} is of other rows: it lacks {len(missing)} of the {len(places)} rows of "
        f"this run, the first of them row {number + 1} (media {media!r:.200}). Tokens, labels (template, `cutoff_len`, "
        "system prompt) and media (content, time of change) must be those that it was computed for. Delete it or name "
        "another file, or let `hound reward ref-logps` add what is missing."
    )


# --- in the trainers


def reference_model(
    original: Callable[..., Any], model_args: Any, finetuning_args: Any, *args: Any, **kwargs: Any
) -> Any:
    """``create_ref_model``, which has nothing to load where the log-probabilities are stored."""
    if STATE.table is None:
        return original(model_args, finetuning_args, *args, **kwargs)
    return None


def numbered(rows: list[dict[str, Any]], batch: dict[str, Any]) -> dict[str, Any]:
    """A collated batch with the numbers of its rows' values ``[B]``."""
    if rows and all(ROW in row for row in rows):
        batch[ROW] = torch.tensor([row[ROW] for row in rows])
    return batch


def pair_log_probs(original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any]) -> Any:
    """``CustomDPOTrainer.compute_reference_log_probs``: chosen and rejected ``[B]``."""
    if STATE.table is None:
        share_frozen_weights(self)
        return original(self, model, batch)
    sums, tokens = _values(STATE.table, batch)
    values = sums / tokens if self.loss_type == "ipo" else sums
    return values[:, 0], values[:, 1]


def labelled_log_probs(original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any]) -> Any:
    """``CustomKTOTrainer.compute_reference_log_probs``: of wanted and unwanted answers, and of the KL term's."""
    if STATE.table is None:
        share_frozen_weights(self)
        return original(self, model, batch)
    sums, _ = _values(STATE.table, batch)
    wanted = batch["kto_tags"]
    return sums[wanted, 0], sums[~wanted, 0], sums[:, 1]


def _values(table: Table, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = batch[ROW].cpu()
    device = batch["input_ids"].device
    return table.sums[numbers].to(device), table.tokens[numbers].to(device)
