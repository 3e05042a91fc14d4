"""The ``hound:`` block: settings of this package in any YAML file of the host.

Priority: the block (or ``hound.key=value`` on the command line), then ``HOUND_<KEY>`` environment variables, then
the defaults. Unknown names and bad values are refused with a list of the valid ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hound_plugin.errors import SettingsError
from hound_plugin.validation import NUMBER, OFF, SWITCH, Settings, build

ENVIRONMENT_PREFIX = "HOUND_"
_ALIKE = 0.85  # of difflib's ratio; other programs may have variables of this prefix too


def _expanded(path: str | None) -> str | None:
    return None if path is None else os.path.expanduser(path)


Folder = Annotated[str | None, AfterValidator(_expanded), OFF]


class HoundSettings(Settings):
    """Validated settings of the ``hound:`` block. Every field's description is its documentation.

    Raises:
        SettingsError: a bad value; the message names the key and what it accepts.
    """

    num_frames: Annotated[int | None, NUMBER] = Field(
        default=None, ge=1, description="frames sampled from a clip; the model's own number (8) if not given"
    )
    frame_sampling: Annotated[Literal["uniform", "first_10s", "fps"] | None, SWITCH] = Field(
        default=None,
        description="which frames: `uniform` over the full clip, `first_10s` (the original's decord rule), `fps`; "
        "what the model was trained with (`uniform`) if not given",
    )
    decoder: Annotated[Literal["auto", "decord", "torchcodec", "pyav"], SWITCH] = Field(
        default="auto",
        description="the video decoder; `auto` is exact for every file, others are refused where they differ",
    )
    frame_cache: Folder = Field(
        default=None,
        description="folder that caches processed clips by their content; 4.6 MiB per clip at full size",
        json_schema_extra={"accepts": "a folder or off"},
    )
    frame_cache_limit: Annotated[float | None, NUMBER, OFF] = Field(
        default=200,
        gt=0,
        description="largest size of `frame_cache`; then the least recently used entries are removed",
        json_schema_extra={"unit": "GiB"},
    )
    feature_cache: Folder = Field(
        default=None,
        description="training: folder that caches what the frozen towers make of clips and images, so that from the "
        "second epoch on none is decoded or encoded; 4 MiB (bfloat16) or 8 MiB per clip at full size",
        json_schema_extra={"accepts": "a folder or off"},
    )
    feature_cache_limit: Annotated[float | None, NUMBER, OFF] = Field(
        default=200,
        gt=0,
        description="largest size of `feature_cache`; then the least recently used entries are removed",
        json_schema_extra={"unit": "GiB"},
    )
    on_bad_media: Annotated[Literal["error", "skip"], SWITCH] = Field(
        default="error",
        description="`error` stops; `skip` leaves out rows with bad media; both list them in `bad_rows.jsonl`",
    )
    on_bad_rows: Annotated[Literal["error", "skip"], SWITCH] = Field(
        default="error",
        description="rows that cannot be used, listed in `bad_rows.jsonl` of the output folder: `error` stops; `skip` "
        "leaves them out",
    )
    on_cut_answers: Annotated[Literal["warn", "error"], SWITCH] = Field(
        default="warn",
        description="answers truncated by `cutoff_len`: `warn` counts them; `error` stops",
    )
    max_bad_rows: Annotated[float, NUMBER] = Field(
        default=0.01, ge=0, le=1, description="largest share of rows that `on_bad_rows: skip` may leave out"
    )
    check_media: Annotated[Literal["all", "sample", "off"], SWITCH] = Field(
        default="sample", description="media checked before training: `all`, a `sample` of at most 20,000, or none"
    )
    decode_timeout: Annotated[float | None, NUMBER, OFF] = Field(
        default=None,
        ge=0.1,
        description="time limit for decoding one clip",
        json_schema_extra={"unit": "seconds"},
    )
    api_request_limit: Annotated[float, NUMBER] = Field(
        default=64,
        gt=0,
        description="API: largest request, clips in `data:` included; a larger one is a 413",
        json_schema_extra={"unit": "MiB"},
    )
    api_download_timeout: Annotated[float, NUMBER] = Field(
        default=120,
        gt=0,
        description="API: time limit for downloading a clip or an image from its address, however its server behaves",
        json_schema_extra={"unit": "seconds"},
    )
    api_decoders: Annotated[int, NUMBER] = Field(
        default=4, ge=1, le=64, description="API: requests whose clips and images are decoded at a time"
    )
    max_skipped_steps: Annotated[int, NUMBER] = Field(
        default=0,
        ge=0,
        description="consecutive steps that may be skipped because their loss or gradients are not finite; one more "
        "stops the training",
    )
    prefix_sharing: Annotated[Literal["auto", "off"], SWITCH] = Field(
        default="auto",
        description="preference pairs and KTO: `auto` reads clip and question once for both answers, to the same "
        "numbers; `off` reads each answer's row",
    )
    answers_only: Annotated[Literal["auto", "off"], SWITCH] = Field(
        default="auto",
        description="`auto` runs the language-modelling head where labels are; `off` everywhere, as the host does",
    )
    group_questions: Annotated[int | None, NUMBER, OFF] = Field(
        default=None,
        ge=2,
        description="SFT: up to this many rows about one clip read its tokens once, to the same losses as separate "
        "rows; a batch then counts groups of rows",
    )
    reference_log_probs: Annotated[str | None, AfterValidator(_expanded), OFF] = Field(
        default=None,
        description="DPO and KTO: file of the reference's log-probabilities, which a run writes before its first epoch "
        "if there is none; then no second model is loaded and no reference runs. `hound reward ref-logps` writes it "
        "beforehand",
        json_schema_extra={"accepts": "a file or off"},
    )

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(cls.model_fields)

    @classmethod
    def build(
        cls, block: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
    ) -> HoundSettings:
        """Settings from a block and the environment.

        Args:
            block: the ``hound:`` mapping, or None.
            environment: variables to read; ``os.environ`` if None.

        Raises:
            SettingsError: an unknown key, a bad value, or a variable whose name is nearly that of a setting.
        """
        environment = os.environ if environment is None else environment
        _check_names(environment)
        given = {name: environment.get(ENVIRONMENT_PREFIX + name.upper()) for name in cls.model_fields}
        from_environment = {name: value for name, value in given.items() if value}
        if block is None:
            block = {}
        return build(cls, {**from_environment, **block} if isinstance(block, Mapping) else block, "hound.")


def _check_names(environment: Mapping[str, str]) -> None:
    """Refuse a misspelt variable, which would have no effect."""
    known = {ENVIRONMENT_PREFIX + name.upper() for name in HoundSettings.model_fields}
    for name in sorted(environment):
        if name.upper().startswith(ENVIRONMENT_PREFIX) and name not in known and environment[name]:
            close = get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE)
            if close:
                raise SettingsError(f"{name}: no setting has this name. Did you mean {close[0]!r}? Else unset it.")
