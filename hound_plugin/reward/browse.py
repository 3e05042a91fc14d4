"""A page that shows pairs next to the frames of their clips, where bad ones can be dropped. The data is never edited:
drops are appended to a list.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hound_plugin.errors import DataError
from hound_plugin.pages.frames import FrameReader
from hound_plugin.pages.local_site import serve
from hound_plugin.pages.rendering import render_item, render_page
from hound_plugin.records.files import append_rows
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.media_paths import cut_part, is_image_path
from hound_plugin.records.questions import media_files
from hound_plugin.records.run_folders import locked
from hound_plugin.reward.asked import bind_answers
from hound_plugin.reward.candidates import read_candidates
from hound_plugin.reward.facts import recorded_judges, run_facts
from hound_plugin.reward.page import DROPPED, clip_of, filters_of, pair_item, pair_values
from hound_plugin.reward.run_folder import EXCLUDED, SCORES, Row, excluded_ids
from hound_plugin.reward.run_setup import read_run_questions
from hound_plugin.reward.scoring import latest
from hound_plugin.reward.settings import RewardSettings

VIDEO_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"}
"""Files that a browser may be able to play; frames are shown of any."""


class Browser:
    """The pairs of a run folder with their clips, and which were dropped by hand.

    Attributes:
        folder: the run folder.
        pairs: rows of pairs, in the order of their file.
    """

    def __init__(self, settings: RewardSettings, read: FrameReader) -> None:
        """Read the pairs.

        Args:
            settings: of the run.
            read: reads the frames of a clip.

        Raises:
            DataError: there are none.
        """
        self.folder = Path(settings.folder)
        pair_file = self.folder / "pairs" / f"{settings.pairs.name}.jsonl"
        self.pairs = list(read_objects(pair_file))
        if not self.pairs:
            raise DataError(f"{pair_file}: there are no pairs to show. Run `hound reward pairs` first.")
        self.questions = {question.id: question for question in read_run_questions(settings.changed(limit=None))}
        self.scores = latest(self.folder / SCORES)
        self._settings, self._read = settings, read
        self._places = {path: os.path.realpath(path) for path in map(self._file, range(len(self.pairs))) if path}

    def index(self) -> list[Row]:
        """For each pair its number, its id and what the filters look at."""
        dropped = excluded_ids(self.folder)
        return [
            {"number": number, "id": str(pair["id"]), "values": pair_values(pair, dropped)}
            for number, pair in enumerate(self.pairs)
        ]

    def mark(self, number: int, dropped: bool) -> None:
        """Drop a pair, or take it back; appends a row."""
        with locked(self.folder, "excluded"):
            row = {"id": self.pairs[number]["id"], "excluded": dropped, "time": round(time.time())}
            append_rows(self.folder / EXCLUDED, [row])

    def clip(self, number: int) -> str | None:
        """The video file of a pair that a browser may play (all of it, even if the question is about a part).

        None too if it has become a link to another file since the page was started.
        """
        path = self._file(number)
        if path is None or not os.path.isfile(path):
            return None
        place = os.path.realpath(path)
        return path if self._places.setdefault(path, place) == place else None

    def _file(self, number: int) -> str | None:
        """The file of a pair's clip, if its name is that of a kind that a browser may play."""
        question = self.questions.get(self.pairs[number]["question_id"])
        files = [] if question is None else media_files(question.paths)
        if len(files) != 1 or is_image_path(files[0]):
            return None
        path = cut_part(files[0])[0]
        return path if Path(path).suffix.lower() in VIDEO_TYPES else None

    def pair_html(self, number: int) -> str:
        """One pair as a part of the page."""
        pair = self.pairs[number]
        question = self.questions.get(pair["question_id"])
        strips = {clip_of(question): self._read(None if question is None else question.paths)}
        item = pair_item(pair, self.questions, self.scores, excluded_ids(self.folder), strips)
        video = f"/clip/{number}" if self.clip(number) else ""
        return render_item(item, number + 1, video=video)

    def page(self) -> str:
        """The page itself, without pairs."""
        rows = [row for answers in read_candidates(self.folder).values() for row in answers.values()]
        facts = run_facts(self._settings, recorded_judges(self.scores), rows)
        return render_page(
            "browse.html",
            ("page.js", "browse.js"),
            served=True,
            title="Preference pairs",
            smoke_test=next((pair["smoke_test"] for pair in self.pairs if "smoke_test" in pair), ""),
            run=facts,
            legend=self._read.legend,
            total=len(self.pairs),
            filters=filters_of([row["values"] for row in self.index()]),
        )

    def dropped(self) -> int:
        """How many of these pairs are dropped."""
        return sum(row["values"]["verdict"] == DROPPED for row in self.index())


def make_site(browser: Browser) -> Starlette:
    """The page's site. A clip is named by the number of its pair, so that no other file can be asked for."""

    def number_of(request: Request) -> int:
        number = int(request.path_params["number"])
        if number >= len(browser.pairs):
            raise HTTPException(404, f"there are {len(browser.pairs)} pairs")
        return number

    def page(_: Request) -> Response:
        return HTMLResponse(browser.page())

    def pairs(_: Request) -> Response:
        return JSONResponse(browser.index())

    def pair(request: Request) -> Response:
        return HTMLResponse(browser.pair_html(number_of(request)))

    def clip(request: Request) -> Response:
        path = browser.clip(number_of(request))
        if path is None:
            raise HTTPException(404, "this pair has no video file that a browser plays")
        return FileResponse(path, media_type=VIDEO_TYPES[Path(path).suffix.lower()])

    async def mark(request: Request) -> Response:
        try:
            values: Any = await request.json()
            number, dropped = values["number"], values["dropped"]
        except (ValueError, TypeError, KeyError, RecursionError):
            number, dropped = None, None
        if type(number) is not int or not 0 <= number < len(browser.pairs) or type(dropped) is not bool:
            raise HTTPException(400, "expected the number of a pair, and true or false")
        try:
            await run_in_threadpool(browser.mark, number, dropped)
        except OSError as error:  # the disk is full, for example
            raise HTTPException(500, f"it could not be written: {error}") from error
        return JSONResponse({"dropped": browser.dropped()})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/pairs", pairs),
            Route("/api/pair/{number:int}", pair),
            Route("/clip/{number:int}", clip),
            Route("/api/mark", mark, methods=["POST"]),
        ]
    )


def open_page(settings: RewardSettings, port: int, read: FrameReader, say: Callable[[str], None]) -> None:
    """Serve the page on this machine until Ctrl-C.

    Raises:
        DataError: there are no pairs.
        LedgerError: a question or clip is another one than that which was answered.
        SettingsError: the port is unavailable.
    """
    browser = Browser(settings, read)
    bind_answers(browser.folder, list(browser.questions.values()), say, write=False)
    serve(make_site(browser), port, lambda address: say(f"{len(browser.pairs)} pairs at {address}"))
    say(
        f"{browser.dropped()} of {len(browser.pairs)} pairs are dropped ({browser.folder / EXCLUDED}); "
        "`hound reward pairs` leaves them out"
    )
