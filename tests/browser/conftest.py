"""The host's web pages, served by real child processes and driven by a real Chromium.

Without Chromium (or its driver) these tests are skipped, unless ``HOUND_REQUIRE_BROWSER=1``: then they fail.
``HOUND_CHROMIUM`` names another executable than the one on the path.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.goldens import rows
from tests.host.hosting import REPO, environment, media_folder, write_dataset

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and HERE in Path(item.fspath).parents:
        _photograph(item, report)
    return report


def _photograph(item: pytest.Item, report: Any) -> None:
    """What the browser showed when a test failed: a picture in the test's folder, named in the report."""
    for value in getattr(item, "funcargs", {}).values():
        page = getattr(value, "page", None)
        if page is not None:
            folder = Path(os.environ.get("HOUND_SCREENSHOTS", item.funcargs["site"].folder))
            picture = folder / f"{item.name}-{report.when}.png"
            page.screenshot(path=picture, full_page=True)
            report.sections.append(("screenshot", str(picture)))


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A browser, driven by playwright, whose event loop stays in this thread until it ends: not for tests elsewhere."""
    program = os.environ.get("HOUND_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if program is None or sync_playwright is None:
        lacks = "the package `playwright`" if program else "Chromium (Debian: apt-get install chromium)"
        if os.environ.get("HOUND_REQUIRE_BROWSER") == "1":
            pytest.fail(f"HOUND_REQUIRE_BROWSER=1, but there is no browser: {lacks} is missing.")
        pytest.skip(f"no browser: {lacks} is missing")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class Site:
    """A web page of the host's in a folder of its own, with data sets and clips.

    Attributes:
        folder: where the server works; holds ``data/`` (with the media) and ``saves/``.
        url: where its page is.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        """Start ``llamafactory-cli ARGUMENTS`` in ``folder`` and wait until it answers."""
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        extra = {
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_ANALYTICS_ENABLED": "0",
            "GRADIO_TEMP_DIR": str(folder / "uploads"),
            "PYTHONPATH": f"{REPO}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"),  # the server works elsewhere
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("llamafactory-cli")), *arguments],
                cwd=folder,
                env=environment(folder, **extra),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait(time.monotonic() + 300)

    def _wait(self, until: float) -> None:
        while time.monotonic() < until and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=10).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
        self.stop()
        raise AssertionError(f"the server did not answer:\n{self.output()}")

    def output(self) -> str:
        """The end of what the server wrote."""
        return self.log.read_text(errors="replace")[-6000:]

    def stop(self) -> None:
        """End the server and what it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(30)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """``serve(*arguments)`` starts a server of the host's; it ends with the module."""
    started: list[Site] = []

    def start(*arguments: str) -> Site:
        folder = tmp_path_factory.mktemp("site")
        media_folder(folder / "data")
        write_dataset(folder / "data", "sft", rows("sft.jsonl"))
        write_dataset(folder / "data", "dpo", rows("dpo.jsonl"), ranking=True)
        started.append(Site(folder, *arguments))
        return started[-1]

    yield start
    for site in started:
        site.stop()


@pytest.fixture
def board(chromium: Any, site: Site) -> Iterator[Any]:
    """The site's page in a new window."""
    from tests.browser.board import Board

    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    try:
        opened = Board(page, site.url)
    except Exception:
        page.screenshot(path=Path(os.environ.get("HOUND_SCREENSHOTS", site.folder)) / "opening.png")
        raise
    yield opened
    page.close()
