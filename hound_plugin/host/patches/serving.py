"""Chat, API and web UI."""

from __future__ import annotations

from hound_plugin.host.patches.entry import EVERY_RUN, Entry, Patch

_CONVERSATION = "model, tokenizer, processor, template, "


def _engine(target: str, takes: str, body: str, why: str, without: str) -> Patch:
    return Patch(
        module="llamafactory.chat.hf_engine",
        target=f"HuggingfaceEngine.{target}",
        takes=takes,
        body=f"serve.engine:{body}",
        why=why,
        removable="`HuggingfaceEngine` has hooks around `_process_args` and passes on errors of its generating thread",
        without=without,
        essential_for=EVERY_RUN,
    )


ENGINE: tuple[Entry, ...] = (
    _engine(
        "__init__",
        "model_args, data_args, ...",
        "set_up_engine",
        why="The host decodes and encodes a clip again for every question, and knows no system prompt of the model.",
        without="the system prompt of the model's training is not used",
    ),
    _engine(
        "_process_args",
        f"{_CONVERSATION}generating_args, messages, system, tools, images, videos, audios, input_kwargs",
        "process_args",
        why="The host generates beyond the context, and takes a placeholder that a user types for a clip.",
        without="conversations are not checked before an answer is generated",
    ),
    _engine(
        "_chat",
        f"{_CONVERSATION}...",
        "chat",
        why="The model may continue with the user's next question itself.",
        without="answers do not end at the name of a role",
    ),
    _engine(
        "_stream_chat",
        f"{_CONVERSATION}...",
        "stream_chat",
        why="The host hangs forever when generation fails while an answer is streamed.",
        without="a streamed answer that fails never ends",
    ),
    Patch(
        module="llamafactory.chat.chat_model",
        target="run_chat",
        takes="",
        body="serve.terminal_chat:run_chat",
        needs=("llamafactory.chat.chat_model:ChatModel",),
        why="`llamafactory-cli chat` passes text only.",
        removable="the host's command takes media",
        without="`llamafactory-cli chat` takes no clips and no images",
    ),
    Patch(
        module="llamafactory.api.app",
        target="create_app",
        takes="chat_model",
        body="serve.api:create_app",
        needs=(
            "llamafactory.api.common:check_lfi_path(path)",
            "llamafactory.api.common:check_ssrf_url(url)",
            "llamafactory.api.common:SAFE_MEDIA_PATH",
            "llamafactory.api.common:ALLOW_LOCAL_FILES",
        ),
        why=(
            "The host ignores a temperature where the recipe is greedy, `stop`, `seed`, `logprobs` and "
            "`max_completion_tokens`, takes `presence_penalty` for a repetition penalty, answers bad media with a 500 "
            "or in the middle of a stream, cannot read `data:` clips, follows redirects to private addresses, takes "
            "/allowed-evil to be inside /allowed, and has errors without OpenAI's `message`."
        ),
        removable="it does none of that",
        without="the API would ignore parameters of requests",
        essential_for=EVERY_RUN,
    ),
)


def _page(module: str, target: str, body: str, why: str, without: str, removable: str, **more: object) -> Patch:
    module = f"llamafactory.webui.{module}"
    entry: dict[str, object] = {"takes": "...", **more}
    body = f"serve.web_pages:{body}"
    return Patch(module, target, body=body, why=why, without=without, removable=removable, **entry)  # type: ignore[arg-type]


WEB: tuple[Entry, ...] = (
    *(
        _page(
            "common",
            target,
            "one_at_a_time",
            why=(
                "Choosing a model makes the host write its file of paths and read it in two threads at the same time; "
                'half-written it reads as None, and the page shows "Error".'
            ),
            removable="`save_config` replaces its file in one step",
            without='choosing a model on the page may show "Error"',
        )
        for target in ("load_config", "save_config")
    ),
    *(
        _page(
            module,
            target,
            "show_errors",
            why='The page shows "Error" without a reason.',
            removable="the pages show errors",
            without=f"the page does not say why {what} fails",
        )
        for module, target, what in (
            ("chatter", "WebChatModel.load_model", "loading a model"),
            ("components.export", "save_model", "an export"),
        )
    ),
    _page(
        "chatter",
        "WebChatModel.stream",
        "answer_with_errors",
        takes="chatbot, messages, ...",
        why="A question that fails stays in the conversation, and the page does not show the reason.",
        removable="the pages show errors, and a failed question leaves the conversation",
        without="the page does not say why a clip is refused",
    ),
    _page(
        "chatter",
        "WebChatModel.stream_chat",
        "stream_chat",
        why="The host sends the first values of the sliders with every question, and overrides the recipe.",
        removable="the sliders begin at the values of the recipe",
        without="answers on the page are sampled by the sliders, not as the recipe says",
    ),
    _page(
        "engine",
        "Engine.resume",
        "label_webchat",
        takes="",
        needs=(
            "llamafactory.webui.common:load_config",
            "llamafactory.webui.engine:Engine.change_lang(lang)",
        ),
        why="`webchat` has no labels until the language is changed.",
        removable="`create_web_demo` makes its list of languages without a value, as `create_top` does",
        without="`webchat` has no labels at first",
    ),
    *(
        _page(
            "interface",
            target,
            "with_room_for_a_clip",
            takes="engine",
            why="*Cutoff length* begins at 2,048, which is less than one clip with its question.",
            removable="a template can bring a value for the field",
            without="*Cutoff length* on the page must be raised by hand",
        )
        for target in ("create_train_tab", "create_eval_tab")
    ),
)
