"""Our own pages in a real Chromium: nothing in a text runs, keys and filters work, and 400 pixels are enough."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hound_plugin.evaluation.items import JUDGED, UNREADABLE, Judgement, Prediction, Question
from hound_plugin.evaluation.page import write_page
from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.pages.frames import FrameReader
from hound_plugin.reward.run_folder import excluded_ids
from tests.media.clips import encode

WIDE, NARROW = (1280, 900), (400, 800)
ATTACKS = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 2'>",
    '"><svg onload="window.ran = 3">',
    "</pre></details></script><iframe srcdoc='<script>parent.ran = 4</script>'></iframe>",
    "<a href='javascript:window.ran = 5'>x</a><style>*{display:none}</style>",
    "<form action='http://evil.example'><button autofocus onfocus='window.ran = 6'>",
    "<meta http-equiv=refresh content='0;url=http://evil.example'><base href='http://evil.example'>",
    "<link rel=stylesheet href='http://evil.example/x.css'><img src='http://evil.example/pixel.png'>",
)
WORDS = ["a", "ring", "moves", "to", "the", "left", "and", "then", "right", "while", "a", "square", "waits"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `hound reward` whose questions, answers, ids, sources and clips' names are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    clips = folder / "clips"
    clips.mkdir()
    encode(str(clips / "0.mp4"), 8, 128, 64)
    questions, answers = [], []
    for number, attack in enumerate(ATTACKS):
        name = f"{number} <b onclick='window.ran = 7'>.mp4"
        (clips / name).write_bytes((clips / "0.mp4").read_bytes() if number else b"clip")
        row = {"id": f"q{number} {attack}", "video": name, "prompt": f"<video>\nWhat? {attack}", "source": attack}
        questions.append({**row, "caption": f"A ring. {attack}", "reference": " ".join(WORDS)})
        for candidate in range(4):
            text = f"{attack} {' '.join(WORDS[: 3 + 4 * candidate])}"
            answers.append({"id": row["id"], "candidate": candidate, "answer": text})
    for name, values in (("questions", questions), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    recipe = {
        "folder": str(folder / "run"), "questions": str(folder / "questions.jsonl"), "media_dir": str(clips),
        "sample": {"backend": "given", "answers": str(folder / "answers.jsonl"), "model": ATTACKS[0]},
        "pairs": {"policy": "all", "near_duplicate": None, "max_pairs": 2},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    hound = [
        sys.executable,
        "-m",
        "hound_plugin.cli",
    ]  # a process of its own: the browser's event loop runs in this one
    subprocess.run([*hound, "reward", "run", str(folder / "recipe.yaml")], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def address(run_folder: Path) -> Iterator[str]:
    """`hound reward browse` as a process of its own."""
    command = [
        sys.executable,
        "-m",
        "hound_plugin.cli",
        "reward",
        "browse",
        str(run_folder / "recipe.yaml"),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "pairs at http://127.0.0.1:" in line
        yield line.split(" at ")[1].split()[0]
        process.terminate()


class Watched:
    """A page whose requests, errors and refusals are noted."""

    def __init__(self, chromium: Any, address: str, size: tuple[int, int] = WIDE) -> None:
        self.context = chromium.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.goto(address)
        self.page.wait_for_selector(".item")
        self.address = address

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def key(self, key: str, expected: str) -> None:
        """Press a key and wait until the place or the confirmation says what is expected."""
        self.page.keyboard.press(key)
        self.page.wait_for_function(
            "text => (document.getElementById('place').textContent + ' | '"
            " + (document.getElementById('toast')?.textContent ?? '')).includes(text)",
            arg=expected,
        )

    def check(self) -> None:
        """Nothing ran, nothing was asked for elsewhere, nothing is wider than the window."""
        assert self.page.evaluate("window.ran") is None
        assert self.errors == []
        assert self.page.url.split("#")[0] == self.address
        here = self.address.rsplit("/", 1)[0] if self.address.startswith("http") else self.address
        assert [url for url in self.asked if not url.startswith((here, "data:"))] == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert self.page.evaluate("[...document.querySelectorAll('h3, .text')].every(one => one.children.length === "
                                  "one.querySelectorAll('mark, span.place, span.stamp').length)")  # fmt: skip

    def close(self) -> None:
        self.context.close()


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_report(chromium: Any, run_folder: Path, size: tuple[int, int]) -> None:
    watched = Watched(chromium, f"file://{run_folder}/run/report/report.html", size)
    page = watched.page
    total = page.locator(".item").count()
    assert watched.text("#place") == f"{total} pairs"
    for selector in (".frames img", ".chart", ".answer.good mark", "details.raw"):
        assert page.locator(selector).count(), selector
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    watched.key("j", f"1 of {total}")
    watched.key("j", f"2 of {total}")
    watched.key("k", f"1 of {total}")
    page.locator(".filters summary").click()
    page.locator("select[data-filter=source]").select_option(index=1)
    shown = page.locator(".item:visible").count()
    assert 0 < shown < total
    assert watched.text("#place").startswith(f"{shown} shown" if shown else "1 of") or "of" in watched.text("#place")
    page.locator("[data-filter=words]").fill("0")
    assert page.locator(".item:visible").count() == 0
    assert page.locator("#none").is_visible()
    page.locator("[data-do=reset]").click()
    assert page.locator(".item:visible").count() == total
    watched.check()
    watched.close()


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_browsing(chromium: Any, address: str, run_folder: Path, size: tuple[int, int]) -> None:
    watched = Watched(chromium, address, size)
    page = watched.page
    total = int(watched.text("#place").split(",")[0].split()[-1])
    assert watched.text("#place") == f"pair 1 of {total}, 0 dropped"
    watched.key("j", f"pair 2 of {total}")
    name = page.locator("#stage").get_attribute("data-pair")
    watched.key("d", f"Dropped {name}.")
    assert watched.text("#place") == f"pair 2 of {total}, 1 dropped"
    assert page.locator("#stage").get_attribute("data-pair") == name, "it stays until one goes on"
    assert excluded_ids(run_folder / "run") == {name}
    page.locator("#dropped-list summary").click()
    assert page.locator("#dropped-ids button").all_inner_texts() == [name]
    watched.key("n", f"pair 3 of {total}")
    watched.key("d", "2 dropped")
    watched.key("u", "1 dropped")
    watched.key("u", f"Undone: {name} is kept.")
    assert excluded_ids(run_folder / "run") == frozenset()
    assert page.locator("#stage").get_attribute("data-pair") == name, "where it was undone"
    page.locator("details.raw summary", has_text="play the clip").click()
    page.locator("video").evaluate("one => { one.load(); }")
    for _ in range(total):
        page.keyboard.press("j")
    watched.key("j", "This was the last pair")
    assert page.locator(".answer").count() == 2
    watched.check()
    watched.close()


def test_the_server_is_gone(chromium: Any, address: str) -> None:
    watched = Watched(chromium, address)
    watched.page.route("**/api/mark", lambda route: route.abort())
    watched.key("d", "Nothing was changed")
    assert "0 dropped" in watched.text("#place")
    watched.close()


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_page_of_an_evaluation(chromium: Any, run_folder: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    clip = str(run_folder / "clips" / "0.mp4")
    encode(str(tmp_path / "good.mp4"), 8, 64, 48)
    questions, predictions, judgements = [], {}, {}
    for number, attack in enumerate(ATTACKS * 2):
        name = f"{number} {attack}"
        media = str(tmp_path / "good.mp4") if number % 3 else clip
        questions.append(Question(name, f"set {number % 2} {attack}", media, (media,), "", attack, attack, attack))
        predictions[name] = Prediction(name, attack)
        status = JUDGED if number % 4 else UNREADABLE
        correct = None if status == UNREADABLE else number % 2 == 0
        judgements[name] = Judgement(name, status, correct, None if correct is None else 2.0, attack, attack)
    meta = {"model": ATTACKS[0], "judge": {"model": ATTACKS[1]}, "suite_info": {"title": ATTACKS[2]}}
    run = EvaluationRun(Path(f"runs/{ATTACKS[1].replace('/', '')}/x"), meta, questions, predictions, judgements)
    watched = Watched(chromium, f"file://{write_page(run, tmp_path, FrameReader(8))}", size)
    page = watched.page
    verdicts = page.locator(".item").evaluate_all("items => items.map(one => one.dataset.verdict)")
    assert verdicts == sorted(verdicts, key=["wrong", "unreadable", "correct"].index)
    page.locator(".filters summary").click()
    page.locator("select[data-filter=verdict]").select_option("unreadable")
    visible = page.locator(".item:visible")
    assert visible.count() == verdicts.count("unreadable")
    page.keyboard.press("Escape")
    page.locator("[data-do=next]").click()
    assert watched.text("#place").startswith(f"1 of {visible.count()}")
    assert page.locator(".item:visible .frames img").count() > 0, "clips whose first item is hidden have frames too"
    watched.check()
    watched.close()
