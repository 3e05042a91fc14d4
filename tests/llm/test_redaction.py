"""Keys in what servers send: whose ever they are, and however they are written, no file and no page has them."""

from __future__ import annotations

import base64
import html
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hound_plugin.llm.redaction import LONGEST_RAW, Redactor, cut
from hound_plugin.llm.runner import run_requests
from tests.llm.conftest import FAST, FaultServer, make_client, make_requests, open_ledger

KEY = "sk-proj/9aB+c2dE=f4Gh&6iJ<8kL-mN0p"
OTHER = "judge-word-from-another-variable-77"
FORMS = {
    "as it is": KEY,
    "in capitals": KEY.upper(),
    "in an address": quote(KEY, safe=""),
    "on a page": html.escape(KEY),
    "in JSON": json.dumps({"key": KEY}),
    "as a header": f"Authorization: Bearer {KEY}",
    "wrapped": "\n  ".join(KEY[start : start + 10] for start in range(0, len(KEY), 10)),
    "spelt": " ".join(KEY),
    "with signs of no width": "\u200b".join(KEY),
    "its first half": KEY[: len(KEY) // 2],
    "its last half": KEY[-(len(KEY) // 2) :],
    "most of it": KEY[:-3],
    "in base64": base64.b64encode(KEY.encode()).decode(),
    "in base64, with a name": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "in base64, with more": base64.b64encode(f"ab{KEY}\n".encode()).decode(),
    "another variable's": OTHER,
}
OTHERS = {
    "OpenAI": "sk-proj-abcdefghij0123456789ABCDEFGH",
    "Anthropic": "sk-ant-api03-abcdefghijklmnop-0123456789",
    "Hugging Face": "hf_" + "aB3" * 12,
    "GitHub": "ghp_" + "x1" * 18,
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "Google": "AIza" + "Sy1Sy" * 7,
    "a token of the web": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "a header": "Bearer 0123456789abcdef.0123456789",
}


def redactor() -> Redactor:
    return Redactor(
        KEY, environment={"JUDGE_API_KEY": OTHER, "SHORT_KEY": "word", "MAX_TOKEN": "1" * 20, "HOME": "/home/me"}
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_key_in_any_spelling(form: str) -> None:
    told = redactor().text(f"It says {FORMS[form]}, and SCORE: 4")
    assert told.startswith("It says ")
    assert told.endswith(", and SCORE: 4")
    assert "[key]" in told
    plain = "".join(told.split()).casefold()
    for length in (12,):
        parts = (secret[start : start + length] for secret in (KEY, OTHER) for start in range(len(secret) - length))
        assert not [part for part in parts if part.casefold() in plain]


@pytest.mark.parametrize("service", OTHERS)
def test_keys_of_others(service: str) -> None:
    assert redactor().text(f"its key is {OTHERS[service]} today") == "its key is [key] today"


@pytest.mark.parametrize(
    "text",
    [
        "A skier takes the key-frame of a sk-learn tutorial at 100 tokens; a bear-er of news.",
        "The number is 11111111111111111111, in /home/me, says word.",
        "A mask-and-key-shaped-object-of-some-length lies on the desk-and-chair-arrangement.",
        "Bearer of a long-winded-announcement-without-numbers",
        "https://example.com/watch?v=dQw4w9WgXcQ#t=10s",
    ],
)
def test_ordinary_answers_stay_as_they_are(text: str) -> None:
    assert redactor().text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "sk-only-words-and-words-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
        "sk-only-words-and-words-hf_" + "aBc" * 12,
        "Bearer sk-proj-abcdefghij0123456789ABCDEFGH",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
        "eyJ-no-token-but-words-sk-abcdefghij0123456789ABCDEFGH",
        "eyJ-no-token-but-words.sk-abcdefghij0123456789ABCDEFGH",
    ],
)
def test_a_key_beside_what_looks_like_one(text: str) -> None:
    told = redactor().text(f"its key is {text} today")
    secrets = ("eyJhbGci", "eyJzdWIi", "dozjgN", "aBcaBc", "abcdefghij", "0123456789")
    assert told.startswith("its key is ")
    assert told.endswith("[key] today")
    assert not [secret for secret in secrets if secret in told]


@pytest.mark.parametrize(
    "part",
    ["sk-", "sk-a", "eyJ-", "eyJhbGciOiJIUzI1NiJ9-", "Bearer eyJ-", "Bearer ", "xoxb-", "github_pat_", "hf_", "key-",
     "sk-proj-\u200b", "Bearer\t\t"],
)  # fmt: skip
def test_work_grows_with_the_length_alone(part: str) -> None:
    """Twice the text takes twice the time; work that grows with the square of the length takes four times it."""
    redact, short, long = Redactor(environment={}), part * (15_000 // len(part)), part * (60_000 // len(part))
    times = []
    for text in (short, long):
        tries = []
        for _ in range(2):
            started = time.process_time()
            redact.text(text)
            redact.message(text)
            tries.append(time.process_time() - started)
        times.append(min(tries))
    assert times[1] < 9 * times[0] + 0.05, times  # four times the text: a quadratic pattern takes sixteen times as long


@given(before=st.text(max_size=40), after=st.text(max_size=40), form=st.sampled_from(sorted(FORMS)))
@example(before="sk-", after="0", form="as it is")
def test_whatever_stands_around_it(before: str, after: str, form: str) -> None:
    told = redactor().text(f"{before} {FORMS[form]} {after}")
    for secret in (KEY, OTHER, FORMS[form]):
        assert secret.casefold() not in told.casefold()


@given(st.text(max_size=200))
def test_texts_without_a_key_are_not_bent(text: str) -> None:
    assert redactor().text(text) == text.encode("utf-8", "replace").decode()


@given(st.text(max_size=300), st.integers(0, 200))
def test_a_cut_text_keeps_both_ends(text: str, most: int) -> None:
    told = cut(text, most)
    if len(text) <= most:
        assert told == text
    else:
        assert len(told) == most + len(" [...] ")
        assert text.startswith(told[: most // 3])
        assert text.endswith(told[len(told) - (most - most // 3) :])


def test_a_key_of_another_stage_reaches_no_file(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler that echoes the judge's key, or a proxy that tells its own."""
    monkeypatch.setenv("OTHER_SERVICE_API_KEY", OTHER)
    texts = [OTHER, OTHER.upper(), *OTHERS.values()]
    server.control(script=[f"reply:{text}\nSCORE: 4" for text in texts])
    with open_ledger(tmp_path) as ledger:
        run_requests(make_requests(len(texts)), make_client(server, ledger), ledger, FAST)
        raws = [ledger.entry(request.key).raw for request in make_requests(len(texts))]  # type: ignore[union-attr]
    assert set(raws) == {"[key]\nSCORE: 4"}
    for file in tmp_path.rglob("*"):
        content = b"" if file.is_dir() else file.read_bytes()
        assert not any(text.encode() in content for text in texts)


def test_the_length_that_is_kept_holds_a_whole_judgement() -> None:
    assert cut("x" * LONGEST_RAW) == "x" * LONGEST_RAW
    assert len(cut("x" * 10**7)) < LONGEST_RAW + 10
