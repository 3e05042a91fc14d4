"""Trainers, and DeepSpeed's ZeRO-3 on CPU."""

from __future__ import annotations

from hound_plugin.host.patches.entry import Entry, Patch

_NAMES = {
    "sft": "CustomSeq2SeqTrainer",
    "dpo": "CustomDPOTrainer",
    "kto": "CustomKTOTrainer",
    "rm": "PairwiseTrainer",
}


def _steps(stage: str, trainer: str) -> tuple[Patch, ...]:
    """What every trainer inherits from transformers' own."""
    module = f"llamafactory.train.{stage}.trainer"
    finite = "transformers logs a loss that is not finite as 0, continues and saves the model."
    removable = "the trainer itself stops when loss or gradients are not finite"
    return (
        Patch(
            module=module,
            target=f"{trainer}.training_step",
            takes="model, inputs, ...",
            body="finite_steps:watch_step",
            ours_only=True,
            why=finite,
            removable=removable,
            without="a training whose loss is not finite continues",
        ),
        Patch(
            module=module,
            target=f"{trainer}._get_grad_norm",
            takes="...",
            body="finite_steps:watch_norm",
            ours_only=True,
            why=finite,
            removable=removable,
            without="a training whose gradients are not finite continues, and `hound.max_skipped_steps` has no effect",
        ),
        Patch(
            module=module,
            target=f"{trainer}._init_training_state",
            takes="max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, ...",
            body="resume:settled_start",
            ours_only=True,
            why="The trainer takes a step beyond the last one when it resumes from a checkpoint of a complete run.",
            removable="`Trainer` ends at `max_steps` when it resumes",
            without="resuming from the last checkpoint of a complete run trains beyond its end",
        ),
        Patch(
            module=module,
            target=f"{trainer}.train",
            takes="...",
            body="resume:settled_training",
            ours_only=True,
            why="A finished run that is started again overwrites its log and its results with those of no steps.",
            removable="`Trainer.train` leaves a finished run as it is",
            without="a finished run that is started again loses its log and its results",
        ),
        Patch(
            module=module,
            target=f"{trainer}.save_model",
            takes="output_dir, ...",
            body="resume:signed_model",
            ours_only=True,
            why="An adapter that was trained over merged ones names the base model alone.",
            removable="peft's configuration of an adapter names the adapters that were merged below it",
            without="an adapter that was trained over merged ones is not known as such",
        ),
        Patch(
            module=module,
            target=f"{trainer}._save_checkpoint",
            takes="...",
            body="resume:signed_checkpoint",
            ours_only=True,
            why="A checkpoint does not say which run it belongs to.",
            removable="checkpoints name model, data sets and stage, and the host compares them",
            without="a checkpoint of another run in the same `output_dir` is not noticed",
        ),
        Patch(
            module=module,
            target=f"{trainer}._save_rng_state",
            takes="output_dir",
            body="resume:saved_by_all",
            ours_only=True,
            why="A checkpoint counts as complete while other processes are still writing their part of it.",
            removable="`Trainer._save_checkpoint` waits for all processes before it writes trainer_state.json",
            without="a kill while several processes save may leave a checkpoint that lacks a part",
        ),
        _features(module, f"{trainer}._prepare_inputs", "inputs", "tower_step:prepare_inputs"),
    )


def _features(module: str, target: str, takes: str, body: str) -> Patch:
    return Patch(
        module=module,
        target=target,
        takes=takes,
        body=body,
        ours_only=True,
        why="Frozen towers run in every epoch, and in every pass of a step, on the same clips.",
        removable="the trainer takes features of frozen towers from a cache",
        without="`hound.feature_cache` cannot be used",
    )


