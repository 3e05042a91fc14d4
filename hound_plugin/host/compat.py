"""Every change of the host's own code, and of what it trains with: what, why, and when it can go.

Tested with llamafactory 0.9.5 and deepspeed 0.18.4.

Each function patches one host module and is called once, right after that module has been executed. Models and
templates of others pass through unchanged.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from hound_plugin.errors import SettingsError
from hound_plugin.host import settings_state


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``around(original, *args, **kwargs)``, once."""
    original = getattr(owner, name)
    if getattr(original, "_hound_plugin", False):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    wrapped._hound_plugin = True  # type: ignore[attr-defined]
    static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(wrapped) if static else wrapped)


def _later(module: str, name: str) -> Callable[..., Any]:
    """A function of ours that is imported when it is called: its module imports host modules that are under way."""

    def around(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"hound_plugin.host.{module}"), name)(*args, **kwargs)

    return around


def _replace(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace ``owner.name`` by ``wrap(original)``, once; for generators, whose kind must show."""
    original = getattr(owner, name)
    if not getattr(original, "_hound_plugin", False):
        wrapped = wrap(original)
        wrapped._hound_plugin = True  # type: ignore[attr-defined]
        setattr(owner, name, wrapped)


NAME = "llava_hound"  # of the template and of the model type

# --- llamafactory.hparams.parser


def patch_parser(module: Any) -> None:
    """Take the ``hound:`` block out of the arguments, and resume from the last complete checkpoint.

    The host refuses unknown keys. It resumes from the checkpoint of the highest number, also from one that was cut off
    while it was written (by a kill, the end of a job's time, a full disk), and fails. Removable when the host passes
    unknown blocks on to plugins, and when ``get_last_checkpoint`` knows which checkpoints are complete.
    """
    _wrap(module, "_parse_args", _parse_args)
    _wrap(module, "get_last_checkpoint", _last_checkpoint)

    from hound_plugin.host.error_display import show_messages_alone

    show_messages_alone()


def _last_checkpoint(original: Callable[..., Any], folder: str) -> Any:
    from hound_plugin.host.resume import last_complete

    return last_complete(original, folder) if settings_state.template() == NAME else original(folder)


def _parse_args(original: Callable[..., Any], parser: Any, args: Any = None, allow_extra_keys: bool = False) -> Any:
    from llamafactory.hparams.parser import read_args

    args = settings_state.take_settings(read_args(args))
    if isinstance(args, dict) and args.get("template") == NAME:
        from hound_plugin.host.argument_types import typed_values

        args = typed_values(parser.dataclass_types, args)
    try:
        parsed = original(parser, args, allow_extra_keys=allow_extra_keys)
    except ValueError as error:
        _explain_precision(args, error)
        raise
    settings_state.remember_arguments(parsed)
    if settings_state.template() == NAME:
        _check_parsed(parsed)
    return parsed


def _explain_precision(args: Any, error: ValueError) -> None:
    """transformers refuses bf16 without a GPU and names neither the key nor the field of the web UI."""
    ours = NAME in (args.values() if isinstance(args, dict) else args)
    if ours and "bf16/gpu" in str(error):
        raise SettingsError(
            "`bf16: true` needs a GPU that computes in bfloat16, and torch finds none here. Set `bf16: false`; in the "
            "web UI choose fp32 as *Compute type*."
        ) from error


def _check_parsed(parsed: Any) -> None:
    from llamafactory.hparams.parser import get_last_checkpoint

    from hound_plugin.host.option_checks import check_options
    from hound_plugin.host.resume import settle_resume

    check_options(parsed)
    training = next((part for part in parsed if getattr(part, "do_train", False)), None)
    if training is not None:
        settle_resume(inspect.unwrap(get_last_checkpoint), training)


# --- llamafactory.model.loader


def patch_model_loader(module: Any) -> None:
    """Give the processor the settings, the model the ids of the placeholders, and the towers their gradient.

    Removable when the host lets a plugin see the model, tokenizer and arguments after loading.
    """
    _wrap(module, "patch_processor", _patch_processor)
    _wrap(module, "patch_config", _patch_config)
    _wrap(module, "init_adapter", _init_adapter)


def _patch_processor(original: Callable[..., Any], processor: Any, tokenizer: Any, model_args: Any) -> None:
    from transformers import AutoConfig

    from hound_plugin.model.generation import context_length
    from hound_plugin.processing.processor import LlavaHoundProcessor
    from hound_plugin.processing.prompt import add_placeholder_tokens

    original(processor, tokenizer, model_args)
    if not isinstance(processor, LlavaHoundProcessor):
        return
    chosen = settings_state.settings()
    if chosen.num_frames and chosen.num_frames % processor.frame_multiple:
        raise SettingsError(
            f"hound.num_frames: expected a multiple of {processor.frame_multiple} for this model's temporal attention, "
            f"got {chosen.num_frames}."
        )
    for adapter in model_args.adapter_name_or_path or []:
        folder = model_args.adapter_folder
        processor.take_system_of(os.path.join(adapter, folder) if folder else adapter)
    system = settings_state.default_system()
    if system is not None:  # an export saves it; trainings and chats settle it again
        processor.set_system(system)
    processor.num_frames = chosen.num_frames or processor.num_frames
    processor.frame_sampling = chosen.frame_sampling
    processor.decoder = chosen.decoder
    processor.decode_timeout = chosen.decode_timeout
    processor.frame_cache = chosen.frame_cache
    processor.on_bad_media = chosen.on_bad_media
    place = {"cache_dir": model_args.cache_dir, "revision": model_args.model_revision, "token": model_args.hf_hub_token}
    processor.context_length = context_length(AutoConfig.from_pretrained(model_args.model_name_or_path, **place))
    ids = add_placeholder_tokens(tokenizer, processor.vocab_size)
    processor.image_token_id, processor.video_token_id = ids
    tokenizer._hound_plugin = True  # so that the template can be checked, see patch_template


def _patch_config(original: Callable[..., Any], config: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
    from hound_plugin.model.configuration import LlavaHoundConfig

    if isinstance(config, LlavaHoundConfig) and getattr(tokenizer, "_hound_plugin", False):
        ids = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
        config.image_token_id, config.video_token_id = ids
    return original(config, tokenizer, *args, **kwargs)


def _init_adapter(
    original: Callable[..., Any], config: Any, model: Any, model_args: Any, finetuning_args: Any, is_trainable: bool
) -> Any:
    from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration

    if isinstance(model, LlavaHoundForConditionalGeneration) and is_trainable:
        _check_fsdp(finetuning_args)
        model.model.set_towers_trainable(not finetuning_args.freeze_vision_tower)
        composite = model.model
        from hound_plugin.host import trainable_parts

        new = model_args.adapter_name_or_path is None or finetuning_args.create_new_adapter
        if finetuning_args.finetuning_type == "lora" and new:
            trainable_parts.settle_targets(model, finetuning_args)
        adapted = original(config, model, model_args, finetuning_args, is_trainable)
        for tower in (composite.image_tower, composite.video_tower):  # adapters may sit on blocks that never run
            tower.freeze_unused(config.mm_vision_select_layer)
        trainable_parts.check_trainable(adapted, finetuning_args)
        return adapted
    return original(config, model, model_args, finetuning_args, is_trainable)


def _check_fsdp(finetuning_args: Any) -> None:
    """Refuse FSDP2 that loads on rank 0 only, where there is a reference model: the host leaves it without weights.

    Seen with accelerate 1.11: the loss is NaN, which the trainer logs as 0. Removable when such a run trains.
    """
    names = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")
    efficient = all(os.environ.get(name, "").strip().lower() in ("1", "true") for name in names)
    second = finetuning_args.use_ref_model and (
        finetuning_args.finetuning_type != "lora" or finetuning_args.ref_model is not None
    )
    if efficient and second:
        raise SettingsError(
            "Expected `fsdp_cpu_ram_efficient_loading: false` in the accelerate configuration for a training with a "
            "reference model, got true: the reference would have no weights on the other ranks, and the loss would be "
            "NaN. Set it to false, or train with LoRA."
        )


# --- llamafactory.data.template


def patch_template(module: Any) -> None:
    """Refuse a template that is not the model's before any data is read; the host trains on without a word.

    Removable when the host checks that template and model belong together.
    """
    _wrap(module, "get_template_and_fix_tokenizer", _get_template)


def _get_template(original: Callable[..., Any], tokenizer: Any, data_args: Any) -> Any:
    ours = getattr(tokenizer, "_hound_plugin", False)
    if ours and data_args.template != NAME:
        raise SettingsError(
            f"Expected `template: {NAME}` for a LLaVA-Hound model, got {data_args.template!r}. Change it in the YAML "
            "or in the web UI's field `Chat template`."
        )
    if data_args.template == NAME and not ours:
        raise SettingsError(
            f"`template: {NAME}` belongs to LLaVA-Hound models, but `model_name_or_path` ({tokenizer.name_or_path}) "
            f"does not load as one: {_why_not_ours(tokenizer.name_or_path)}"
        )
    return original(tokenizer, data_args)


def _why_not_ours(model: str) -> str:
    """The reason, which the host's ``load_tokenizer`` has swallowed."""
    from transformers import AutoConfig

    from hound_plugin.processing.processor import LlavaHoundProcessor

    try:
        config = AutoConfig.from_pretrained(model)
        if config.model_type != NAME:
            return f"its model_type is {config.model_type!r}. Use the template of that model."
        LlavaHoundProcessor.from_pretrained(model)
    except Exception as error:
        return str(error)
    return "its processor was loaded by something else. Run `hound doctor`."


# --- llamafactory.data.converter


def patch_converter(module: Any) -> None:
    """Find folders of frames under ``media_dir`` for every format; the host finds files only (LlamaFactory#8244).

    Removable when ``DatasetConverter._find_medias`` accepts folders.
    """
    _wrap(module.DatasetConverter, "_find_medias", _find_medias)


def _find_medias(original: Callable[..., Any], self: Any, medias: Any) -> Any:
    from hound_plugin.host.converter import find_media

    items = medias if isinstance(medias, list) else [medias]
    if self.dataset_attr.load_from in ("script", "file") and items and all(isinstance(item, str) for item in items):
        found = [find_media(item, self.data_args.media_dir) for item in items]
        if any(path is not None and os.path.isdir(path) for path in found):
            return [path or item for path, item in zip(found, items, strict=True)]
    return original(self, medias)


# --- llamafactory.data.loader


def patch_data_loader(module: Any) -> None:
    """Read JSON rows of our format as text, collect their problems, check media before training, type media columns.

    See ``row_loading``, ``alignment``, ``checks`` and ``typed`` in :mod:`hound_plugin.host`. Removable when the host
    reads rows without guessing the types of their columns, validates truncation of placeholders (LlamaFactory#9146,
    #7696) and media, and gives ``Dataset.map`` the features of its columns.
    """
    from hound_plugin.host import alignment, checks, column_checks, row_loading, sequence_length, typed

    _wrap(module, "_load_single_dataset", row_loading.load_single_dataset)
    _wrap(module, "load_dataset", row_loading.load_dataset)
    _wrap(module, "read_cloud_json", row_loading.read_cloud_json)
    _wrap(module, "_get_merged_dataset", column_checks.suitable)
    _wrap(module, "merge_dataset", typed.typed_merge)

    feedback = import_module("llamafactory.data.processor.feedback")
    if not any(isinstance(item, checks.OnePreferenceFilter) for item in feedback.logger.filters):
        feedback.logger.addFilter(checks.OnePreferenceFilter())
    for name in (
        "SupervisedDatasetProcessor",
        "PairwiseDatasetProcessor",
        "FeedbackDatasetProcessor",
        "UnsupervisedDatasetProcessor",
    ):
        _wrap(getattr(module, name), "_encode_data_example", checks.checked_encoding)
        _wrap(getattr(module, name), "preprocess_dataset", sequence_length.counted)
    for name in ("supervised", "pairwise", "feedback", "unsupervised"):
        _wrap(import_module(f"llamafactory.data.processor.{name}"), "infer_seqlen", sequence_length.keep_prompt)
    _wrap(module.PackedSupervisedDatasetProcessor, "preprocess_dataset", sequence_length.counted)
    _wrap(module, "get_dataset", checks.checked_dataset)
    _wrap(module, "align_dataset", alignment.align)
    _wrap(module, "split_dataset", alignment.settled_split)
    _wrap(module, "_get_preprocessed_dataset", sequence_length.tokenised)


# --- llamafactory.data.collator


def patch_collator(module: Any) -> None:
    """``on_bad_media: skip``: mask or leave out rows whose media cannot be read, while labels are still at hand.

    Supervised rows are masked, preference rows left out; predictions are never made up, so there the error stands.
    Removable when the host's collator offers a hook before ``get_mm_inputs``.
    """
    _wrap(module.SFTDataCollatorWith4DAttentionMask, "__call__", _collate_supervised)
    _wrap(module.PairwiseDataCollatorWithPadding, "__call__", _collate_preferences)
    _wrap(module.KTODataCollatorWithPadding, "__call__", _collate_preferences)


def _skips(collator: Any) -> bool:
    from hound_plugin.host.mm_plugin import LlavaHoundPlugin

    return isinstance(collator.template.mm_plugin, LlavaHoundPlugin) and collator.processor.on_bad_media == "skip"


def _collate_supervised(original: Callable[..., Any], self: Any, features: list[dict[str, Any]]) -> Any:
    from hound_plugin.host.mm_plugin import mask_bad_rows

    if _skips(self) and self.model is not None:  # the host gives no model when it predicts
        mask_bad_rows(features, self.processor)
    return original(self, features)


def _collate_preferences(original: Callable[..., Any], self: Any, features: list[dict[str, Any]]) -> Any:
    from hound_plugin.host.mm_plugin import drop_bad_rows

    return original(self, drop_bad_rows(features, self.processor) if _skips(self) else features)


# --- llamafactory.train: sft, dpo, kto and rm trainers


def patch_trainers(module: Any) -> None:
    """Losses by their name, media for every model that is run, and no step whose loss or gradients are not finite.

    * trl 0.24 takes the loss as an argument of ``dpo_loss``, "sigmoid" by default; the host's trainer, written for a
      trl that kept it as an attribute, does not pass it.
    * The KTO trainer passes a fixed list of other models' inputs, the ASFT loss none but text.
    * transformers logs a loss that is not finite as 0 and goes on.

    See :mod:`hound_plugin.host.preference_loss` and :mod:`hound_plugin.host.finite_steps`. Removable when
    ``CustomDPOTrainer`` passes ``loss_type``, both trainers pass all inputs on, and the trainer stops by itself.
    """
    for name, method, ours in (
        ("CustomDPOTrainer", "dpo_loss", "preference_loss.named_loss"),
        ("CustomKTOTrainer", "forward", "preference_loss.forward_with_media"),
        ("CustomSeq2SeqTrainer", "compute_loss", "preference_loss.loss_with_media"),
        ("PairwiseTrainer", None, None),
    ):
        if hasattr(module, name):
            trainer = getattr(module, name)
            if method and ours:
                _wrap(trainer, method, _for_our_template(*ours.split(".")))
            _wrap(trainer, "training_step", _for_our_template("finite_steps", "watched_step"))
            _wrap(trainer, "_get_grad_norm", _for_our_template("finite_steps", "watched_norm"))
            _wrap(trainer, "_init_training_state", _for_our_template("resume", "settled_start"))
            _wrap(trainer, "train", _for_our_template("resume", "settled_training"))
            _wrap(trainer, "_save_checkpoint", _for_our_template("resume", "signed_checkpoint"))
            _wrap(trainer, "save_model", _for_our_template("resume", "signed_model"))


def _for_our_template(module: str, name: str) -> Callable[..., Any]:
    """A function of ours around a method, for runs with our template."""

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if settings_state.template() != NAME:
            return original(*args, **kwargs)
        return getattr(import_module(f"hound_plugin.host.{module}"), name)(original, *args, **kwargs)

    return around


# --- llamafactory.webui: common, chatter, engine, components.export


def patch_web_common(module: Any) -> None:
    """Read and write the page's memory of paths one after the other.

    Choosing a model makes the host write the file and look into it at the same time, in two threads; what it finds
    half-written is None, and the page shows "Error" in place of path and template. Removable when ``save_config``
    replaces its file in one step.
    """
    from hound_plugin.host.web import one_at_a_time

    lock = threading.RLock()  # saving loads first
    for name in ("load_config", "save_config"):
        _replace(module, name, one_at_a_time(lock))


def patch_web_chat(module: Any) -> None:
    """Show on the page why a model does not load or a clip is refused; the host shows "Error" and forgets the reason.

    And sample as the recipe says until a slider is moved; the host hands the sliders' first values to every question,
    which change a sampling recipe and mean nothing to a greedy one, moved or not. See :mod:`hound_plugin.host.web`.
    Seen with gradio 5.50. Removable when the pages show errors, a failed question does not stay in the conversation,
    and the sliders begin where the recipe is.
    """
    from hound_plugin.host.web import answered, told

    _replace(module.WebChatModel, "load_model", told)
    _replace(module.WebChatModel, "stream", answered)
    _wrap(module.WebChatModel, "stream_chat", _later("web", "stream_chat"))


def patch_web_engine(module: Any) -> None:
    """Give the page of `webchat` its labels; the host leaves them out until the language is changed.

    Removable when ``create_web_demo`` makes its list of languages without a value, as ``create_top`` does.
    """
    from hound_plugin.host.web import labelled

    _replace(module.Engine, "resume", labelled)


def patch_web_interface(module: Any) -> None:
    """Set *Cutoff length* to what a clip needs; the host's 2,048 is less than one clip with its question.

    Removable when a template can bring a value for the field.
    """
    from hound_plugin.host.web import with_room_for_a_clip

    for name in ("create_train_tab", "create_eval_tab"):
        _wrap(module, name, with_room_for_a_clip)


def patch_web_export(module: Any) -> None:
    """Show on the page why an export is refused. Removable with :func:`patch_web_chat`."""
    from hound_plugin.host.web import told

    _replace(module, "save_model", told)


# --- deepspeed.runtime.zero.partition_parameters


def patch_zero3(module: Any) -> None:
    """Gather ZeRO-3 parameters one by one where the ranks talk through gloo (CPU).

    DeepSpeed 0.18.4 starts one all-gather per parameter and waits for the last one only. NCCL's stream keeps their
    order; gloo does not, and an all-gather that ends late overwrites what ``from_pretrained`` has just put into the
    weight of a layer that also has a bias: training goes on with uninitialised memory. Removable when
    ``Init._allgather_params_coalesced`` waits for all of its handles.
    """
    _wrap(module.Init, "_allgather_params_coalesced", _gather)


def _gather(
    original: Callable[..., Any], init: Any, param_list: list[Any], hierarchy: int = 0, quantize: bool = False
) -> None:
    import torch.distributed

    if torch.distributed.get_backend() == "gloo":
        for param in param_list:
            original(init, [param], hierarchy, quantize)
    else:
        original(init, param_list, hierarchy, quantize)


# --- llamafactory.chat.hf_engine


def patch_engine(module: Any) -> None:
    """Conversations of our template: literal placeholders, the context's length, ends of answers, and memory.

    The host lets generation run beyond the context, hangs for ever when generation fails while an answer is streamed,
    and decodes and encodes a clip again for every question. See :mod:`hound_plugin.host.engine`. Removable when
    ``HuggingfaceEngine`` has hooks around ``_process_args`` and hands on exceptions of its generating thread.
    """
    for name, ours in (
        ("__init__", "remember"),
        ("_process_args", "process_args"),
        ("_chat", "chat"),
        ("_stream_chat", "stream_chat"),
    ):
        _wrap(module.HuggingfaceEngine, name, _later("engine", ours))


# --- llamafactory.chat.chat_model


def patch_chat_model(module: Any) -> None:
    """Clips and images in ``llamafactory-cli chat``, which passes text only. See :mod:`hound_plugin.host.chat`.

    Removable when the host's command takes media.
    """
    _wrap(module, "run_chat", _later("chat", "run_chat"))


# --- llamafactory.api


def patch_api_app(module: Any) -> None:
    """Answer chat completions ourselves; the host drops or misreads most of a request's parameters.

    It ignores a temperature where the recipe is greedy, ``stop``, ``seed``, ``logprobs`` and ``max_completion_tokens``,
    takes ``presence_penalty`` for a repetition penalty, answers bad media with a 500 or in the midst of a stream,
    cannot read ``data:`` clips, follows redirects to private addresses, takes /allowed-evil for a part of /allowed, and
    has errors without OpenAI's ``message``. See :mod:`hound_plugin.host.api`. Removable when it does none of that.
    """
    _wrap(module, "create_app", _later("api", "create_app"))
