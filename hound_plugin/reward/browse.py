"""A page that shows pairs beside their clips, where bad ones can be dropped. The data is never edited: exclusions are
appended to a list.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError, MediaError
from hound_plugin.records.files import append_rows
from hound_plugin.records.frame_order import list_frames
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.media_paths import cut_part, is_image_path
from hound_plugin.records.questions import media_files
from hound_plugin.records.run_folders import locked
from hound_plugin.reward.run_folder import EXCLUDED, Row, excluded_ids
from hound_plugin.reward.run_setup import read_run_questions
from hound_plugin.reward.settings import RewardSettings


@dataclass(frozen=True)
class Filter:
    """What is shown: the chosen answer's score from ``low`` to ``high`` (a reference has none and is always shown),
    a gap of at least ``gap``, and answers of at most ``words`` words."""

    low: float = 1.0
    high: float = 5.0
    gap: float = 0.0
    words: int = 10_000
    dropped: bool = False

    def keeps(self, pair: Row) -> bool:
        """Whether the pair is shown."""
        score, other = pair.get("chosen_score"), pair.get("rejected_score") or 0.0
        if score is not None and (not self.low <= score <= self.high or score - other < self.gap):
            return False
        return max(len(pair["chosen"].split()), len(pair["rejected"].split())) <= self.words


class Browser:
    """The pairs of a run folder with their clips, and which were dropped by hand."""

    def __init__(self, settings: RewardSettings) -> None:
        """Read the pairs.

        Raises:
            DataError: there are none.
        """
        self.folder = Path(settings.folder)
        pair_file = self.folder / "pairs" / f"{settings.pairs.name}.jsonl"
        self.pairs = list(read_objects(pair_file))
        if not self.pairs:
            raise DataError(f"{pair_file}: there are no pairs to show. Run `hound reward pairs` first.")
        questions = read_run_questions(settings.changed(limit=None))
        self.clips = {question.id: media_files(question.paths) for question in questions}

    def shown(self, chosen: Filter) -> list[Row]:
        """Pairs that a filter keeps; dropped ones only if it asks for them."""
        excluded = excluded_ids(self.folder)
        return [pair for pair in self.pairs if (pair["id"] in excluded) == chosen.dropped and chosen.keeps(pair)]

    def mark(self, pair: str, excluded: bool) -> None:
        """Drop a pair, or take it back; appends a row."""
        with locked(self.folder, "excluded"):
            append_rows(self.folder / EXCLUDED, [{"id": pair, "excluded": excluded, "time": round(time.time())}])

    def clip(self, pair: Row) -> tuple[str | None, list[str]]:
        """A video file to play (all of it, even if the question is about a part), or images to show.

        Raises:
            MediaError: a folder has no frames, or their names do not define an order.
        """
        files = self.clips.get(pair["question_id"], [])
        if len(files) == 1 and os.path.isdir(files[0]):
            files = list_frames(files[0])
        images = [file for file in files if is_image_path(file)]
        return (None, images) if images else (next((cut_part(file)[0] for file in files), None), [])

    def folders(self) -> list[str]:
        """Folders that the page may serve clips from."""
        return sorted({str(Path(file).resolve().parent) for files in self.clips.values() for file in files})


def make_page(browser: Browser) -> Any:
    """The Gradio page."""
    import gradio as gr

    def show(position: float, *values: Any) -> list[Any]:
        pairs = browser.shown(Filter(*values))
        if not pairs:
            return [0, "nothing to show", None, [], "", "", "", ""]
        position = int(position) % len(pairs)
        pair = pairs[position]
        note = ""
        try:
            video, images = browser.clip(pair)
        except MediaError as error:
            video, images, note = None, [], f" {error}"
        scores = [f"score {pair[f'{side}_score']}" for side in ("chosen", "rejected")]
        head = f"{position + 1} of {len(pairs)}: {pair['id']} ({', '.join(scores)}){note}"
        return [position, head, video, images, pair["prompt"], pair["chosen"], pair["rejected"], pair["id"]]

    def turn(step: int) -> Any:
        return lambda position, *values: show(position + step, *values)

    def mark(excluded: bool) -> Any:
        def work(position: float, name: str, *values: Any) -> list[Any]:
            if name:
                browser.mark(name, excluded)
            return show(position, *values)

        return work

    with gr.Blocks(title="hound: pairs", analytics_enabled=False) as page:
        position, name = gr.Number(0, visible=False), gr.Textbox(visible=False)
        with gr.Row():
            low = gr.Slider(1, 5, 1, step=0.5, label="chosen score from")
            high = gr.Slider(1, 5, 5, step=0.5, label="chosen score to")
            gap = gr.Slider(0, 4, 0, step=0.5, label="gap at least")
            words = gr.Number(10_000, precision=0, label="words at most")
            dropped = gr.Checkbox(False, label="show dropped pairs")
        head = gr.Markdown()
        with gr.Row():
            video, images = gr.Video(label="clip", height=320), gr.Gallery(label="frames", height=320)
        question = gr.Textbox(label="question", interactive=False)
        with gr.Row():
            good = gr.Textbox(label="chosen", lines=6, interactive=False)
            bad = gr.Textbox(label="rejected", lines=6, interactive=False)
        filters: list[Any] = [low, high, gap, words, dropped]
        outputs = [position, head, video, images, question, good, bad, name]
        with gr.Row():
            for label, work, inputs in (
                ("back", turn(-1), [position, *filters]),
                ("next", turn(1), [position, *filters]),
                ("drop", mark(True), [position, name, *filters]),
                ("take back", mark(False), [position, name, *filters]),
            ):
                gr.Button(label).click(work, inputs, outputs, api_name=label.replace(" ", "_"))
        for control in filters:
            control.change(show, [position, *filters], outputs)
        page.load(show, [position, *filters], outputs, api_name="show")
    return page


def open_page(settings: RewardSettings, port: int) -> None:
    """Serve the page on this machine until Ctrl-C."""
    browser = Browser(settings)
    page = make_page(browser)
    page.launch(server_name="127.0.0.1", server_port=port, allowed_paths=browser.folders())
