"""Options of the host's trainings with this model: what each must do, or how it is refused.

Those that stand in the README's recipes, and those that once did something else. The runs are in ``test_options``.
"""

from __future__ import annotations

from tests.goldens import DPO, SFT
from tests.options.option import (
    LANGUAGE,
    LORA,
    OWN_SYSTEM,
    PLAIN_LOSS,
    PROJECTOR,
    QUANTISED,
    TOWERS,
    Option,
)
from tests.options.option import runs as _runs

MOVED = {"model_name_or_path": str(DPO), "ref_model": str(SFT), "per_device_train_batch_size": 1, "learning_rate": 0.0}
EVALUATED = {"eval_dataset": "sft", "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 2}

TRAININGS: dict[str, Option] = {
    # --- preference losses
    "pref_loss: sigmoid": Option("dpo", {"pref_beta": 0.1}, first_loss=0.693147, trained=LANGUAGE),
    "pref_loss: hinge": Option("dpo", {"pref_loss": "hinge"}, first_loss=1.0, trained=LANGUAGE),
    "pref_loss: hinge, ftx": Option(
        "dpo", {"pref_loss": "hinge", "pref_ftx": 0.3}, first_loss=3.965831, trained=LANGUAGE
    ),
    "pref_loss: sigmoid, ftx": Option("dpo", {"pref_ftx": 0.3}, first_loss=3.658978, trained=LANGUAGE),
    "pref_loss: ipo, ftx": Option(
        "dpo", {"pref_loss": "ipo", "pref_ftx": 0.3}, first_loss=27.965831, trained=LANGUAGE, long=True
    ),
    "pref_loss: hinge, ftx, LoRA": Option("dpo", {**LORA, "pref_loss": "hinge", "pref_ftx": 0.3}, long=True),
    "pref_loss: orpo, ftx": Option("dpo", {"pref_loss": "orpo", "pref_ftx": 0.3}, trained=LANGUAGE, long=True),
    "pref_loss: simpo, ftx": Option("dpo", {"pref_loss": "simpo", "pref_ftx": 0.3}, trained=LANGUAGE, long=True),
    "pref_loss: ipo": Option("dpo", {"pref_loss": "ipo", "pref_beta": 0.1}, first_loss=25.0, trained=LANGUAGE),
    "pref_loss: ipo, LoRA": Option("dpo", {**LORA, "pref_loss": "ipo", "pref_beta": 0.5}, first_loss=1.0),
    "pref_loss: hinge, moved": Option("dpo", {**MOVED, "pref_loss": "hinge", "pref_beta": 0.1}),
    "pref_loss: ipo, moved": Option("dpo", {**MOVED, "pref_loss": "ipo", "pref_beta": 0.1}),
    "pref_loss: orpo": Option("dpo", {"pref_loss": "orpo"}, trained=LANGUAGE, long=True),
    "pref_loss: simpo": Option("dpo", {"pref_loss": "simpo"}, trained=LANGUAGE, long=True),
    "pref_loss: kto_pair": Option("dpo", {"pref_loss": "kto_pair"}, refused=r"got 'kto_pair'.*stage: kto"),
    "pref_bco_weight": Option("dpo", {"pref_bco_weight": 1.0}, first_loss=1.039721, long=True),
    "kto": Option("kto", {}, first_loss=0.5, trained=LANGUAGE, long=True),
    "kto, ftx": Option("kto", {"pref_ftx": 0.3}, trained=LANGUAGE, long=True),
    # --- the reference
    "ref_model_adapters alone": Option(
        "dpo", {"ref_model_adapters": "x"}, refused=r"no effect without `ref_model`. Set `ref_model`"
    ),
    "adapter continued in dpo": Option(
        "dpo", {**LORA, "adapter_name_or_path": "saves/sft"}, refused=r"create_new_adapter: true.*`ref_model: "
    ),
    "adapter continued in kto": Option(
        "kto", {**LORA, "adapter_name_or_path": "saves/sft"}, refused=r"in `stage: kto`, and the reference would be"
    ),
    # --- what is trained
    "full": Option("sft", {}, first_loss=PLAIN_LOSS, trained=LANGUAGE | PROJECTOR),
    "full, projector frozen": Option("sft", {"freeze_multi_modal_projector": True}, trained=LANGUAGE),
    "full, towers": Option("sft", {"freeze_vision_tower": False}, trained=TOWERS | LANGUAGE | PROJECTOR),
    "full, projector alone": Option("sft", {"freeze_language_model": True}, trained=PROJECTOR),
    "everything frozen": Option(
        "sft",
        {"freeze_language_model": True, "freeze_multi_modal_projector": True},
        refused=r"every parameter is frozen by `freeze_language_model: true` and .*Set one of them to false",
    ),
    "lora, projector": Option("sft", LORA, first_loss=PLAIN_LOSS, trained=LANGUAGE | PROJECTOR),
    "lora, projector frozen": Option("sft", {**LORA, "freeze_multi_modal_projector": True}, trained=LANGUAGE),
    "lora, towers": Option("sft", {**LORA, "freeze_vision_tower": False}, trained=TOWERS | LANGUAGE | PROJECTOR),
    "lora_target: q_proj,v_proj": Option(
        "sft", {**LORA, "lora_target": "q_proj,v_proj", "freeze_multi_modal_projector": True}, trained=LANGUAGE
    ),
    "lora_target: multi_modal_projector": Option(
        "sft", {**LORA, "lora_target": "multi_modal_projector"}, first_loss=PLAIN_LOSS, trained=PROJECTOR
    ),
    "lora_target: misspelt": Option(
        "sft", {**LORA, "lora_target": "q_porj"}, refused=r"got 'q_porj', which neither is one nor holds any.*q_proj"
    ),
    "lora_target: a frozen part": Option(
        "sft",
        {**LORA, "lora_target": "fc1"},
        refused=r"`lora_target: fc1` leaves no layer to adapt: all are frozen by `freeze_vision_tower: true`",
    ),
    "lora, nothing left": Option(
        "sft",
        {**LORA, "freeze_language_model": True},
        refused=r"to train the projector alone, set `finetuning_type: full`",
    ),
    "freeze": Option("sft", {"finetuning_type": "freeze", "freeze_trainable_layers": 1}, trained=LANGUAGE | PROJECTOR),
    "freeze, towers": Option(
        "sft",
        {"finetuning_type": "freeze", "freeze_trainable_layers": 1, "freeze_vision_tower": False},
        refused=r"blocks of the towers that have the numbers of the language model's",
    ),
    "qlora": Option("sft", QUANTISED, long=True),
    "dora": Option("sft", {**LORA, "use_dora": True}, first_loss=PLAIN_LOSS, long=True),
    "dora, 4 bits": Option("sft", {**QUANTISED, "use_dora": True}, refused=r"`use_dora` cannot be trained .*: 4`"),
    "rslora": Option("sft", {**LORA, "use_rslora": True}, later_steps="other", long=True),
    "pissa": Option("sft", {**LORA, "pissa_init": True, "pissa_iter": -1}, long=True),
    "pissa, approximate": Option(
        "sft", {**LORA, "pissa_init": True}, refused=r"`pissa_init` with `pissa_iter: 16` .*Set `pissa_iter: -1`"
    ),
    "loraplus": Option("sft", {**LORA, "loraplus_lr_ratio": 16.0}, later_steps="other", long=True),
    "oft": Option("sft", {"finetuning_type": "oft"}, refused=r"neither continue from its adapter nor merge it"),
    "use_badam": Option("sft", {"use_badam": True}, refused=r"`use_badam` .*the frozen towers' too"),
    "use_adam_mini": Option("sft", {"use_adam_mini": True}, refused=r"`use_adam_mini` reads the number of heads"),
    # --- keys of other models' media
    **{
        f"{key}: {value}": Option("sft", {key: value}, refused=rf"Expected `{key}` to be left at .*{advice}")
        for key, value, advice in (
            ("video_maxlen", 16, r"hound\.num_frames"),
            ("video_fps", 1.0, r"hound\.frame_sampling"),
            ("image_max_pixels", 262144, "remove the key"),
            ("image_min_pixels", 256, "remove the key"),
            ("video_max_pixels", 16384, "remove the key"),
            ("video_min_pixels", 64, "remove the key"),
            ("crop_to_patches", True, "remove the key"),
            ("image_do_pan_and_scan", True, "remove the key"),
            ("use_audio_in_video", True, "has no audio"),
            ("audio_sampling_rate", 8000, "has no audio"),
        )
    },
    "the host's own defaults": Option(
        "sft",
        {"video_maxlen": 128, "video_fps": 2.0, "image_max_pixels": 589824, "video_max_pixels": 65536},
        later_steps="same",
    ),
    # --- the system prompt
    "default_system": Option("sft", {"default_system": OWN_SYSTEM, "max_steps": 1}),
    "default_system, lora": Option("sft", {**LORA, "default_system": OWN_SYSTEM, "max_steps": 1}),
    "default_system with a placeholder": Option(
        "sft", {"default_system": "See <video>"}, refused=r"without <image> and"
    ),
    # --- lengths
    "cutoff_len: within the clip": Option(
        "sft", {"cutoff_len": 400}, refused=r"`cutoff_len: 400` cuts visual tokens .* at least 493"
    ),
    "cutoff_len: answers": Option(
        "sft", {"cutoff_len": 490}, says=r"cuts the end of a conversation in 3 of 12 rows.*`cutoff_len: 580` cuts none"
    ),
    "cutoff_len: answers, two processes": Option(
        "dpo",
        {"cutoff_len": 490, "preprocessing_num_workers": 2},
        says=r"in 1 of 12 rows.*`cutoff_len: 572` cuts none",
        long=True,
    ),
    "cutoff_len: answers, packed": Option(
        "sft",
        {"cutoff_len": 488, "neat_packing": True},
        says=r"in 3 of 12 rows.*`cutoff_len: 584` cuts none",
        long=True,
    ),
    "cutoff_len: answers, streamed": Option(
        "sft", {"cutoff_len": 490, "streaming": True}, says=r"these need up to 580 tokens", long=True
    ),
    "on_cut_answers: error": Option(
        "sft",
        {"cutoff_len": 520, "hound": {"on_cut_answers": "error"}},
        refused=r"in 1 of 12 rows.*on_cut_answers: warn",
    ),
    "num_frames beyond the context": Option(
        "sft",
        {"cutoff_len": 16000, "hound": {"num_frames": 128}},
        refused=r"at most 4096 tokens.*has 6373.*128 frames x 49 tokens = 6272",
    ),
    "rope_scaling": Option("sft", {"rope_scaling": "linear"}, refused=r"`rope_scaling: linear` has no effect"),
    # --- the vocabulary
    "add_tokens": Option("sft", {"add_tokens": "<a>,<b>"}, refused=r"`add_tokens` would give the model rows"),
    "add_special_tokens": Option("dpo", {"add_special_tokens": "<a>"}, refused=r"`add_special_tokens` would give"),
    "resize_vocab": Option("sft", {"resize_vocab": True}, refused=r"`resize_vocab` would give"),
    # --- losses of sft
    "train_on_prompt": Option("sft", {"train_on_prompt": True}, first_loss=9.894368),
    "train_on_prompt, dft": Option("sft", {"train_on_prompt": True, "use_dft_loss": True}),
    "train_on_prompt, eaft": Option("sft", {"train_on_prompt": True, "use_eaft_loss": True}, long=True),
    "use_dft_loss": Option("sft", {"use_dft_loss": True}, long=True),
    "use_asft_loss": Option("sft", {"use_asft_loss": True}, trained=LANGUAGE | PROJECTOR),
    "use_asft_loss, lora": Option("sft", {**LORA, "use_asft_loss": True}, refused=r"Set `ref_model`"),
    "neftune": Option("sft", {"neftune_noise_alpha": 5}, trained=LANGUAGE | PROJECTOR, long=True),
    "compute_accuracy": Option(
        "sft", {"compute_accuracy": True, "do_eval": True, "eval_dataset": "sft"}, says=r"eval_accuracy"
    ),
    # --- order and mixture of rows
    "group_by_length, sft": Option(
        "sft", {"train_sampling_strategy": "group_by_length", "disable_shuffling": False}, long=True
    ),
    "group_by_length, dpo": Option(
        "dpo", {"train_sampling_strategy": "group_by_length"}, refused=r"needs one sequence a row, and `stage: dpo`"
    ),
    "interleave_once": Option(
        "sft",
        {"mix_strategy": "interleave_once", "dataset": "sft,good"},
        refused=r"interleave_under or interleave_over",
    ),
    # --- optimisers and memory
    "optim: adafactor": _runs("sft", {"optim": "adafactor"}, later_steps="other"),
    "optim: sgd": _runs("sft", {"optim": "sgd"}, later_steps="other"),
    "optim: adamw_8bit": _runs("sft", {"optim": "adamw_8bit"}, first_loss=PLAIN_LOSS),
    "use_muon": _runs("sft", {"use_muon": True}, later_steps="other"),
    "gradient_accumulation_steps": _runs(
        "sft", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}, first_loss=9.901297
    ),
    "disable_gradient_checkpointing": _runs("sft", {"disable_gradient_checkpointing": True}, later_steps="same"),
    "use_reentrant_gc: false": _runs("sft", {"use_reentrant_gc": False}, later_steps="same"),
    "use_unsloth_gc without a GPU": Option("sft", {"use_unsloth_gc": True}, refused=r"`use_unsloth_gc` moves .*Remove"),
    "flash_attn: sdpa": _runs("sft", {"flash_attn": "sdpa"}, later_steps="same"),
    "flash_attn: disabled": _runs("sft", {"flash_attn": "disabled"}, later_steps="same"),
    "upcast_layernorm": _runs("sft", {"upcast_layernorm": True}, later_steps="same"),
    "upcast_lmhead_output": _runs("sft", {"upcast_lmhead_output": True}, later_steps="same"),
    "low_cpu_mem_usage: false": _runs("sft", {"low_cpu_mem_usage": False}, later_steps="same"),
    "dataloader_num_workers": _runs("sft", {"dataloader_num_workers": 2}, later_steps="same"),
    # --- adapters
    "lora_dropout": _runs("sft", {**LORA, "lora_dropout": 0.5}),
    "lora_alpha": _runs("sft", {**LORA, "lora_alpha": 64}, later_steps="other"),
    "additional_target": _runs("sft", {**LORA, "additional_target": "lm_head"}, first_loss=PLAIN_LOSS),
    "lora, kto": _runs("kto", LORA, first_loss=0.5),
    "lora, orpo": _runs("dpo", {**LORA, "pref_loss": "orpo"}),
    "lora, dpo": _runs("dpo", LORA, first_loss=0.693147, trained=LANGUAGE),
    "pref_ftx": _runs("dpo", {"pref_ftx": 0.5}),
    "dpo_label_smoothing": _runs("dpo", {"dpo_label_smoothing": 0.2}, first_loss=0.693147),
    "ld_alpha": _runs("dpo", {"ld_alpha": 0.5}),
    "simpo_gamma": _runs("dpo", {"pref_loss": "simpo", "simpo_gamma": 1.0}),
    "kto weights": _runs("kto", {"kto_chosen_weight": 2.0, "kto_rejected_weight": 2.0}, first_loss=1.0),
    # --- evaluation and saving
    "val_size": _runs("sft", {"val_size": 0.25, "do_eval": True}, says=r"eval_loss"),
    "eval_strategy: steps": _runs("sft", {**EVALUATED}, says=r"eval_loss"),
    "eval_on_each_dataset": _runs(
        "sft", {**EVALUATED, "eval_dataset": "sft,good", "eval_on_each_dataset": True}, says=r"eval_good_loss"
    ),
    "load_best_model_at_end": _runs(
        "sft",
        {**EVALUATED, "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True},
        says=r"eval_loss",
    ),
    "early_stopping_steps": _runs(
        "sft",
        {
            **EVALUATED,
            "save_strategy": "steps",
            "save_steps": 1,
            "load_best_model_at_end": True,
            "early_stopping_steps": 1,
            "metric_for_best_model": "eval_loss",
        },
    ),
    "save_only_model": _runs("sft", {"save_strategy": "steps", "save_steps": 1, "save_only_model": True}),
    "save_total_limit": _runs("sft", {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}),
    "plot_loss": _runs("sft", {"plot_loss": True}, says=r"Figure saved"),
    "include_num_input_tokens_seen": _runs("sft", {"include_num_input_tokens_seen": True}, later_steps="same"),
    "dpo with eval": _runs("dpo", {**EVALUATED, "eval_dataset": "dpo"}, says=r"eval_rewards/accuracies"),
    "kto with eval": _runs("kto", {**EVALUATED, "eval_dataset": "kto"}, says=r"eval_loss"),
    # --- rows
    "max_samples": _runs("sft", {"max_samples": 3}, first_loss=PLAIN_LOSS),
    "mask_history": _runs("sft", {"mask_history": True}),
    "streaming": _runs("sft", {"streaming": True}),
    "streaming, dpo": _runs("dpo", {"streaming": True}, first_loss=0.693147),
    "interleave_under": _runs("sft", {"mix_strategy": "interleave_under", "dataset": "sft,good"}),
    "interleave_over": _runs(
        "sft", {"mix_strategy": "interleave_over", "dataset": "sft,good", "interleave_probs": "0.5,0.5"}
    ),
    "preprocessing_num_workers": _runs("sft", {"preprocessing_num_workers": 2}, later_steps="same"),
    "preprocessing_batch_size": _runs("sft", {"preprocessing_batch_size": 5}, later_steps="same"),
    "neat_packing": _runs("sft", {"neat_packing": True}),
    "lr_scheduler_type: cosine": _runs("sft", {"lr_scheduler_type": "cosine"}, first_loss=PLAIN_LOSS),
    "warmup_steps": _runs("sft", {"warmup_steps": 1, "lr_scheduler_type": "constant_with_warmup"}, later_steps="other"),
    "weight_decay": _runs("sft", {"weight_decay": 0.1}, first_loss=PLAIN_LOSS),
    "label_smoothing_factor": _runs("sft", {"label_smoothing_factor": 0.1}),
    "num_train_epochs": _runs("sft", {"num_train_epochs": 1.0, "max_steps": -1}, first_loss=PLAIN_LOSS),
    # --- stages
    "pt with clips": Option("pt", {"packing": False}, refused=r"`stage: pt` trains on text alone.*`stage: sft`"),
    "pt packed": Option("pt", {}, refused=r"Set `packing: false`; the host turns packing on"),
    "packing": Option("sft", {"packing": True}, refused=r"Use `neat_packing: true`"),
    "rm": Option("rm", {"dataset": "dpo"}, long=True),
    "pairs in sft": Option("sft", {"dataset": "dpo"}, refused=r"`stage: sft`; 'dpo' has pairs .*Choose `stage: dpo`"),
    "pairs in kto": Option("kto", {"dataset": "dpo"}, refused=r"`stage: kto`; 'dpo' has pairs"),
    "conversations in dpo": Option("dpo", {"dataset": "sft"}, refused=r"'sft' is not one .*\"ranking\": true"),
    "labels in sft": Option("sft", {"dataset": "kto"}, refused=r"4 +a rejected answer .*choose `stage: kto`"),
    "labels in dpo": Option("dpo", {"dataset": "kto"}, refused=r"'kto' is not one .*`stage: kto` for labelled answers"),
    "ranking as text": Option("dpo", {"dataset": "as_text"}, refused=r"'as_text': `ranking`: expected true or false, "),
    "columns as a list": Option("sft", {"dataset": "as_list"}, refused=r"'as_list': `columns`: expected an object"),
    "a clip named twice": Option(
        "sft", {"dataset": "twice"}, says=r"`<video>` several times in a question stands for one clip.* \(4 rows\)"
    ),
    "conversations in kto": Option("kto", {"dataset": "sft"}, refused=r"12 +no label .*expected true or false"),
    # --- steps that are not finite
    "learning_rate: 1e10": Option(
        "sft",
        {"learning_rate": 1e10, "max_steps": 4},
        refused=r"stops at step 2: the loss is nan. Rows of the batch: .*USER",
    ),
    "learning_rate: 1e10, dpo": Option("dpo", {"learning_rate": 1e10, "max_steps": 4}, refused=r"stops at step 2"),
    "max_skipped_steps": Option(
        "sft",
        {"learning_rate": 1e10, "max_steps": 4, "hound": {"max_skipped_steps": 1}},
        refused=r"stops at step 3 after 1 steps in a row that were left out",
    ),
    # --- where models lie
    "model_name_or_path: no folder": Option(
        "sft", {"model_name_or_path": "/nowhere/model"}, refused=r"/nowhere/model` is not a folder on this machine"
    ),
    "bf16 without a GPU": Option("sft", {"bf16": True}, refused=r"`bf16: true` needs a GPU.*\*Compute type\*"),
    "export_legacy_format": Option(
        "sft", {"export_legacy_format": True}, refused=r"`export_legacy_format: true` has no"
    ),
}
