"""Fixtures for tests of activation and of the API."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sandbox import RECORDER, Sandbox, write_metadata

if TYPE_CHECKING:
    import openai
    from llamafactory.chat import ChatModel


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    path = tmp_path / "path"
    write_metadata(path)
    (path / "sitecustomize.py").write_text(RECORDER)
    return Sandbox(tmp_path)


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, code: str) -> Path:
        file = tmp_path / name
        file.write_text(textwrap.dedent(code))
        return file

    return write


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which the API may read, and around it what it must not read."""
    from tests.host.serve.api_server import make_media

    return make_media(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="session")
def client(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of ``llamafactory-cli api``; one server for all modules of a worker."""
    from tests.host.serve.api_server import serving

    with serving(tmp_path_factory.mktemp("server"), media) as connection:
        yield connection


@pytest.fixture(scope="session")
def local() -> ChatModel:
    """The server's model with the server's recipe, in this process."""
    from llamafactory.chat import ChatModel

    from tests.host.serve.api_server import ARGUMENTS

    return ChatModel(dict(ARGUMENTS))
