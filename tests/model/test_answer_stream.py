"""Answers as events: the text, its end and its log-probabilities are those of the model, however they are asked for."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from hound_plugin.model.answer_stream import Decoding, End, Event, Piece, TokenText, generate_answers, token_bytes
from hound_plugin.model.generation import AnswerText
from hound_plugin.model.inference import HoundModel
from hound_plugin.model.token_choice import AnswerPenalties, pick, row_generators
from tests.model.batches import media_path

QUESTION = "What happens?"


@pytest.fixture(scope="module")
def hound(reference: Any, processor: Any) -> HoundModel:
    return HoundModel(reference, processor)


class Told:
    """Events of one request, collected."""

    def __init__(self, hound: HoundModel, longest: int = 12, clip: str | None = None, **decoding: Any) -> None:
        inputs = hound._inputs(QUESTION, clip and media_path(clip), None, None)
        tokenizer = hound.processor.tokenizer
        beams = decoding.pop("num_beams", 1)
        config = GenerationConfig(
            max_new_tokens=longest, eos_token_id=[tokenizer.eos_token_id], pad_token_id=0, num_beams=beams
        )
        if clip:
            inputs["video_index"] = torch.tensor([0])
        self.events: list[Event] = []
        self.inputs = inputs
        chosen = Decoding(**decoding)
        self.ids = torch.empty(0)

        def generate(**arguments: Any) -> torch.Tensor:
            output: torch.Tensor = hound.model.generate(**arguments)  # type: ignore[assignment]
            self.ids = output[:, inputs["input_ids"].shape[1] :]
            return output

        with torch.inference_mode():
            generate_answers(generate, inputs, config, tokenizer, chosen, self.events.append, threading.Event())
        pieces = [event for event in self.events if isinstance(event, Piece)]
        self.texts = ["".join(piece.text for piece in pieces if piece.index == index) for index in range(chosen.n)]
        self.tokens = [[t for p in pieces if p.index == index for t in p.log_probs] for index in range(chosen.n)]
        self.ends = {event.index: event for event in self.events if isinstance(event, End)}


# --- where an answer ends

STOPPED: list[tuple[str, tuple[str, ...], str]] = [
    ("one two three", ("two",), "one "),
    ("one two three", ("three", "two"), "one "),
    ("one two three", ("ee",), "one two thr"),
    ("one two three", ("four",), "one two three"),
    ("aab", ("ab",), "a"),
    ("aaab", ("aab",), "a"),
    ("abc", ("abcd", "b"), "a"),  # what is complete first ends it
    ("xabc", ("b", "abc"), "xa"),
    ("line\n\nnext", ("\n\n",), "line"),
    ("line\nnext", ("\n\n",), "line\nnext"),
    ("half of a sto", ("stop",), "half of a sto"),
    ("A dog. USER: hi stop", ("stop",), "A dog."),
    ("A stop USER: hi", ("stop",), "A "),
    ("é日本", ("日本",), "é"),
    ("stop", ("stop",), ""),
]


@pytest.mark.parametrize(("text", "stops", "shown"), STOPPED)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_an_answer_ends_before_a_stop_string(text: str, stops: tuple[str, ...], shown: str, size: int) -> None:
    """Whatever pieces it comes in; and nothing is shown that is taken back later."""
    answer = AnswerText(stops)
    said = ""
    for start in range(0, len(text), size):
        said += answer.push(text[start : start + size])
        assert shown.startswith(said)
    assert said + answer.rest() == shown
    assert answer.has_ended == (shown != text)
    assert answer.push("more") == ("" if answer.has_ended else "more")


# --- text of tokens

TEXTS = ["A dog . It's two  spaces\n\tand é 日本語 🐕‍🦺 end", "日", "", "  ends with spaces  ", "🐕"]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_tokens_are_the_text(hound: HoundModel, text: str) -> None:
    tokenizer = hound.processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    reader = TokenText(tokenizer)
    pieces = [reader.push(token) for token in ids]
    assert "".join(pieces) + reader.rest() == tokenizer.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)
    whole = b"".join(token_bytes(tokenizer, token, not number) for number, token in enumerate(ids))
    assert whole.decode() == tokenizer.decode(ids)


def test_a_character_that_never_becomes_whole_is_not_lost(hound: HoundModel) -> None:
    tokenizer = hound.processor.tokenizer
    ids = tokenizer("a 日", add_special_tokens=False)["input_ids"][:-1]
    reader = TokenText(tokenizer)
    pieces = "".join(reader.push(token) for token in ids)
    assert "\ufffd" not in pieces
    assert pieces + reader.rest() == tokenizer.decode(ids)
    assert reader.rest() == ""
    assert reader.push(tokenizer("b", add_special_tokens=False)["input_ids"][-1]).endswith("b")


# --- which token comes next


def test_penalties_are_openais() -> None:
    """https://platform.openai.com/docs/guides/text-generation: mu - c * frequency - (c > 0) * presence."""
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.5, 0.5, 0.5, 0.5]])
    ids = torch.tensor([[3, 3, 1, 1, 2], [3, 3, 0, 0, 0]])  # two tokens of the question
    changed = AnswerPenalties(2, presence=0.5, frequency=-0.3, bias={3: 100.0, 0: -1.0})(ids, scores)
    expected = [[0.0, 2 + 0.6 - 0.5, 3 + 0.3 - 0.5, 104.0], [0.5 + 0.9 - 0.5 - 1, 0.5, 0.5, 100.5]]
    assert torch.allclose(changed, torch.tensor(expected))
    assert torch.equal(scores[0], torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_top_k_and_top_p_together() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]])

    def drawn(top_p: float, top_k: int) -> dict[int, float]:
        draws = [torch.Generator().manual_seed(seed) for seed in range(3000)]
        found = Counter(pick(logits.expand(3000, -1), draws, 1.0, top_p, top_k).tolist())
        return {token: count / 3000 for token, count in found.items()}

    shares = logits[0].softmax(-1)
    assert set(drawn(1.0, 2)) == {1, 2}
    assert drawn(1.0, 2)[1] == pytest.approx(float(shares[1] / (shares[1] + shares[2])), abs=0.03)
    assert set(drawn(0.0, 0)) == set(drawn(1.0, 1)) == {1}
    assert set(drawn(0.7, 2)) == {1}  # 0.73 of two, 0.64 of all
    assert set(drawn(0.7, 0)) == {1, 2}
    assert set(drawn(1.0, 99)) == {0, 1, 2, 3}


