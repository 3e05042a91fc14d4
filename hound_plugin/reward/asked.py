"""Which question and clip the answers of a run are about: compared before a stage uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path

from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.requests import OK, Request
from hound_plugin.llm.sampling_server import PROMPT_ID, sampler_identity, sampling_request
from hound_plugin.records.asked import Asked, bind_asked
from hound_plugin.records.questions import Question
from hound_plugin.reward.candidates import answer_seed, read_candidates
from hound_plugin.reward.run_folder import SAMPLER_LEDGER
from hound_plugin.reward.run_setup import Run
from hound_plugin.reward.settings import SampleSettings


def bind_run(run: Run, *, write: bool = True) -> None:
    """Compare a run's questions with what its answers are about, once, also those that only the sampler's ledger has.

    Raises:
        LedgerError: an answer is about another question or clip.
    """
    if run.is_bound:
        return
    settings = run.settings.sample
    bind_answers(run.folder, run.questions, run.say, set(_in_ledger(run, settings)), write=write)
    run.is_bound = write


def bind_answers(
    folder: Path,
    questions: Sequence[Question],
    say: Callable[[str], None],
    also: Set[str] = frozenset(),
    *,
    write: bool = True,
) -> None:
    """As :func:`bind_run`, for the answers of a folder; ``also``: ids that have answers elsewhere."""
    asked = [Asked(question.id, question.text, question.paths) for question in questions]
    bind_asked(folder, asked, read_candidates(folder).keys() | also, say, "another `folder`", write=write)


def _in_ledger(run: Run, settings: SampleSettings) -> Iterator[str]:
    if settings.backend == "openai" and (run.folder / SAMPLER_LEDGER).is_file():
        with Ledger(run.folder / SAMPLER_LEDGER, PROMPT_ID) as ledger:
            for request in sampling_requests(run.questions, settings, run.settings.seed):
                if (entry := ledger.entry(request.key)) is not None and entry.status == OK:
                    yield request.id


def sampling_requests(questions: Sequence[Question], settings: SampleSettings, run_seed: int) -> Iterator[Request]:
    """One request for each question and answer, in the order of the questions."""
    identity = sampler_identity(settings)
    for question in questions:
        for candidate in range(settings.n):
            seed = answer_seed(run_seed, question.id, candidate)
            where = (question.medium, question.media, question.paths)
            yield sampling_request(identity, question.id, candidate, question.text, *where, seed)
