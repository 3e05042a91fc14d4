"""``llamafactory-cli chat`` with clips: at a terminal, as a user does, and line by line in this process."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llamafactory.chat import ChatModel
from llamafactory.chat import chat_model as host_module

from hound_plugin.host.serve import terminal_chat as ours
from hound_plugin.host.serve.terminal_chat import Conversation, completions
from tests.goldens import ROOT, SFT
from tests.host.hosting import REPO, environment, write_yaml
from tests.host.serve.terminal import Terminal
from tests.model.batches import media_path

ARGUMENTS = {
    "model_name_or_path": str(SFT),  # the original layout
    "template": "llava_hound",
    "infer_dtype": "float32",
    "do_sample": False,
    "max_new_tokens": 16,
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA weights that change the answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    import hound_plugin

    folder = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    model = hound_plugin.load(str(SFT)).model
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    )
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat_model(adapter: Path) -> ChatModel:
    return ChatModel({**ARGUMENTS, "adapter_name_or_path": str(adapter), "finetuning_type": "lora"})


@pytest.fixture
def conversation(chat_model: ChatModel) -> Conversation:
    return Conversation(chat_model)


def answer(chat_model: ChatModel, messages: list[dict[str, str]], **media: Any) -> str:
    return "".join(chat_model.stream_chat(messages, **media)).strip()


@pytest.fixture(scope="module")
def terminal(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("chat")
    (folder / "clips of mine").mkdir()
    shutil.copy(ROOT / "media" / "clip_long.mp4", folder / "clips of mine" / "long clip.mp4")
    (folder / "notes.txt").write_text("no clip")
    recipe = write_yaml(
        folder / "chat.yaml", {**ARGUMENTS, "adapter_name_or_path": str(adapter), "finetuning_type": "lora"}
    )
    program = str(Path(sys.executable).with_name("llamafactory-cli"))
    child = Terminal([program, "chat", str(recipe)], str(folder), environment(folder, PYTHONPATH=str(REPO)))
    yield child
    child.close()


def test_a_conversation_at_a_terminal(terminal: Terminal, chat_model: ChatModel) -> None:
    """Everything in one conversation, because starting the command is what takes time."""
    assert "`/video PATH`" in terminal.wait_for("\nUser: ")
    terminal.type("/vi\tcli\tl\t")  # `/video`, the folder, the file
    terminal.type("\n")
    shown = terminal.wait_for("\nUser: ")
    assert "[video] clips of mine/long clip.mp4: goes with your next question." in shown
    assert "[video] clips of mine/long clip.mp4" in terminal.ask("/media")

    clip = str(ROOT / "media" / "clip_long.mp4")
    messages = [{"role": "user", "content": "<video>What moves?"}]
    first = answer(chat_model, messages, videos=[clip])
    assert terminal.ask("What moves?") == f"Assistant: {first}"
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "Sure?"}]
    assert terminal.ask("Sure?") == f"Assistant: {answer(chat_model, messages, videos=[clip])}"

    assert "No video at nowhere.mp4" in terminal.ask("/video nowhere.mp4")
    assert "Cannot decode notes.txt" in terminal.ask("What of <video:notes.txt>?")
    assert terminal.ask("clear").strip().startswith("History has been removed.")
    assert "Nothing is attached" in terminal.ask("/media")
    literal = terminal.ask("What does <video> or </s> mean?")
    assert literal.startswith("Assistant: ")
    terminal.type("exit\n")
    assert terminal.close(60) == 0


def test_ctrl_c_stops_an_answer_and_no_more(tmp_path: Path) -> None:
    """The recorded model never ends of itself, so that without the interrupt this would take minutes."""
    endless = {
        **ARGUMENTS,
        "max_new_tokens": 3500,
        "hound": {"decode_timeout": 60},
    }  # with a decoder of its own process
    recipe = write_yaml(tmp_path / "chat.yaml", endless)
    program = str(Path(sys.executable).with_name("llamafactory-cli"))
    child = Terminal([program, "chat", str(recipe)], str(tmp_path), environment(tmp_path, PYTHONPATH=str(REPO)))
    try:
        child.wait_for("\nUser: ")
        assert "goes with your next question" in child.ask(f"/video {media_path('clip_long')}")
        child.type("What moves?\n")
        child.wait_for("Assistant: ")
        while len(child.shown.strip()) < 10:
            child.wait_for(" ")
        child.interrupt()
        child.wait_for(" [stopped]\n")
        child.wait_for("\nUser: ")
        assert child.ask("/media") == f"[video] {media_path('clip_long')}"  # it was asked about
        assert "goes with" in child.ask(f"/video {ROOT / 'media' / 'clip_short.mp4'}")  # the decoder lives
        child.type("And there?\n")
        child.wait_for("Assistant: ")
        while len(child.shown.strip()) < 10:
            child.wait_for(" ")
        child.interrupt()
        assert "Traceback" not in child.wait_for("\nUser: ")
        child.type("exit\n")
        assert child.close(60) == 0
    finally:
        child.close()


def test_a_stopped_answer_ends_its_generation(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversation holds what was said."""
    monkeypatch.setitem(conversation.chat_model.engine.generating_args, "max_new_tokens", 3500)
    conversation.take(f"/video {media_path('clip_long')}")
    terminal = Interrupting(3)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        conversation.take("What moves?")
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    assert terminal.getvalue().partition("Assistant: ")[2].startswith(conversation.messages[1]["content"])
    assert conversation.waiting == []
    assert conversation.chat_model.chat([{"role": "user", "content": "Hi"}], max_new_tokens=2)  # the engine is free
    deadline = time.monotonic() + 30
    while names := [thread.name for thread in threading.enumerate() if thread.name == "generate"]:
        assert time.monotonic() < deadline, names
        time.sleep(0.05)


