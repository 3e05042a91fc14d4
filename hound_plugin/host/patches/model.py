"""Registries of the host, its arguments, and what it does with a model that it has loaded."""

from __future__ import annotations

from hound_plugin.host.patches.entry import EVERY_RUN, Entry, Patch, Setup

REGISTRIES: tuple[Entry, ...] = (
    Setup(
        module="llamafactory.extras.constants",
        body="models:register_names",
        needs=(
            "llamafactory.extras.constants:register_model_group(models, template=, multimodal=, ...)",
            "llamafactory.extras.constants:SUPPORTED_MODELS",
            "llamafactory.extras.constants:DownloadSource.DEFAULT",
        ),
        without="the web UI does not list the LLaVA-Hound models",
    ),
    Setup(
        module="llamafactory.model.model_utils.visual",
        body="models:register_composite",
        needs=(
            "llamafactory.model.model_utils.visual:_register_composite_model(model_type, projector_keys=, "
            "vision_model_keys=, language_model_keys=, ...)",
            "llamafactory.model.model_utils.visual:COMPOSITE_MODELS",
        ),
        without="towers and projector cannot be frozen or trained on their own",
        essential_for=EVERY_RUN,
    ),
    Setup(
        module="llamafactory.data.mm_plugin",
        body="mm_plugin:register",
        needs=(
            "llamafactory.data.mm_plugin:register_mm_plugin(name, plugin_class)",
            "llamafactory.data.mm_plugin:get_mm_plugin(name, image_token=, video_token=, ...)",
            "llamafactory.data.mm_plugin:PLUGINS",
            "llamafactory.data.mm_plugin:BasePlugin.process_messages(messages, images, videos, audios, processor)",
            "llamafactory.data.mm_plugin:BasePlugin.process_token_ids(input_ids, labels, images, videos, audios, "
            "tokenizer, processor)",
            "llamafactory.data.mm_plugin:BasePlugin.get_mm_inputs(images, videos, audios, imglens, vidlens, audlens, "
            "batch_ids, processor)",
        ),
        without="clips and images do not reach the model",
        essential_for=EVERY_RUN,
    ),
    Setup(
        module="llamafactory.data.template",
        body="template:register",
        needs=(
            "llamafactory.data.template:register_template(name, format_user=, format_assistant=, format_system=, "
            "format_prefix=, default_system=, replace_jinja_template=, mm_plugin=, template_class=, ...)",
            "llamafactory.data.template:TEMPLATES",
            "llamafactory.data.template:Template.encode_oneturn(tokenizer, messages, system, tools)",
            "llamafactory.data.template:Template.encode_multiturn(tokenizer, messages, system, tools, ...)",
            "llamafactory.data.template:Template.fix_special_tokens(tokenizer)",
            "llamafactory.data.template:Template.fix_jinja_template(tokenizer)",
        ),
        without="there is no template `llava_hound`",
        essential_for=EVERY_RUN,
    ),
    Setup(
        module="llamafactory.data.converter",
        body="converter:register",
        needs=(
            "llamafactory.data.converter:register_dataset_converter(name, dataset_converter)",
            "llamafactory.data.converter:DATASET_CONVERTERS",
        ),
        without='data sets of `"formatting": "hound"` cannot be read',
        essential_for=EVERY_RUN,
    ),
)

ARGUMENTS: tuple[Entry, ...] = (
    Setup(
        module="llamafactory.hparams.parser",
        body="error_display:show_messages_alone",
        needs=(),
        without="errors are shown with their tracebacks",
    ),
    Patch(
        module="llamafactory.hparams.parser",
        target="_parse_args",
        takes="parser, args, allow_extra_keys",
        body="arguments:parse_args",
        needs=("llamafactory.hparams.parser:read_args(args)",),
        why="The host refuses unknown keys, ours among them, and takes options that have no effect on this model.",
        removable="the host passes unknown blocks on to plugins",
        without="the `hound:` block cannot be read, and options are not checked",
        essential_for=EVERY_RUN,
    ),
    Patch(
        module="llamafactory.hparams.parser",
        target="get_last_checkpoint",
        takes="folder",
        body="resume:last_complete",
        ours_only=True,
        why="The host resumes from the checkpoint with the highest number, even if a kill or a full disk cut it off.",
        removable="`get_last_checkpoint` knows which checkpoints are complete",
        without="a training does not skip an incomplete checkpoint when it resumes",
    ),
    Patch(
        module="llamafactory.model.loader",
        target="patch_processor",
        takes="processor, tokenizer, model_args",
        body="model_loading:set_up_processor",
        why="The host has no room for our settings on the processor.",
        removable="the host lets a plugin see model, tokenizer and arguments after loading",
        without="the `hound:` settings do not reach the processor",
        essential_for=EVERY_RUN,
    ),
    Patch(
        module="llamafactory.model.loader",
        target="patch_config",
        takes="config, tokenizer, ...",
        body="model_loading:set_up_config",
        why="The model must know the ids that the tokenizer gave to the placeholders.",
        removable="the host lets a plugin see model, tokenizer and arguments after loading",
        without="the model does not know its placeholders",
        essential_for=EVERY_RUN,
    ),
    Patch(
        module="llamafactory.model.loader",
        target="init_adapter",
        takes="config, model, model_args, finetuning_args, is_trainable",
        body="model_loading:set_up_adapter",
        why="The towers' gradients, and LoRA targets that name a part of the model, are unknown to the host.",
        removable="the host lets a plugin see model, tokenizer and arguments after loading",
        without="options that freeze or adapt parts of the model are not followed",
        essential_for=EVERY_RUN,
    ),
    Patch(
        module="llamafactory.data.template",
        target="get_template_and_fix_tokenizer",
        takes="tokenizer, data_args",
        body="template_check:check_template",
        why="The host silently trains with a template that is not the model's.",
        removable="the host checks that template and model belong together",
        without="a template of another model is not refused",
        essential_for=EVERY_RUN,
    ),
)
