"""``llamafactory-cli chat`` with clips and images, for LLaVA-Hound models; the host's own passes text only."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from hound_plugin.errors import DataError, HoundError, MediaDecodeError
from hound_plugin.host.mm_plugin import is_ours
from hound_plugin.host.serve.engine import escape_placeholders
from hound_plugin.media.cancellation import client_disconnected
from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN
from hound_plugin.records.media_paths import cut_part, is_image_path, media_exists

WELCOME = (
    "Welcome to the CLI application, use `clear` to remove the history, use `exit` to exit the application.\n"
    "Use `/video PATH` or `/image PATH` to show something with the next question (Tab completes paths), or write "
    "<video:PATH> in it; `/media` lists what is attached, `/detach` removes what was not asked about yet.\n"
    "Ctrl-C stops an answer; pressed twice at the prompt it ends the conversation, as `exit` does."
)
COMMANDS = ("/video", "/image", "/media", "/detach", "/help")
TOKENS = {"video": VIDEO_TOKEN, "image": IMAGE_TOKEN}
_COMMAND = re.compile(r"(/[A-Za-z]+)(?:\s+(.*))?", re.DOTALL)
_INLINE = re.compile(r"<(video|image):([^<>]+)>", re.IGNORECASE)
_BROKEN = re.compile(r"<(video|image):", re.IGNORECASE)
_TO_COMPLETE = re.compile(r"(?:^\s*/(?:video|image)\s+|<(?:video|image):)([^<>]*)$")


@dataclass
class Conversation:
    """One conversation at the terminal.

    Attributes:
        chat_model: the host's, loaded.
        messages: questions, with a placeholder for each item that was shown with them, and answers.
        shown: paths of clips and of images in ``messages``, in order.
        waiting: ``(kind, path)`` of what goes with the next question.
    """

    chat_model: Any
    messages: list[dict[str, str]] = field(default_factory=list)
    shown: dict[str, list[str]] = field(default_factory=lambda: {"video": [], "image": []})
    waiting: list[tuple[str, str]] = field(default_factory=list)

    def run(self) -> None:
        """Ask and answer until `exit` or the end of the input."""
        _set_up_readline()
        print(WELCOME)
        interrupted = False
        while True:
            try:
                query = input("\nUser: ")
                interrupted = False
            except UnicodeDecodeError:
                print("Detected decoding error at the inputs, please set the terminal encoding to utf-8.")
                continue
            except KeyboardInterrupt:  # it may have been meant for an answer that has just ended
                print()
                if interrupted:
                    return
                interrupted = True
                print("Press Ctrl-C again, or enter `exit`, to end the conversation.")
                continue
            except EOFError:
                print()
                return
            if query.strip() == "exit":
                return
            try:
                self.take(query)
            except KeyboardInterrupt:
                print("\n[stopped]")

    def take(self, query: str) -> None:
        """One line of the user: a command or a question. Errors are printed, and the conversation continues."""
        command = _COMMAND.fullmatch(query.strip())
        try:
            if query.strip() == "clear":
                self.clear()
            elif not query.strip():
                if self.waiting:
                    print("Ask something about what is attached, or `/detach` it.")
            elif command is not None:
                self._command(command.group(1).lower(), (command.group(2) or "").strip())
            else:
                self._question(query)
        except HoundError as error:
            print(f"[not done] {error}")

    def clear(self) -> None:
        """Forget questions, answers and what was shown."""
        from llamafactory.extras.misc import torch_gc

        self.messages, self.shown, self.waiting = [], {"video": [], "image": []}, []
        torch_gc()
        print("History has been removed.")

    def _command(self, name: str, argument: str) -> None:
        if name in ("/video", "/image"):
            if not argument:
                print(f"Usage: {name} PATH")
                return
            path = _path(argument)
            self.waiting.append(self._checked(name[1:], path))
            print(f"[{name[1:]}] {path}: goes with your next question.")
        elif name == "/media":
            lines = [f"[{kind}] {path}" for kind, paths in self.shown.items() for path in paths]
            lines += [f"[{kind}] {path}: goes with your next question" for kind, path in self.waiting]
            print("\n".join(lines) or "Nothing is attached. Use `/video PATH` or `/image PATH`.")
        elif name == "/detach":
            print(f"{len(self.waiting)} item(s) removed.")
            self.waiting = []
        elif name == "/help":
            print(WELCOME)
        else:
            print(f"No such command: {name}. There are {', '.join(COMMANDS)}, `clear` and `exit`.")

    def _checked(self, kind: str, path: str) -> tuple[str, str]:
        """Decode it now, so that a bad file is reported at once; the engine keeps the result for the question."""
        processor = self.chat_model.engine.processor
        whole = cut_part(path)[0]
        if os.path.exists(whole) and not os.path.isfile(whole) and not os.path.isdir(whole):
            raise MediaDecodeError(f"Expected a file or a folder of frames, got a pipe or a device: {path}.", path)
        read: Callable[[str], Any] = processor.read_video if kind == "video" else processor.read_image
        read(path)
        return kind, path

    def _question(self, query: str) -> None:
        inline = [self._checked(kind.lower(), _path(path)) for kind, path in _INLINE.findall(query)]
        text = _INLINE.sub("", query).strip() if inline else query
        broken = _BROKEN.search(text)
        if broken:
            raise DataError(
                f"Expected <{broken[1]}:PATH> with a path without < and >, got {text[broken.start() :][:80]!r}. "
                f"`/{broken[1]} PATH` takes any path."
            )
        if inline and not text:
            self.waiting.extend(inline)
            print("Ask something about what is attached, or `/detach` it.")
            return
        items = [*self.waiting, *inline]
        content = "".join(TOKENS[kind] for kind, _ in items) + escape_placeholders(text)
        media = {
            kind: [*paths, *(path for other, path in items if other == kind)] for kind, paths in self.shown.items()
        }
        messages = [*self.messages, {"role": "user", "content": content}]
        print("Assistant: ", end="", flush=True)
        response = ""
        try:
            for piece in self._pieces(messages, media):
                print(piece, end="", flush=True)
                response += piece
        except KeyboardInterrupt:
            if not response.strip():
                raise  # nothing was said: the question was not asked, and what was attached to it waits
            print(" [stopped]", end="")
        finally:
            print()
        self.messages = [*messages, {"role": "assistant", "content": response.strip()}]
        self.shown, self.waiting = media, []

    def _pieces(self, messages: list[dict[str, str]], media: dict[str, list[str]]) -> Iterator[str]:
        """An answer as it is generated. When its reader leaves, it ends with the current token, and the engine is free.

        The host's ``ChatModel.stream_chat`` would leave that to the garbage collector.
        """
        pieces: SimpleQueue[str | None] = SimpleQueue()
        disconnected = threading.Event()

        async def read() -> None:
            client_disconnected.set(disconnected)
            async for piece in self.chat_model.astream_chat(
                messages, images=media["image"] or None, videos=media["video"] or None
            ):
                pieces.put(piece)

        answer = asyncio.run_coroutine_threadsafe(read(), self.chat_model._loop)
        answer.add_done_callback(lambda _: pieces.put(None))
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            answer.result()
        finally:
            disconnected.set()


def run_chat(original: Callable[[], None]) -> None:
    """``llamafactory.chat.chat_model.run_chat``: ours for our template, else the host's own with the loaded model."""
    names = original.__globals__
    stock = names["ChatModel"]
    chat_model = stock()
    if is_ours(getattr(chat_model.engine, "template", None)):
        Conversation(chat_model).run()
        return
    names["ChatModel"] = lambda: chat_model
    try:
        original()
    finally:
        names["ChatModel"] = stock