class Interrupting(io.StringIO):
    """A terminal whose user presses Ctrl-C after some pieces of an answer, while the program waits for the next."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.left = pieces + 1  # the name in front of the answer comes first

    def flush(self) -> None:
        self.left -= 1
        if self.left == 0:
            threading.Timer(0.001, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()


def test_what_is_stopped_before_the_first_word_was_not_asked(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Iterator[str]:
        raise KeyboardInterrupt
        yield

    conversation.take(f"/video {media_path('clip_long')}")
    monkeypatch.setattr(conversation, "_pieces", interrupted)
    with pytest.raises(KeyboardInterrupt):  # which `run` meets with the next prompt
        conversation.take("What moves?")
    assert conversation.messages == []
    assert len(conversation.waiting) == 1


def test_what_was_shown_stays_with_its_question(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    long, short = media_path("clip_long"), str(ROOT / "media" / "clip_short.mp4")
    wide = str(ROOT / "media" / "img_wide.jpg")
    conversation.take(f"/video {long}")
    conversation.take("What moves?")
    conversation.take(f"And <video:{short}> with <image:{wide}> there?")
    contents = [message["content"] for message in conversation.messages if message["role"] == "user"]
    assert contents == ["<video>What moves?", "<video><image>And  with  there?"]
    assert conversation.shown == {"video": [long, short], "image": [wide]}
    told = capsys.readouterr().out
    expected = answer(conversation.chat_model, conversation.messages[:3], videos=[long, short], images=[wide])
    assert f"Assistant: {expected}" in told
    conversation.take("/media")
    assert capsys.readouterr().out.splitlines() == [f"[video] {long}", f"[video] {short}", f"[image] {wide}"]


def test_a_literal_placeholder_is_ordinary_text(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    """Also beside a real clip, and it is not the same question as without it."""
    clip = media_path("clip_long")
    conversation.take(f"/video {clip}")
    conversation.take("Is <video> or <image> a word?")
    assert len(conversation.messages) == 2
    tokenizer, template = conversation.chat_model.engine.tokenizer, conversation.chat_model.engine.template
    processor = conversation.chat_model.engine.processor
    expanded = template.mm_plugin.process_messages(conversation.messages[:1], [], [clip], [], processor)
    ids, _ = template.encode_oneturn(tokenizer, [*expanded, {"role": "assistant", "content": ""}])
    video = tokenizer.convert_tokens_to_ids("<video>")
    assert ids.count(video) == processor.tokens_per_video
    assert tokenizer.convert_tokens_to_ids("<image>") not in ids
    visible = tokenizer.decode([token for token in ids if token != video])
    assert "Is <video> or <image> a word?" in visible
    capsys.readouterr()


def test_a_conversation_that_no_longer_fits_goes_on(
    conversation: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = media_path("clip_short")
    for _ in range(11):  # 11 x 392 tokens, and the context holds 4096
        conversation.take(f"/video {clip}")
    conversation.take("What moves?")
    assert "no longer fits" in capsys.readouterr().out
    assert conversation.messages == []
    assert len(conversation.waiting) == 11
    conversation.take("/detach")
    conversation.take("Hello")
    assert len(conversation.messages) == 2


C, D = KeyboardInterrupt(), EOFError()


@pytest.mark.parametrize("keys", [[D], [C, C], [C, "/media", C, D], ["exit"]], ids=str)
def test_how_a_conversation_ends(
    conversation: Conversation, keys: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C twice in a row, Ctrl-D, or `exit`; one Ctrl-C may have been meant for an answer that has just ended."""
    left = list(keys)

    def pressed(prompt: str = "") -> str:
        key = left.pop(0)
        if isinstance(key, BaseException):
            raise key
        return str(key)

    monkeypatch.setattr("builtins.input", pressed)
    conversation.run()
    assert left == []
    assert capsys.readouterr().out.count("Press Ctrl-C again") == keys.count(C) - (keys == [C, C])