def _reference(stage: str, trainer: str, body: str) -> tuple[Patch, ...]:
    """The reference of a preference training, whose log-probabilities may be stored."""
    removable = "the host computes the reference's log-probabilities once, and keeps them"
    return (
        Patch(
            module=f"llamafactory.train.{stage}.workflow",
            target="create_ref_model",
            takes="model_args, finetuning_args, ...",
            body="reference.stored:reference_model",
            ours_only=True,
            why="The host loads a second model, whose log-probabilities of a row never change.",
            removable=removable,
            without="`hound.reference_log_probs` cannot be used",
        ),
        Patch(
            module=f"llamafactory.train.{stage}.trainer",
            target=f"{trainer}.compute_reference_log_probs",
            takes="model, batch",
            body=f"reference.stored:{body}",
            ours_only=True,
            why="The host computes them again in every epoch, from weights of which the policy has a copy.",
            removable=removable,
            without="`hound.reference_log_probs` cannot be used, and frozen weights are in memory twice",
        ),
    )


def _evaluation(stage: str, trainer: str, forward: str) -> tuple[Patch, ...]:
    """Loss and metrics of an evaluation; the batches' part prepares their inputs, too, as trl's trainers do not."""
    module = f"llamafactory.train.{stage}.trainer"
    formulas = ("model, batch, train_eval" if stage == "dpo" else "model, batch", "model, batch")
    needs = {
        "concatenated_forward": forward,
        "compute_reference_log_probs": formulas[1],
        "get_batch_loss_metrics": formulas[0],
    }
    places = {
        "evaluation_loop": "dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix",
        "prediction_step": "model, inputs, ...",
    }
    return tuple(
        Patch(
            module=module,
            target=f"{trainer}.{name}",
            takes=takes,
            body=f"evaluated_pairs:{name}",
            ours_only=True,
            why="Metrics are means of batches, and count rows that fill up a batch; frozen towers run again and again.",
            removable="an evaluation gives the means over rows, and takes features of frozen towers from a cache",
            without="evaluations fail",
            essential_for=stage,
            needs=tuple(f"{module}:{trainer}.{need}({arguments})" for need, arguments in needs.items()),
        )
        for name, takes in places.items()
    )


