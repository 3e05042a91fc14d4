"""The host's argument parser: our ``hound:`` block is taken out, options are checked, and a run is resumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from hound_plugin.errors import SettingsError
from hound_plugin.host import patching, settings_state, tower_cache
from hound_plugin.host.argument_types import typed_values
from hound_plugin.host.models import TEMPLATE
from hound_plugin.host.option_checks import check_options
from hound_plugin.host.output_lock import lock_output
from hound_plugin.host.reference import stored
from hound_plugin.host.refused_options import check_given
from hound_plugin.host.resume import settle_resume


def parse_args(original: Callable[..., Any], parser: Any, args: Any = None, allow_extra_keys: bool = False) -> Any:
    """``llamafactory.hparams.parser._parse_args``, with our settings and checks.

    Raises:
        SettingsError: a bad ``hound`` setting, or an option that this model cannot follow.
        InUseError: another training is writing to ``output_dir``.
        EnvironmentMismatchError: the installed host lacks something that this run depends on.
    """
    from llamafactory.hparams.parser import read_args

    args = settings_state.take_settings(read_args(args))
    if isinstance(args, dict) and args.get("template") == TEMPLATE:
        args = typed_values(parser.dataclass_types, args)
        check_given(args)
    try:
        parsed = original(parser, args, allow_extra_keys=allow_extra_keys)
    except ValueError as error:
        _explain_precision(args, error)
        raise
    settings_state.record_arguments(parsed)
    tower_cache.reset()
    if settings_state.is_ours():
        patching.check_missing()
        check_options(parsed)
        stored.begin(parsed)
        training = next((part for part in parsed if getattr(part, "do_train", False)), None)
        if training is not None:
            lock_output(training)
            settle_resume(get_last_checkpoint, training)
    return parsed


def _explain_precision(args: Any, error: ValueError) -> None:
    """transformers refuses bf16 without a GPU and names neither the key nor the field of the web UI."""
    ours = TEMPLATE in (args.values() if isinstance(args, dict) else args)
    if ours and "bf16/gpu" in str(error):
        raise SettingsError(
            "`bf16: true` needs a GPU that computes in bfloat16, and torch finds none here. Set `bf16: false`; in the "
            "web UI choose fp32 as *Compute type*."
        ) from error
