"""The parameters of a chat completion: each has its effect, changes nothing, or is refused by name.

``docs/serving.md`` is written from this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.model.answer_stream import Decoding
from hound_plugin.model.generation import GREEDY, wants_sampling
from hound_plugin.records.jsonl import read_text
from hound_plugin.validation import Settings

MOST_STOPS = 4
MOST_VALUES = 250_000
"""Values, lists and objects in a request: reading millions of them takes memory and seconds."""
IGNORED: dict[str, str] = {
    "user": "who asks",
    "safety_identifier": "who asks",
    "metadata": "labels of a stored answer; nothing is stored",
    "store": "nothing is stored",
    "service_tier": "there is one",
    "prompt_cache_key": "conversations decode and encode a clip once anyway",
    "prompt_cache_options": "as `prompt_cache_key`",
    "prompt_cache_retention": "as `prompt_cache_key`",
    "prediction": "it would only save time",
    "parallel_tool_calls": "no tools are called",
    "request_id": "vLLM's name of a request",
    "priority": "vLLM's order of requests",
}
"""Parameters without effect on the answer, and why; any value is accepted."""
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "LLaVA-Hound calls no tools"),
    "tool_choice": (("none", "auto"), "LLaVA-Hound calls no tools"),
    "functions": (([],), "LLaVA-Hound calls no functions"),
    "function_call": (("none", "auto"), "LLaVA-Hound calls no functions"),
    "response_format": (({"type": "text"},), "answers follow no schema"),
    "modalities": ((["text"],), "answers are text"),
    "audio": ((), "answers are text"),
    "reasoning_effort": (("none",), "LLaVA-Hound does not reason before it answers"),
    "verbosity": (("medium",), "ask for a short or a long answer in words"),
    "web_search_options": ((), "nothing is searched for"),
    "moderation": ((), "nothing is moderated"),
    "min_p": ((0,), "use top_p or top_k"),
    "typical_p": ((1,), "use top_p or top_k"),
    "length_penalty": ((1,), "it belongs to beam search, which the recipe chooses (num_beams)"),
    "use_beam_search": ((False,), "the recipe chooses it (num_beams)"),
    "num_beams": ((1,), "the recipe chooses it"),
    "best_of": ((1,), "use n"),
    "echo": ((False,), "an answer never repeats the question"),
    "ignore_eos": ((False,), "use min_tokens"),
    "stop_token_ids": (([],), "use stop"),
    "include_stop_str_in_output": ((False,), "an answer ends before the string"),
    "skip_special_tokens": ((True,), "the recipe chooses it"),
    "spaces_between_special_tokens": ((True,), "there are no special tokens in an answer"),
    "add_generation_prompt": ((True,), "the template is the model's own"),
    "continue_final_message": ((False,), "a conversation ends with a question"),
    "add_special_tokens": ((False,), "the template is the model's own"),
    "chat_template": ((), "the template is the model's own"),
    "chat_template_kwargs": (({},), "the template is the model's own"),
    "mm_processor_kwargs": (({},), "the recipe chooses frames (`hound: {num_frames: ...}`)"),
    "structured_outputs": ((), "answers follow no schema"),
    "guided_json": ((), "answers follow no schema"),
    "guided_regex": ((), "answers follow no schema"),
    "guided_choice": ((), "answers follow no schema"),
    "guided_grammar": ((), "answers follow no schema"),
    "prompt_logprobs": ((), "use logprobs, which are of the answer"),
}
"""Parameters that cannot be honoured: the values besides null that ask for nothing, and what to do instead."""


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(x, str) and x for x in stops):
        raise ValueError(f"expected {_STOPS}; got {value!r:.200}.")
    return tuple(stops)


def _biases(value: Any) -> Any:
    biases: dict[int, float] = {}
    items: list[tuple[str, Any]] = list(value.items()) if isinstance(value, dict) else [("", None)]
    for name, bias in items:
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not is_number or not -100 <= bias <= 100 or not (name.isascii() and name.isdigit()):
            raise ValueError(f"expected {_BIASES}; got {value!r:.200}.")
        biases[int(name)] = float(bias)
    return biases


_STOPS = f"a text, or a list of at most {MOST_STOPS} of them; none is empty"
_BIASES = "an object of token ids, each with a number of at least -100 and at most 100"


class StreamOptions(Settings):
    """What a streamed answer has besides the answer."""

    include_usage: bool | None = Field(default=None, description="a last chunk with the number of tokens")
    include_obfuscation: bool | None = Field(default=None, description="no effect: nothing is padded")


class ClipOptions(Settings):
    """How a client of vLLM asks for clips to be read."""

    num_frames: int | None = Field(default=None, ge=1, description="frames of a clip")


class MediaOptions(Settings):
    """The same for each kind of media."""

    video: ClipOptions | None = Field(default=None, description="clips")


class ChatRequest(Settings):
    """A chat completion's parameters that have an effect. None: not given.

    Raises:
        SettingsError: as :class:`~hound_plugin.validation.Settings`; or two of them contradict each other.
    """

    model: str = Field(description="returned with the answer; the server has one model, so any name will do")
    messages: list[Any] = Field(description="the conversation; see below")
    stream: bool = Field(default=False, description="the answer in pieces, as server-sent events")
    stream_options: StreamOptions | None = Field(
        default=None,
        description="`include_usage`: a last chunk with the number of tokens",
        json_schema_extra={"accepts": "an object with `include_usage`"},
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description=f"above 0 means sampling, even if the recipe is greedy; below {GREEDY} the most probable token",
    )
    top_p: float | None = Field(default=None, ge=0, le=1, description="share of probability that is sampled from")
    top_k: int | None = Field(
        default=None,
        ge=-1,
        description="number of most probable tokens to sample from; 0 or -1 means all (not OpenAI's)",
    )
    do_sample: bool | None = Field(default=None, description="sampling or the most probable token (not OpenAI's)")
    n: int | None = Field(
        default=None, ge=1, le=128, description="answers; several are sampled unless `temperature` is 0"
    )
    seed: int | None = Field(
        default=None, description="of sampling: the same request with the same seed gives the same answers"
    )
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="longest answer; one that ends there, or at the context's end, says `length`"
    )
    max_tokens: int | None = Field(default=None, ge=1, description="older name of `max_completion_tokens`")
    min_tokens: int | None = Field(
        default=None, ge=0, description="the model does not end an answer earlier (not OpenAI's)"
    )
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops)] = Field(
        default=(), description="an answer ends before these strings", json_schema_extra={"accepts": _STOPS}
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="subtracted from the score of a token that the answer already has"
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="the same, once for each time that the answer has it"
    )
    repetition_penalty: float | None = Field(
        default=None, ge=0.01, le=10, description="divides scores of tokens seen, the question's too (not OpenAI's)"
    )
    logit_bias: Annotated[dict[int, float], BeforeValidator(_biases)] = Field(
        default_factory=dict,
        description="added to the scores of single tokens",
        json_schema_extra={"accepts": _BIASES},
    )
    logprobs: bool | None = Field(
        default=None, description="the model's log-probabilities, before penalties, temperature and top_p"
    )
    media_io_kwargs: MediaOptions | None = Field(
        default=None,
        description="`video.num_frames`: as many as the server's recipe shows of a clip, or the request is refused "
        "(vLLM's, which lmms-eval sends)",
        json_schema_extra={"accepts": "an object with `video`: an object with `num_frames`"},
    )
    top_logprobs: int | None = Field(
        default=None,
        ge=0,
        le=20,
        description="number of most probable alternatives listed with each token; needs `logprobs: true`",
    )

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise SettingsError(
                f"max_tokens: expected the same as max_completion_tokens, or one of them; got {both[0]} and {both[1]}.",
                "max_tokens",
            )
        if self.min_tokens and self.longest is not None and self.min_tokens > self.longest:
            raise SettingsError(
                f"min_tokens: expected at most the longest answer ({self.longest}); got {self.min_tokens}.",
                "min_tokens",
            )
        if self.top_logprobs and not self.logprobs:
            raise SettingsError("top_logprobs: expected `logprobs: true` with it; got none.", "top_logprobs")
        wants_sampling(self.temperature, self.do_sample)
        return self

    @property
    def longest(self) -> int | None:
        """Tokens that the answer may have; None: as the recipe says."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def counts_tokens(self) -> bool:
        """Whether a streamed answer ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


def read_request(body: bytes) -> ChatRequest:
    """A request out of the body of an HTTP request.

    Raises:
        DataError: it is not a JSON object.
        SettingsError: a parameter that is unknown, has a bad value, or cannot be honoured; ``key`` names it.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise DataError(f"Expected a request of at most {MOST_VALUES:,} values, commas in texts included.")
    try:
        row = read_text(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"Expected a request as JSON in UTF-8: {error}.") from error
    if row.value is None:
        raise DataError(f"Expected a request as one JSON object: {row.reason}.")
    given = {name: value for name, value in row.value.items() if value is not None and name not in IGNORED}
    for name, (values, _) in NEUTRAL.items():
        if name in given and given.pop(name) not in values:
            raise SettingsError(_refusal(name, row.value[name]), name)
    known = [*ChatRequest.model_fields, *IGNORED, *NEUTRAL]
    for name in given:
        if name not in ChatRequest.model_fields:
            name = name[:80]
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            honoured = ", ".join(ChatRequest.model_fields)
            raise SettingsError(f"{name}: unknown parameter.{hint} Parameters with an effect: {honoured}.", name)
    return ChatRequest(**given)


