"""A page to read pairs beside their clips and to drop bad ones. The data stays: a list of exclusions grows."""

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
from hound_plugin.reward.questions import media_files
from hound_plugin.reward.settings import RewardSettings
from hound_plugin.reward.stages import EXCLUDED, excluded_ids, read_run_questions
from hound_plugin.reward.run_folder import Row, locked


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
    """Pairs of a run folder with their clips, and what was dropped by hand."""

    def __init__(self, settings: RewardSettings) -> None:
        """Read the pairs.

        Raises:
            DataError: there are none.
        """
        self.folder = Path(settings.folder)
        pair_file = self.folder / "pairs" / f"{settings.pairs.name}.jsonl"
        self.pairs = list(read_objects(pair_file))
        if not self.pairs:
            raise DataError(f"{pair_file}: there are no pairs to read. Run `hound reward pairs` first.")
        questions = read_run_questions(settings.changed(limit=None))
        self.clips = {question.id: media_files(question.paths) for question in questions}

    def shown(self, chosen: Filter) -> list[Row]:
        """Pairs that a filter keeps; dropped ones only if it asks for those."""
        out = excluded_ids(self.folder)
        return [pair for pair in self.pairs if (pair["id"] in out) == chosen.dropped and chosen.keeps(pair)]

    def mark(self, pair: str, excluded: bool) -> None:
        """Drop a pair, or take it back; a line is added, none is changed."""
        with locked(self.folder, "excluded"):
            append_rows(self.folder / EXCLUDED, [{"id": pair, "excluded": excluded, "time": round(time.time())}])

    def clip(self, pair: Row) -> tuple[str | None, list[str]]:
        """A video file to play (the whole of it, where a part is asked about), or images to show.

        Raises:
            MediaError: a folder holds no frame, or the names of its frames do not tell their order.
        """
        files = self.clips.get(pair["question_id"], [])
        if len(files) == 1 and os.path.isdir(files[0]):
            files = list_frames(files[0])
        images = [file for file in files if is_image_path(file)]
        return (None, images) if images else (next((cut_part(file)[0] for file in files), None), [])

    def folders(self) -> list[str]:
        """Folders that the page may read clips from."""
        return sorted({str(Path(file).resolve().parent) for files in self.clips.values() for file in files})


def make_page(browser: Browser) -> Any:
    """The Gradio page."""
    import gradio as gr

    def show(place: float, *values: Any) -> list[Any]:
        found = browser.shown(Filter(*values))
        if not found:
            return [0, "nothing to show", None, [], "", "", "", ""]
        place = int(place) % len(found)
        pair = found[place]
        note = ""
        try:
            video, images = browser.clip(pair)
        except MediaError as error:
            video, images, note = None, [], f" {error}"
        scores = [f"score {pair[f'{side}_score']}" for side in ("chosen", "rejected")]
        head = f"{place + 1} of {len(found)}: {pair['id']} ({', '.join(scores)}){note}"
        return [place, head, video, images, pair["prompt"], pair["chosen"], pair["rejected"], pair["id"]]

    def turn(step: int) -> Any:
        return lambda place, *values: show(place + step, *values)

    def mark(excluded: bool) -> Any:
        def work(place: float, name: str, *values: Any) -> list[Any]:
            if name:
                browser.mark(name, excluded)
            return show(place, *values)

        return work

    with gr.Blocks(title="hound: pairs", analytics_enabled=False) as page:
        place, name = gr.Number(0, visible=False), gr.Textbox(visible=False)
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
        outputs = [place, head, video, images, question, good, bad, name]
        with gr.Row():
            for label, work, inputs in (
                ("back", turn(-1), [place, *filters]),
                ("next", turn(1), [place, *filters]),
                ("drop", mark(True), [place, name, *filters]),
                ("take back", mark(False), [place, name, *filters]),
            ):
                gr.Button(label).click(work, inputs, outputs, api_name=label.replace(" ", "_"))
        for control in filters:
            control.change(show, [place, *filters], outputs)
        page.load(show, [place, *filters], outputs, api_name="show")
    return page


def open_page(settings: RewardSettings, port: int) -> None:
    """Serve the page on this machine until Ctrl-C."""
    browser = Browser(settings)
    page = make_page(browser)
    page.launch(server_name="127.0.0.1", server_port=port, allowed_paths=browser.folders())