def test_draws_do_not_hang_on_the_order_of_equal_tokens() -> None:
    """Rounding in a batch changes which of two tokens is a little more probable, and no more than that."""
    base = torch.zeros(1, 400)
    noise = torch.rand(200, 400, generator=torch.Generator().manual_seed(1)) * 1e-6
    draws = lambda: [torch.Generator().manual_seed(seed) for seed in range(200)]  # noqa: E731
    alike = pick(base.expand(200, -1), draws(), 1.0, 1.0) == pick(base + noise, draws(), 1.0, 1.0)
    assert alike.float().mean() > 0.99


def test_seeds_of_answers() -> None:
    def first(seed: int | None, rows: int) -> list[int]:
        return [int(torch.randint(1 << 30, (), generator=draw)) for draw in row_generators(seed, rows)]

    assert first(5, 4)[:2] == first(5, 2)
    assert len({*first(5, 4), *first(6, 4), *first(-5, 4), *first(1 << 80, 4)}) == 16
    assert first(None, 1) != first(None, 1)


# --- a real model


def test_greedy_answers_are_the_models_and_are_generated_once(hound: HoundModel) -> None:
    steps: list[int] = []
    hook = hound.model.lm_head.register_forward_hook(lambda module, args, output: steps.append(len(output)))
    told = Told(hound, clip="clip_short", n=3)
    hook.remove()
    want = hound.chat(QUESTION, video=media_path("clip_short"), temperature=0, max_new_tokens=12)
    assert [text.strip() for text in told.texts] == [want] * 3
    assert set(steps) == {1}
    assert len({(end.finish, end.tokens) for end in told.ends.values()}) == 1
    assert Told(hound, longest=3, n=2).ends == {0: End(0, "length", 3), 1: End(1, "length", 3)}


def test_log_probabilities_are_those_of_the_model(hound: HoundModel) -> None:
    """Before penalties and temperature: those of a forward pass over the whole answer."""
    told = Told(
        hound, n=2, clip="clip_short", temperature=0.7, seed=3, top_p=0.9, presence_penalty=1.5,
        repetition_penalty=1.2, logit_bias={7: 3.0}, top_log_probs=4,
    )  # fmt: skip
    prompt = told.inputs["input_ids"]
    for index, tokens in enumerate(told.tokens):
        assert b"".join(item.token for item in tokens).decode("utf-8", "replace") == told.texts[index]
        ids = told.ids[index, : len(tokens)]
        whole = torch.cat([prompt, ids[None]], 1)
        with torch.inference_mode():
            logits = hound.model(input_ids=whole, pixel_values_videos=told.inputs["pixel_values_videos"]).logits[
                0, prompt.shape[1] - 1 : -1
            ]
        want = logits.log_softmax(-1)
        given = torch.tensor([item.log_prob for item in tokens])
        assert torch.allclose(given, want.gather(1, ids[:, None])[:, 0], atol=1e-4)
        tops = torch.tensor([[other.log_prob for other in item.top] for item in tokens])
        assert torch.allclose(tops, want.topk(4).values, atol=1e-4)