def openapi_schema() -> dict[str, Any]:
    """The parameters as a JSON schema without references, for a page that has other schemas too."""
    schema = ChatRequest.model_json_schema()
    blocks = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("$ref", "").removeprefix("#/$defs/") if isinstance(value.get("$ref"), str) else ""
            return inlined(blocks[name]) if name else {key: inlined(item) for key, item in value.items()}
        return [inlined(item) for item in value] if isinstance(value, list) else value

    return {**inlined(schema), "properties": {**inlined(schema["properties"]), **{name: {} for name in IGNORED}}}


def _refusal(name: str, value: Any) -> str:
    values, instead = NEUTRAL[name]
    accepted = " or ".join([*(repr(item) for item in values), "nothing"])
    return f"{name}: expected {accepted} ({instead}); got {value!r:.200}."


def check_frames(request: ChatRequest, num_frames: int) -> None:
    """Refuse a request that wants other frames of a clip than the server shows.

    Raises:
        SettingsError: it does.
    """
    video = request.media_io_kwargs.video if request.media_io_kwargs else None
    if video is not None and video.num_frames not in (None, num_frames):
        raise SettingsError(
            f"media_io_kwargs: expected num_frames {num_frames}, as many as this server shows of a clip (`hound: "
            f"{{num_frames: ...}}` in its recipe), or nothing; got {video.num_frames}.",
            "media_io_kwargs",
        )