TRAINERS: tuple[Entry, ...] = (
    Patch(
        module="llamafactory.train.tuner",
        target="_training_function",
        takes="config",
        body="output_lock:locked_training",
        why="Two trainings in one `output_dir` remove and mix each other's checkpoints.",
        removable="the host refuses a second training in one `output_dir`",
        without="two trainings in one `output_dir` are not noticed",
    ),
    Patch(
        module="llamafactory.train.tuner",
        target="export_model",
        takes="args",
        body="whole_saves:whole_export",
        why="An export that ends between model and processor leaves those of two models, or a model with defaults.",
        removable="`export_model` writes a folder whole, and fails where the tokenizer cannot be saved",
        without="an export that was ended half-way, or could not save its processor, is not known as such",
    ),
    Patch(
        module="llamafactory.train.callbacks",
        target="SaveProcessorCallback.on_save",
        takes="args, state, ...",
        body="whole_saves:saved_with_model",
        ours_only=True,
        why="The tokenizer of a checkpoint that counts as complete is overwritten in place.",
        removable="the processor is saved before `trainer_state.json`",
        without="a kill or a full disk may damage the tokenizer of a complete checkpoint",
    ),
    *(patch for stage, trainer in _NAMES.items() for patch in _steps(stage, trainer)),
    *_reference("dpo", "CustomDPOTrainer", "pair_log_probs"),
    *_reference("kto", "CustomKTOTrainer", "labelled_log_probs"),
    *_evaluation("dpo", "CustomDPOTrainer", "model, batch, is_ref_model"),
    *_evaluation("kto", "CustomKTOTrainer", "model, batch"),
    Patch(
        module="llamafactory.train.rm.trainer",
        target="PairwiseTrainer.prediction_step",
        takes="model, inputs, prediction_loss_only, ...",
        body="evaluated_pairs:reward_step",
        ours_only=True,
        why="The loss of the last batches of several processes counts the rows that fill them up.",
        removable="`Trainer` leaves rows that fill up a batch out of its loss",
        without="losses of an evaluation of a reward model count some rows more than once",
    ),
    Patch(
        module="llamafactory.train.dpo.trainer",
        target="CustomDPOTrainer.dpo_loss",
        takes="chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, loss_type=, ...",
        body="preference_loss:named_loss",
        ours_only=True,
        why="trl 0.24 takes `loss_type` as an argument, 'sigmoid' by default; the host's trainer does not pass it.",
        removable="`CustomDPOTrainer` passes `loss_type`",
        without="every `pref_loss` of DPO would be computed as sigmoid",
        essential_for="dpo",
    ),
    Patch(
        module="llamafactory.train.dpo.trainer",
        target="CustomDPOTrainer.concatenated_forward",
        takes="model, batch, is_ref_model",
        body="preference_step:preference_forward",
        ours_only=True,
        why="Clip and question of a pair are computed four times a step, the towers twice, and all logits in float32.",
        removable="the host shares prompts, logits and towers in preference training",
        without="`hound.prefix_sharing` and `hound.answers_only` have no effect in DPO",
    ),
    Patch(
        module="llamafactory.train.kto.trainer",
        target="CustomKTOTrainer.concatenated_forward",
        takes="model, batch",
        body="labelled_step:labelled_forward",
        ours_only=True,
        why="Clip and question are computed for an answer and again for its KL term, by policy and by reference.",
        removable="the host shares prompts, logits and towers in preference training",
        without="`hound.prefix_sharing` and `hound.answers_only` have no effect in KTO",
    ),
    Patch(
        module="llamafactory.train.kto.trainer",
        target="CustomKTOTrainer.forward",
        takes="model, batch, ...",
        body="preference_loss:forward_with_media",
        ours_only=True,
        why="The KTO trainer passes on a fixed list of other models' inputs.",
        removable="`CustomKTOTrainer.forward` passes on all inputs",
        without="clips do not reach the model in KTO",
        essential_for="kto",
    ),
    Patch(
        module="llamafactory.train.kto.trainer",
        target="CustomKTOTrainer.log",
        takes="logs, ...",
        body="preference_loss:log_mean_kl",
        ours_only=True,
        why="`kl` in the log is the sum over the batches since the last line, whatever their number.",
        removable="`CustomKTOTrainer.log` gives the mean of `kl`",
        without="`kl` in the log of KTO grows with `logging_steps` and `gradient_accumulation_steps`",
    ),
    Patch(
        module="llamafactory.train.sft.trainer",
        target="CustomSeq2SeqTrainer.get_train_dataloader",
        takes="...",
        body="clip_groups:grouped_loader",
        ours_only=True,
        why="The host reads rows about one clip one by one, each with all of the clip's tokens.",
        removable="the host groups rows about one clip, and lets them share its tokens",
        without="`hound.group_questions` has no effect",
    ),
    Patch(
        module="llamafactory.train.sft.trainer",
        target="CustomSeq2SeqTrainer.prediction_step",
        takes="model, inputs, ...",
        body="evaluated_rows:prediction_step",
        ours_only=True,
        why="transformers' Seq2SeqTrainer counts the rows that fill up last batches, and small ones as full ones.",
        removable="`Seq2SeqTrainer.evaluate` and `predict` gather with `gather_for_metrics`",
        without="losses and metrics of an evaluation count some rows more than once",
    ),
    Patch(
        module="llamafactory.train.sft.trainer",
        target="CustomSeq2SeqTrainer.compute_loss",
        takes="model, inputs, ...",
        body="supervised_loss:compute_loss",
        ours_only=True,
        why="Logits of every position are computed in float32; the reference of the ASFT loss is given text alone.",
        removable="the host computes the loss from labelled positions, and `use_asft_loss` passes on all inputs",
        without="`hound.answers_only` and `hound.group_questions` have no effect in SFT, and `use_asft_loss` fails",
    ),
)
ZERO3: tuple[Entry, ...] = (
    Patch(
        module="deepspeed.runtime.zero.partition_parameters",
        target="Init._allgather_params_coalesced",
        takes="param_list, hierarchy, quantize",
        body="zero3:gather_one_by_one",
        why=(
            "DeepSpeed starts one all-gather a parameter and waits for the last one only. NCCL's stream keeps their "
            "order; gloo (CPU) does not, and an all-gather that ends late overwrites a weight that `from_pretrained` "
            "has just loaded: training continues with uninitialised memory."
        ),
        removable="`Init._allgather_params_coalesced` waits for all of its handles",
        without="ZeRO-3 on CPU (gloo) may train with uninitialised weights",
    ),
)