def test_media_that_are_written_wrongly_are_no_question(
    conversation: Conversation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for line, told in (
        ("What of <video:a<b>.mp4>?", "with a path without < and >"),
        ("What of <video:>?", "Expected <video:PATH>"),
        (f"/image {tmp_path / 'pipe.mp4'}", "got a pipe or a device"),
        (f"/video {tmp_path / 'pipe.mp4'}", "got a pipe or a device"),
        (f"/video {tmp_path / 'pipe.mp4'}#t=1", "got a pipe or a device"),
        (f"/VIDEO {media_path('clip_long')}", "goes with your next question"),
        (f"<Video:{media_path('clip_short')}>", "Ask something about what is attached"),
    ):
        conversation.take(line)
        assert told in capsys.readouterr().out
    assert conversation.messages == []
    assert [path for _, path in conversation.waiting] == [media_path("clip_long"), media_path("clip_short")]


def test_an_empty_line_asks_nothing(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    conversation.take("  ")
    assert capsys.readouterr().out == ""
    conversation.take(f"/video {media_path('clip_long')}")
    conversation.take("")
    assert "Ask something about what is attached" in capsys.readouterr().out
    assert conversation.messages == []


def test_paths_as_people_type_them(conversation: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "my clip.mp4"
    shutil.copy(ROOT / "media" / "clip_short.mp4", clip)
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed in (f"'{clip}'", f'"{clip}"', str(clip), str(clip).replace(" ", "\\ "), "~/my\\ clip.mp4"):
        conversation.take(f"/video {typed}")
    assert conversation.waiting == [("video", str(clip))] * 5
    for typed in (f"{clip}#t=0.1,0.3", "~/my\\ clip.mp4#t=0.1,0.3"):
        conversation.take(f"/video {typed}")
    assert conversation.waiting[5:] == [("video", f"{clip}#t=0.1,0.3")] * 2


def test_what_tab_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder" / "inner").mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a clip.mp4", "a picture.png", ".hidden.mp4"):
        (tmp_path / name).touch()
    assert completions("/", "") == ["video ", "image ", "media", "detach", "help"]
    assert completions("/vi", "vi") == ["video "]
    assert completions("/video a", "a") == ["a clip.mp4", "a folder/", "a picture.png"]
    assert completions("/image a", "a") == ["a folder/", "a picture.png"]
    assert completions("Look at <video:a c", "c") == ["clip.mp4"]
    assert completions("/video a folder/i", "i") == ["inner/"]
    assert completions("/video .h", ".h") == [".hidden.mp4"]
    assert completions("/video nowhere/x", "x") == []
    assert completions("What is in a", "a") == []


def test_other_models_keep_the_hosts_chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The stock loop runs, with the model that is loaded once."""
    loaded = []

    class Other:
        engine = type("Engine", (), {"template": object()})()

        def __init__(self) -> None:
            loaded.append(self)

        def stream_chat(self, messages: list[dict[str, str]]) -> Iterator[str]:
            yield messages[-1]["content"].upper()

    lines = iter(["<video> /video x", "exit"])
    monkeypatch.setattr(host_module, "ChatModel", Other)
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    monkeypatch.setattr(ours, "Conversation", None)
    host_module.run_chat()
    assert "Assistant: <VIDEO> /VIDEO X" in capsys.readouterr().out
    assert len(loaded) == 1
    assert host_module.ChatModel is Other