def decoding_of(request: ChatRequest, recipe: Mapping[str, Any], vocab_size: int) -> Decoding:
    """How the answers to a request are made.

    A recipe that samples supplies what the request leaves out. Where the recipe is greedy and the request is not, what
    it leaves out has OpenAI's defaults: temperature 1, top_p 1.

    Args:
        request: checked.
        recipe: the host's generating arguments.
        vocab_size: of the model.

    Raises:
        SettingsError: a token id outside the vocabulary, or what beam search cannot give.
    """
    beyond = [token for token in request.logit_bias if token >= vocab_size]
    if beyond:
        raise SettingsError(
            f"logit_bias: expected token ids below {vocab_size}, the size of the vocabulary; got {beyond[0]}.",
            "logit_bias",
        )
    temperature, top_p, top_k = sampling_of(request, recipe)
    if (recipe.get("num_beams") or 1) > 1:
        name = "temperature" if temperature else "logprobs" if request.logprobs else None
        if name is not None:
            raise SettingsError(
                f"{name}: this server searches with {recipe['num_beams']} beams (num_beams in its recipe) and can "
                f"neither sample nor give log-probabilities. Send temperature 0 and no logprobs, or serve with "
                "num_beams: 1.",
                name,
            )
    penalty = recipe.get("repetition_penalty") if request.repetition_penalty is None else request.repetition_penalty
    return Decoding(
        n=request.n or 1,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=request.seed,
        min_new_tokens=request.min_tokens or 0,
        stop=request.stop,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=1.0 if penalty is None else penalty,
        logit_bias=request.logit_bias,
        top_log_probs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def sampling_of(request: ChatRequest, recipe: Mapping[str, Any]) -> tuple[float, float, int]:
    """Temperature (0: greedy), top_p and top_k (0: all) of a request."""
    recipe_samples = bool(recipe.get("do_sample")) and (recipe.get("temperature") or 0) >= GREEDY
    temperature, samples = request.temperature, wants_sampling(request.temperature, request.do_sample)
    if samples is None:
        narrows = (request.top_p is not None and request.top_p < 1) or (request.top_k or 0) > 0
        samples = recipe_samples or narrows or (request.n or 1) > 1
    if not samples:
        return 0.0, 1.0, 0
    defaults = dict(recipe) if recipe_samples else {}
    if temperature is None:
        temperature = defaults.get("temperature", 1.0)
    top_p = defaults.get("top_p", 1.0) if request.top_p is None else request.top_p
    top_k = defaults.get("top_k", 0) if request.top_k is None else request.top_k
    return temperature, top_p, max(0, top_k)