def _path(text: str) -> str:
    """A path as typed: with quotes, backslashes before spaces, or ``~``; bare spaces belong to the path."""
    text = text.strip()
    if not media_exists(text):
        try:
            parts = shlex.split(text)
        except ValueError:
            parts = []
        text = parts[0] if len(parts) == 1 else text
    return os.path.expanduser(text)


def _set_up_readline() -> None:
    try:
        import readline
    except ImportError:
        print("Install `readline` for a better experience.")
        return
    readline.set_completer_delims(" \t\n/:")
    readline.set_completer(lambda text, state: _nth(completions(readline.get_line_buffer(), text), state))
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")


def _nth(items: list[str], number: int) -> str | None:
    return items[number] if number < len(items) else None


def completions(line: str, text: str) -> list[str]:
    """Completions of ``text``, the end of ``line``: names of files, or of commands.

    Folders end with a slash; for images only folders and images are offered.
    """
    path = _TO_COMPLETE.search(line)
    if path is None:
        if not line.startswith("/"):
            return []
        takes_path = ("/video", "/image")
        return [name[1:] + " " * (name in takes_path) for name in COMMANDS if name.startswith(line)]
    folder, begun = os.path.split(path.group(1))
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            names = [(entry.name, _is_folder(entry)) for entry in entries]
    except OSError:
        return []
    images_only = "image" in line[: path.start(1)].rpartition("<")[2]
    return sorted(
        text + name[len(begun) :] + ("/" if is_folder else "")
        for name, is_folder in names
        if name.startswith(begun) and (begun.startswith(".") or not name.startswith("."))
        if is_folder or not images_only or is_image_path(name)
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