def test_seeds_decide_and_nothing_else_does(hound: HoundModel) -> None:
    first = Told(hound, n=3, temperature=1.0, seed=11).texts
    torch.manual_seed(0)
    assert Told(hound, n=3, temperature=1.0, seed=11).texts == first
    assert len({*first, *Told(hound, n=3, temperature=1.0, seed=12).texts}) == 6
    assert Told(hound, temperature=1.0, seed=11).texts == first[:1]
    before = torch.get_rng_state()
    assert Told(hound, temperature=1.0).texts != Told(hound, temperature=1.0).texts
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stop_string_may_begin_in_one_token_and_end_in_another(hound: HoundModel) -> None:
    text = Told(hound).texts[0]
    ends = [len(piece.text) for piece in Told(hound).events if isinstance(piece, Piece)]
    place = sum(ends[:3])
    stop = text[place - 1 : place + 1]
    told = Told(hound, stop=("not in it", stop), top_log_probs=0)
    assert told.texts == [text[: text.index(stop)]]
    assert told.ends[0].finish == "stop"
    assert told.ends[0].tokens < 12
    assert b"".join(item.token for item in told.tokens[0]).decode().startswith(told.texts[0])


def test_half_a_character_may_be_where_an_answer_ends(hound: HoundModel) -> None:
    """Bytes 0xE6, again and again, are no character: they are shown at the end, and may be what it is stopped at."""
    byte = hound.processor.tokenizer.convert_tokens_to_ids("<0xE6>")
    told = Told(hound, longest=2, logit_bias={byte: 100.0}, top_log_probs=0)
    assert set(told.texts[0]) == {"\ufffd"}
    assert [item.token for item in told.tokens[0]] == [b"\xe6"] * 2
    stopped = Told(hound, longest=2, logit_bias={byte: 100.0}, top_log_probs=0, stop=("\ufffd",))
    assert (stopped.texts, stopped.tokens, stopped.ends[0].finish) == ([""], [[]], "stop")


def test_the_model_does_not_end_an_answer_too_early(hound: HoundModel) -> None:
    end = hound.processor.tokenizer.eos_token_id
    told = Told(hound, logit_bias={end: 100.0})
    assert (told.texts, told.ends[0]) == ([""], End(0, "stop", 1))
    later = Told(hound, logit_bias={end: 100.0}, min_new_tokens=4)
    assert later.ends[0] == End(0, "stop", 5)
    assert later.texts[0]


def test_presence_and_frequency_reach_the_answer(hound: HoundModel) -> None:
    """A token that is pushed by its bias comes again and again, until it is penalised."""
    bias = {500: 100.0}
    word = Told(hound, longest=1, logit_bias=bias).texts[0]
    assert Told(hound, longest=5, logit_bias=bias).texts == [word * 5]
    small = {500: 12.0}
    assert Told(hound, longest=5, logit_bias=small).texts == [word * 5]
    once = Told(hound, longest=5, logit_bias=small, presence_penalty=12.0).texts[0]
    assert once.startswith(word)
    assert once != word * 5
    twice = Told(hound, longest=8, logit_bias=small, frequency_penalty=4.0).texts[0]
    assert 2 <= twice.count(word) < 8


def test_beams_come_in_one_piece(hound: HoundModel) -> None:
    inputs = hound._inputs(QUESTION, None, None, None)
    output = hound.model.generate(**inputs, num_beams=3, max_new_tokens=8, do_sample=False, pad_token_id=0)
    want = hound.processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    told = Told(hound, longest=8, num_beams=3)
    assert told.texts == [want]
    assert Told(hound, longest=8, num_beams=3, stop=(want[3:5],)).texts == [want[: want.index(want[3:5])]]


def test_nobody_is_waited_for_once_the_reader_is_gone(hound: HoundModel) -> None:
    gone = threading.Event()
    gone.set()
    events: list[Event] = []
    inputs = hound._inputs(QUESTION, None, None, None)
    config = GenerationConfig(max_new_tokens=50, eos_token_id=[2], pad_token_id=0)
    generate_answers(
        hound.model.generate, inputs, config, hound.processor.tokenizer, Decoding(n=1), events.append, gone
    )
    (end,) = [event for event in events if isinstance(event, End)]
    assert end.tokens == 1
