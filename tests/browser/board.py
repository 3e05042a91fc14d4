"""The host's web pages as a user sees them: fields by their labels, buttons by their texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from hound_plugin.host.models import MODELS

MODEL = "LLaVA-Hound-7B-SFT"
PATIENCE = int(os.environ.get("HOUND_PATIENCE", "300")) * 1000
"""Milliseconds (the variable: seconds) that a training or a loading may take; it needs about 30 000 on a slow core."""
STEP = 60_000
"""Milliseconds that the page may take to answer a click."""
WATCH = (Path(__file__).parent / "watch.js").read_text()
"""Runs in the page before anything else; ``houndSettled()`` resolves when the server owes the page nothing more."""


class Board:
    """One open page. Everything waits for what a user would wait for; nothing sleeps."""

    def __init__(self, page: Page, url: str) -> None:
        """Open ``url`` and wait until its labels are there, which the server fills in."""
        self.page = page
        page.set_default_timeout(STEP)
        expect.set_options(timeout=STEP)
        page.add_init_script(WATCH)
        page.goto(url)
        self.field("Language").wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until every event that the page sent is answered, and so are those that the answers set off.

        The server fills in fields and closes lists as a consequence of such events. Once there are none under way,
        nothing but the test changes the page.
        """
        self.page.evaluate("() => window.houndSettled()")

    def reload(self) -> None:
        """Open the page anew."""
        self.page.reload()
        self.field("Language").wait_for()
        self.settle()

    def field(self, label: str) -> Locator:
        """The visible component with this label."""
        info = self.page.locator("[data-testid=block-info]", has_text=re.compile(rf"^\s*{re.escape(label)}\s*$"))
        return self.page.locator(".block:not(:has(.block))").filter(has=info).filter(visible=True)

    def button(self, name: str) -> Locator:
        """The visible button with this text."""
        return self.page.get_by_role("button", name=name, exact=True).filter(visible=True)

    def tab(self, name: str) -> None:
        """Open a tab."""
        self.page.get_by_role("tab", name=name, exact=True).filter(visible=True).click()
        self.settle()

    def press(self, name: str) -> None:
        """Click a button and wait for all that follows; for what goes on for long, click :meth:`button`."""
        self.button(name).click()
        self.settle()

    def fill(self, label: str, value: str) -> None:
        """Type into a text field, or into the number beside a slider."""
        box = self.field(label).locator("textarea, input:not([type=range])").first
        box.fill(value)
        box.blur()
        self.settle()
        expect(box).to_have_value(value)

    def value(self, label: str) -> str:
        """What a text field, slider or single choice holds."""
        return self.field(label).locator("textarea, input:not([type=range])").first.input_value()

    def options(self, label: str, typed: str = "") -> list[str]:
        """The choices that a list offers after typing ``typed``; it is closed again."""
        box = self._open(label, typed)
        found = self.page.locator("ul[role=listbox] li").evaluate_all(
            "items => items.map(item => item.getAttribute('aria-label'))"
        )
        box.fill("")
        box.press("Escape")
        self.settle()
        return found

    def choose(self, label: str, value: str) -> None:
        """Choose one of a list."""
        self._take(label, value)
        expect(self.field(label).locator("input")).to_have_value(value)

    def pick(self, label: str, values: Iterable[str]) -> None:
        """Choose several of a list, which stays open: opened once more, the host empties the field."""
        field = self.field(label)
        chosen = list(values)
        for number, value in enumerate(chosen):
            if number:
                field.locator("input").fill(value)
            else:
                self._open(label, value)
            self.page.locator(f"ul[role=listbox] li[aria-label='{value}']").click()
            self.settle()
        if chosen:
            field.locator("input").blur()  # not by a key, which would focus it once more
            self.settle()
        for value in chosen:
            expect(field.locator(".token", has_text=value)).to_be_visible()

    def _open(self, label: str, typed: str) -> Locator:
        """Open a list and type into it, when the server has renewed its choices."""
        box = self.field(label).locator("input")
        box.blur()
        box.click()
        self.settle()
        box.fill(typed)
        self.page.locator("ul[role=listbox] li").first.wait_for()
        return box

    def _take(self, label: str, value: str) -> None:
        """Click one choice of a list."""
        self._open(label, value)
        self.page.locator(f"ul[role=listbox] li[aria-label='{value}']").click()
        self.settle()

    def use(self, model_path: Path | str, *, adapters: Iterable[str] = ()) -> None:
        """Choose our model by its name, with the weights of ``model_path`` and, if any, adapters trained before."""
        self.choose("Model name", MODEL)
        # the server has filled in the address, or the path last used
        filled = re.compile(rf"^({re.escape(MODELS[MODEL])}|{re.escape(str(model_path))})$")
        expect(self.field("Model path").locator("textarea")).to_have_value(filled)
        expect(self.field("Chat template").locator("input")).to_have_value("llava_hound")
        self.fill("Model path", str(model_path))
        self.pick("Checkpoint path", adapters)

    def train(self, stage: str, dataset: str, output: str, extra: str, **fields: Any) -> None:
        """Fill in a training in single precision, and start it."""
        self.choose("Stage", stage)
        self.pick("Dataset", [dataset])
        self.choose("Compute type", "fp32")
        self.set_output(output)
        for label, value in fields.items():
            self.fill(label.replace("_", " "), str(value))
        self.page.get_by_text("Extra configurations").click()
        self.fill("Extra arguments", extra)
        self.button("Start").click()

    def set_output(self, name: str) -> None:
        """Name the output folder, new or one of the list."""
        box = self.field("Output dir").locator("input")
        box.click()
        self.settle()
        box.fill(name)
        box.press("Enter")
        box.blur()
        self.settle()
        expect(box).to_have_value(name)

    def text(self, text: str | re.Pattern[str], patience: int = PATIENCE) -> Locator:
        """Wait until the page shows ``text``."""
        found = self.page.get_by_text(text).filter(visible=True).first
        found.wait_for(timeout=patience)
        return found

    def status(self, text: str) -> None:
        """Wait until a status line, which is a text field that cannot be edited, says ``text``."""
        self.page.wait_for_function(
            "text => [...document.querySelectorAll('textarea, input')]"
            ".some(box => box.offsetParent && box.value.includes(text))",
            arg=text,
            timeout=PATIENCE,
        )

    def plot(self) -> str | None:
        """The loss plot as its data address, or None before the first."""
        image = self.page.locator("[data-testid=matplotlib] img").filter(visible=True)
        return image.first.get_attribute("src") if image.count() else None

    def new_plot(self, old: str | None) -> str:
        """Wait until the loss plot differs from ``old``."""
        self.page.wait_for_function(
            "old => { const i = document.querySelector('[data-testid=matplotlib] img'); return i && i.src !== old; }",
            arg=old,
            timeout=PATIENCE,
        )
        found = self.plot()
        assert found
        return found

    def short_and_likely(self, tokens: int) -> None:
        """The most probable answer, of at most ``tokens`` tokens."""
        self.fill("Maximum new tokens", str(tokens))
        self.fill("Top-p", "0.01")
        self.fill("Temperature", "0.01")

    def upload(self, kind: str, path: Path) -> None:
        """Attach a file in the tab ``Image`` or ``Video`` of the chat."""
        self.tab(kind)
        shown = self.page.locator("video" if kind == "Video" else "[data-testid=image] img").filter(visible=True)
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_text("Click to Upload").filter(visible=True).first.click()
        chooser.value.set_files(path)
        shown.wait_for()
        self.settle()

    def ask(self, question: str) -> str:
        """Send a question, and wait for the whole answer."""
        answers = self.page.locator("[data-testid=bot]")
        before = answers.count()
        self.page.locator("textarea[placeholder='Input...']").filter(visible=True).fill(question)
        self.settle()
        self.press("Submit")
        expect(answers).to_have_count(before + 1)
        return answers.last.inner_text().strip()

    def clear_media(self) -> None:
        """Take the attached file away."""
        media = self.page.locator("video, [data-testid=image] img").filter(visible=True)
        block = self.page.locator(".block:not(:has(.block))").filter(has=media).filter(visible=True)
        block.get_by_role("button", name="Clear", exact=True).click()
        media.wait_for(state="detached")
        self.settle()
