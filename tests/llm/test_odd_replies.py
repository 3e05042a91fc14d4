"""Whatever a server sends, the run goes on: odd counts and shapes, large and packed replies, redirects, echoed keys."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from hound_plugin.errors import JudgeError, SettingsError
from hound_plugin.llm.address import check_parameters
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.limits import Outcome
from hound_plugin.llm.openai_client import Endpoint, OpenAIClient
from hound_plugin.llm.prices import Price
from hound_plugin.llm.redaction import Redactor, printable, shortened
from hound_plugin.llm.reparse import reparse
from hound_plugin.llm.replies import decode_body, read_completion, read_row, token_count
from hound_plugin.llm.requests import TRUNCATED, TransientError
from hound_plugin.llm.runner import run_requests
from tests.llm.conftest import FAST, SECRET, FaultServer, make_client, make_requests, open_ledger
from tests.llm.fault_server import grade
from tests.llm.odd_replies import COUNTED_ODDLY, CUT_BY_OTHER_NAMES, ECHOES, NO_COMPLETION, PREFIX, READABLE, ended

ONE = replace(FAST, concurrency=1, attempts=1, tries=1, pilot=0)


def odd(names: Iterable[str]) -> list[str]:
    return [PREFIX + name for name in names]


def ask(server: FaultServer, folder: Path, kinds: list[str], **changes: object) -> tuple[Outcome, list[object]]:
    """Each kind once, in order; the outcome, and the recorded answer or the last failure of each."""
    server.control(script=list(kinds))
    requests = make_requests(len(kinds))
    with open_ledger(folder) as ledger:
        outcome = run_requests(requests, make_client(server, ledger), ledger, replace(ONE, **changes))
        return outcome, [ledger.entry(request.key) or ledger.last_failure(request.key) for request in requests]


def test_token_counts_that_cannot_be_true_are_unknown(server: FaultServer, tmp_path: Path) -> None:
    outcome, found = ask(server, tmp_path, [*odd(COUNTED_ODDLY), "ok"])
    assert outcome.answered == len(COUNTED_ODDLY) + 1
    *uncounted, good = found
    assert {(entry.value, entry.prompt_tokens, entry.completion_tokens) for entry in uncounted} == {(4, None, None)}
    assert (good.prompt_tokens, good.completion_tokens) == (200, 20)
    with open_ledger(tmp_path) as ledger:
        assert ledger.uncounted() == len(COUNTED_ODDLY)
        assert (ledger.totals().prompt_tokens, ledger.totals().completion_tokens) == (200, 20)


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (7, 7), (7.0, 7), (-1, None), (10**30, None), (float("inf"), None), (float("nan"), None), ("7", None),
     (False, None), ([], None), (None, None), (1.5, None)],
)  # fmt: skip
def test_a_number_of_tokens(value: object, count: int | None) -> None:
    assert token_count(value) == count


def test_max_cost_counts_answers_without_token_counts(server: FaultServer, tmp_path: Path) -> None:
    limits = replace(FAST, max_cost=5.0, price=Price(input=1000, output=1000), output_tokens=300)
    server.control(share=1.0, kinds=odd(["no usage"]))
    with open_ledger(tmp_path) as ledger:
        outcome = run_requests(make_requests(100), make_client(server, ledger), ledger, limits)
    assert "max_cost 5 reached" in outcome.stopped
    assert 2 <= outcome.answered <= 8  # each is estimated at about 0.9
    with open_ledger(tmp_path) as ledger:  # a restart knows of them
        assert run_requests(make_requests(100), make_client(server, ledger), ledger, limits).sent <= 1


def test_answers_of_other_shapes_are_read(server: FaultServer, tmp_path: Path) -> None:
    outcome, found = ask(server, tmp_path, odd(READABLE))
    assert {kind: entry.value for kind, entry in zip(READABLE, found, strict=True)} == {
        kind: score for kind, (_, score) in READABLE.items()
    }
    assert outcome.answered == len(READABLE)


def test_what_is_no_completion_is_a_failed_request(server: FaultServer, tmp_path: Path) -> None:
    outcome, found = ask(server, tmp_path / "once", odd(NO_COMPLETION))
    assert (outcome.failed, outcome.answered, outcome.missing) == (len(NO_COMPLETION), 0, 0)
    for kind, failure in zip(NO_COMPLETION, found, strict=True):
        assert isinstance(failure, tuple), kind
        assert failure[0] == "malformed", kind
        assert 10 < len(failure[1]) < 600, kind
    outcome, _ = ask(server, tmp_path / "again", odd(NO_COMPLETION), tries=99, backoff=0.001, longest_wait=0.002)
    assert (outcome.answered, outcome.sent) == (len(NO_COMPLETION), 2 * len(NO_COMPLETION))


@pytest.mark.parametrize(
    "row",
    [{}, {"response": "x"}, {"response": [1]}, {"response": {"status_code": 200, "body": "x"}},
     {"response": {"status_code": 200, "body": {"choices": [1]}}}, {"response": {"status_code": [1], "body": {}}},
     {"response": {"status_code": 500, "body": [1]}}, {"response": {"status_code": 500, "body": {"error": "x"}}},
     {"response": None, "error": "x"}, {"response": None, "error": {"message": {"a": 1}}}, [], "x", None],
)  # fmt: skip
def test_a_row_of_a_batch_of_any_shape(row: object) -> None:
    assert isinstance(read_row(row, Redactor(SECRET), "m"), TransientError)


def test_large_and_packed_replies(server: FaultServer, tmp_path: Path) -> None:
    kinds = ["gzip", "deflate", "large", "gzip-bomb", "gzip-damaged", "brotli", "ok"]
    tracemalloc.start()
    _, found = ask(server, tmp_path, kinds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [getattr(found[place], "value", None) for place in (0, 1, 6)] == [4, 4, grade(6)]
    large, bomb, damaged, brotli = found[2:6]
    assert "more than 4 MiB" in large[1]
    assert "more than 4 MiB" in bomb[1]
    assert "cannot be decompressed" in damaged[1]
    assert "compressed with 'br'" in brotli[1]
    assert peak < 25 * 2**20, "nothing near the 50 MB that the bomb unpacks to"


@pytest.mark.parametrize("place", ["http://localhost:{port}/v1/chat/completions", "https://127.0.0.1:{port}/v1/",
                                   "/v1/elsewhere", "http://user:word@other.test/v1"])  # fmt: skip
def test_redirects_are_refused_by_name(server: FaultServer, tmp_path: Path, place: str) -> None:
    where = place.format(port=server.url.rpartition(":")[2])
    server.control(share=1.0, kinds=["redirect"], location=where)
    with open_ledger(tmp_path) as ledger, pytest.raises(JudgeError, match="redirects to") as caught:
        run_requests(make_requests(30), make_client(server, ledger), ledger, ONE)
    assert f"{server.base_url}/chat/completions redirects to {where}" in str(caught.value)
    assert "set `base_url`" in str(caught.value)
    assert server.stats()["counts"]["requests"] == 1


async def _shutdown_date(client: OpenAIClient) -> str | None:
    try:
        return await client.shutdown_date()
    finally:
        await client.close()


def test_a_key_that_is_echoed_reaches_no_file(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpcore", "httpcore2"):  # these trace whole headers for whoever asks for it
        caplog.set_level(logging.INFO, name)
    said: list[str] = []
    server.control(script=list(ECHOES), models={"tiny": {"deprecation": f"on {SECRET}"}})
    with open_ledger(tmp_path) as ledger:
        client = make_client(server, ledger)
        outcome = run_requests(make_requests(len(ECHOES)), client, ledger, ONE, said.append)
        assert asyncio.run(_shutdown_date(client)) == "on [key]"
        entries = [ledger.entry(request.key) for request in make_requests(len(ECHOES))]
        failures = [ledger.last_failure(request.key) for request in make_requests(len(ECHOES))]
    assert entries[0].raw == "The key is [key].\nSCORE: 4"  # type: ignore[union-attr]
    assert entries[0].value == 4  # type: ignore[union-attr]
    assert sum("[key]" in str(found) for found in (*entries, *failures, *outcome.warnings)) >= len(ECHOES) - 1
    for text in (*map(str, (*said, *entries, *failures, *outcome.warnings)), caplog.text):
        assert SECRET not in text
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()


def test_no_half_of_a_key_is_shown() -> None:
    key = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
    with pytest.raises(TransientError) as found:
        decode_body(key.encode() * 7, Redactor(key))
    assert "012" not in str(found.value)


def test_a_placeholder_for_a_key_bends_no_answer() -> None:
    assert Redactor("EMPTY").text("The room is EMPTY.") == "The room is EMPTY."
    assert Redactor("none").value({"none": ["none"]}) == {"none": ["none"]}
    found = Redactor(SECRET, SECRET + "x").value({f"a{SECRET}": [f"{SECRET}x", {"b": SECRET}], "n": 1})
    assert found == {"a[key]": ["[key]", {"b": "[key]"}], "n": 1}
    assert "key-value stores" in Redactor(SECRET).text("about key-value stores")


def test_texts_for_people_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\n\u202ec") == "a\\x1b[2Jb\\n\\u202ec"
    assert printable("评分 é") == "评分 é"
    long = shortened("begin " + "x" * 1000 + "\nSCORE: end")
    assert len(long) < 300
    assert long.startswith("begin")
    assert long.endswith("\\nSCORE: end")


def test_a_long_retry_after_is_capped_and_said_once(server: FaultServer, tmp_path: Path) -> None:
    said: list[str] = []
    server.control(script=["429-after"] * 3, retry_after="1e9")
    limits = replace(FAST, longest_retry_after=0.2)
    started = time.monotonic()
    with open_ledger(tmp_path) as ledger:
        outcome = run_requests(make_requests(3), make_client(server, ledger), ledger, limits, said.append)
    assert outcome.answered == 3
    assert 0.2 <= time.monotonic() - started < 5
    assert [line for line in said if "Retry-After" in line] == [
        "warning: the server asks to wait 1000000000 s (Retry-After); waiting 0.2 s at most"
    ]


@pytest.mark.parametrize(
    "url",
    ["http://user:word@host/v1", "https://word@host/v1", "host/v1", "ftp://host", "http://", "http://host/v1?key=word",
     "http://host/v1#word", "http://host:word/v1", "http://host/v1?api-version=1&token=word"],
)  # fmt: skip
def test_an_address_holds_nothing_secret(url: str) -> None:
    with pytest.raises(SettingsError, match="base_url: expected http") as caught:
        Endpoint("m", base_url=url)
    assert "word" not in str(caught.value).replace("password", "")


def test_an_address_may_name_a_version() -> None:
    url = "https://host.azure.com/openai/v1?api-version=preview"
    assert Endpoint("m", base_url=url).url == url


def test_why_an_answer_is_missing_is_kept(server: FaultServer, tmp_path: Path) -> None:
    server.control(share=1.0, kinds=["say"], text="SCORE: 4/10")
    (request,) = make_requests(1)
    with open_ledger(tmp_path) as ledger:
        run_requests([request], make_client(server, ledger), ledger, FAST)
        entry = ledger.entry(request.key)
    assert entry is not None
    assert (entry.status, entry.raw) == ("unparsed", "SCORE: 4/10")
    assert json.loads(entry.detail)["why"] == "'4/10' is on another scale than 1 to 5"


def test_what_an_older_version_could_not_read_is_read_again(server: FaultServer, tmp_path: Path) -> None:
    """A ledger with the replies of a version that read less: nothing is paid for again, and nothing there changes."""
    texts = ["**SCORE: 5**", "Score: 4/5", "I cannot say.", "SCORE: 2"]
    requests = make_requests(len(texts))
    with open_ledger(tmp_path) as ledger:
        for request, text in zip(requests, texts, strict=True):
            ledger.record(Entry(request.key, 2, "unparsed", None, text, "m", "f", "{}", 7, 3), release=True).result()
        prompt = make_client(server, ledger).prompt
        ledger.claim(requests[3].key, 9).result()
        with open_ledger(tmp_path) as other:
            assert reparse(requests, other, prompt, 9) == 2, "the fourth is in another run's hands"
        entries = [ledger.entry(request.key) for request in requests]
        assert [entry.value for entry in entries if entry] == [5, 4, None, None]
        assert ledger.count("SELECT COUNT(*) FROM answers WHERE status = 'unparsed'") == 4
        assert (ledger.totals().prompt_tokens, ledger.uncounted()) == (28, 0)
        assert reparse(requests[:3], ledger, prompt, 9) == 0
        assert run_requests(requests[:2], make_client(server, ledger), ledger, FAST).sent == 0


def test_replies_that_are_cut_by_other_names_are_cut(server: FaultServer, tmp_path: Path) -> None:
    outcome, found = ask(server, tmp_path, odd(CUT_BY_OTHER_NAMES))
    assert (outcome.answered, outcome.missing) == (0, len(CUT_BY_OTHER_NAMES))
    assert {(entry.status, entry.value) for entry in found} == {(TRUNCATED, None)}


@pytest.mark.parametrize(
    ("reason", "finish"),
    [(None, "stop"), ("", "stop"), ("eos", "stop"), ("end_turn", "stop"), ("STOP", "stop"), ("tool-calls", "stop"),
     ("max_output_tokens", "length"), ("Length", "length"), ("SAFETY", "content_filter"),
     ("content-filter", "content_filter")],
)  # fmt: skip
def test_reasons_of_other_services(reason: object, finish: str) -> None:
    assert read_completion(json.loads(ended(reason)), Redactor("sk-1")).finish == finish


@pytest.mark.parametrize(
    ("usage", "written"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 8, "total_tokens": 700}, 610),
        ({"prompt_tokens": 90, "completion_tokens": 8, "total_tokens": 98}, 8),
        ({"prompt_tokens": 90, "completion_tokens": 8, "total_tokens": 50}, 8),
        ({"prompt_tokens": 90, "completion_tokens": 8, "total_tokens": 1e999}, 8),
        ({"prompt_tokens": 90, "completion_tokens": 8}, 8),
        ({"completion_tokens": 8, "total_tokens": 700}, 8),
        ({"prompt_tokens": 90, "total_tokens": 700}, None),
    ],
)
def test_tokens_of_reasoning_that_only_the_total_has_are_counted(usage: dict[str, float], written: int | None) -> None:
    row = {**json.loads(ended("stop")), "usage": usage}
    assert read_completion(row, Redactor("sk-1")).completion_tokens == written


@pytest.mark.parametrize("parameters", [{"n": 3}, {"best_of": 2}, {"stream": True}, {"n": "2"}])
def test_parameters_that_ask_for_several_replies_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="each request gets one whole reply"):
        check_parameters(parameters)
    assert check_parameters({"n": 1, "stream": False}) == {"n": 1, "stream": False}
