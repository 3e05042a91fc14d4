"""Writes ``docs/serving.md`` from the code that reads requests: ``python docs/write_serving.py``.

A test compares the page with what this prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from hound_plugin.host.serve.api import DECODE_TIMEOUT, MEMORY
from hound_plugin.host.serve.api_downloads import MAX_BYTES
from hound_plugin.host.serve.api_schema import IGNORED, MOST_VALUES, NEUTRAL, ChatRequest
from hound_plugin.host.serve.turns import IN_A_ROW
from hound_plugin.records.served_media import SUBTYPES
from hound_plugin.settings import HoundSettings
from hound_plugin.validation import accepts, keys_of

PAGE = Path(__file__).with_name("serving.md")
TEXT = """\
# Serving

This page is written by `python docs/write_serving.py` from the code that reads requests.

```bash
SAFE_MEDIA_PATH=/data/clips API_KEY=... llamafactory-cli api examples/yaml/hound_api.yaml
```

serves OpenAI's chat completions (`/v1/chat/completions`, `/v1/models`), streamed or not. `hound doctor --serve
examples/yaml/hound_api.yaml` checks the set-up first. Every parameter of a request has its effect, asks for nothing, or
is refused with a 400 that names it. There is no third way: a misspelt parameter is refused too.

`SAFE_MEDIA_PATH` is the folder whose clips may be asked about by path. `API_KEY` is the key that clients must send;
without it everyone is answered. `API_HOST` (0.0.0.0), `API_PORT` (8000) and `MAX_CONCURRENT` (1 request at a time) are
the host's. For LoRA adapters add `adapter_name_or_path` and `finetuning_type: lora`.

## A clip by `curl`

```bash
curl http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" -H "Authorization: Bearer $API_KEY" -d '{{
  "model": "hound",
  "temperature": 0,
  "messages": [{{"role": "user", "content": [
    {{"type": "video_url", "video_url": {{"url": "/data/clips/dog.mp4"}}}},
    {{"type": "text", "text": "What happens?"}}
  ]}}]
}}'
```

Write the path in full, as the server sees it; it must be inside `SAFE_MEDIA_PATH`. A clip of the client's own machine
goes as a `data:` URI. That is too long for an argument, so the request is written to a file first:

```bash
echo '{{
  "model": "hound",
  "messages": [{{"role": "user", "content": [
    {{"type": "video_url", "video_url": {{"url": "data:video/mp4;base64,'$(base64 -w0 dog.mp4)'"}}}},
    {{"type": "text", "text": "What happens?"}}
  ]}}]
}}' > request.json
curl http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" -H "Authorization: Bearer $API_KEY" -d @request.json
```

## A clip by `openai`

```python
import openai

client = openai.OpenAI(base_url="http://localhost:8000/v1", api_key="...")
content = [
    {{"type": "video_url", "video_url": {{"url": "/data/clips/dog.mp4"}}}},
    {{"type": "text", "text": "What happens?"}},
]
answer = client.chat.completions.create(
    model="hound", messages=[{{"role": "user", "content": content}}], temperature=1.0, n=3, seed=7, stop=["\\n"]
)
print(answer.choices[0].message.content)
```

`hound reward` speaks to this server as to any other: `judge.base_url` or `sample.base_url` names it.

## Parameters with an effect

null is the same as leaving a parameter out. The recipe decides what a request does not name.

{honoured}

A temperature above 0 means sampling, also where the recipe says `do_sample: false`. Without a temperature, `do_sample:
true`, `top_p` below 1, `top_k` above 0 and `n` above 1 do so too. What such a request leaves out comes from the recipe
if the recipe samples, and has OpenAI's defaults (temperature 1, top_p 1) if it is greedy.

`presence_penalty` and `frequency_penalty` are OpenAI's: they are subtracted from the scores of tokens that the answer
already contains. `repetition_penalty` is transformers' own. Draws do not depend on what else the server does: the same
request with the same `seed` gives the same answers, and without one they differ.

`stop` works across tokens, and a streamed answer holds back text that may turn into one of the strings. `finish_reason`
is `stop` at the end of an answer (its end token, a stop string, or a role's name that the model itself writes) and
`length` at the limit of tokens or of the context. In `usage` the conversation counts once, whatever `n` is.

A recipe with `num_beams` above 1 serves greedy requests without `logprobs`; others are refused by name.

## Accepted, without effect on the answer

{ignored}

## Accepted where they ask for nothing

Any other value is a 400.

{neutral}

## Messages

- Roles: `system` and `developer` (the same thing; several are joined by a line break) in front, then `user` and
  `assistant` in turn, a `user` at the end. `tool` and `function` are refused.
- `content`: a text, or a list of parts; an assistant's may be null if there is a `refusal`, which is then what it said.
- Parts of text: `text` (also `input_text`, `output_text`). Several are lines of one text, as in data sets.
- Media, in messages of the user: `video_url` and `image_url` (also `video`, `image`, `input_video`, `input_image`),
  with the address as text or as `{{"url": ...}}`. A `video` may be a list of frames. `detail` may be auto, low or high:
  the model sees all alike.
- `name`: one for each role; several would tell participants apart, which the prompt cannot.
- Audio, files, tool calls and keys that are not named here are refused.

An address is one of

- a path under `SAFE_MEDIA_PATH`, plain or as `file:///path` (also `file://localhost/path`; `%20` and the like are
  decoded): a file, a folder of frames, or a part of a file (`clip.mp4#t=2,5`). Links that lead out of the folder, and
  everything outside it, are refused alike, whether or not something is there. `ALLOW_LOCAL_FILES=0` refuses all paths.
- `data:TYPE/FORMAT;base64,...`, with the format of a clip one of {video}, and of an image one of {image}.
- http or https, at public network addresses only; redirects are checked too. Proxies are not used. One with a
  fragment (`#t=2,5`, `#xywh=...`) is refused.

The host's own checks take `/allowed-evil` for a part of `/allowed`, follow redirects to private addresses, and look a
name up twice. These do not.

## Many clients

- Short questions do not wait for clips. Text alone needs none of the places of media, and at the engine it goes first;
  after {in_a_row} questions without media one with media has its turn.
- When a client hangs up, whatever is done for it ends: its download, the process that decodes its clip, its answer.
- Clips are decoded by `hound: {{api_decoders: {decoders}}}` processes. One that takes longer than `decode_timeout` is
  killed; where the recipe names none, after {decode:g} s. `decode_timeout: off` decodes in the server itself, which a
  damaged file can then hold up or end.
- Downloads need no place. Each ends after `hound: {{api_download_timeout: {download:g}}}` seconds, whatever its server
  does, and at {size} MiB.
- A request of more than `hound: {{api_request_limit: {limit:g}}}` MiB is a 413, and one of more than {values} values a
  400. If all requests together take more than {memory} GiB, further ones are a 503 with `Retry-After`.
- What is too long for the context is refused by its length, before it is tokenised or a clip is opened.

`MAX_CONCURRENT` answers are generated at a time. `benchmarks/serving_soak.py` sends 200 requests about clips at once, a
tenth of them bad and a tenth from clients that hang up, and asks short questions beside them.

## Errors

Every error, also of other routes, is `{{"error": {{"message", "type", "param", "code"}}}}`, which OpenAI's clients show
as `error.message`, `error.param` and `error.code`; `param` is the name of a parameter or a place such as
`messages[0].content[1]`. A request that is wrong is a 400, a wrong key a 401, one that is too large a 413, a fault of
the server a 500 whose reason is in its log. What fails before the first piece of a stream is a plain error and no
stream; later it is the stream's last event.

## Log-probabilities

`logprobs` are the model's own: the logarithm of its softmax, before penalties, biases, temperature and `top_p`. `bytes`
of an answer's tokens, one after another, are the answer (up to the token in which a stop string begins); `token` is
their text, with U+FFFD for a part of a character. The end token is not among them.

## In the browser, at the terminal, in Python

`webchat` and the web UI sample as the recipe does until the slider of the temperature or of top-p is moved, and then as
the sliders show. `ChatModel.chat(..., temperature=...)` and `hound_plugin.load(...).chat(..., temperature=...)` sample
where a temperature is given, and refuse `do_sample=False` with one.

## Serving with vLLM

For many clips and many clients at a time. vLLM wants a newer transformers than LLaMA-Factory allows, so it has an
environment of its own, without the host:

```bash
pip install vllm
pip install --no-deps hound-plugin
# what is used here, and vLLM does not bring
pip install 'av<17' matplotlib peft pyarrow rouge-score scipy statsmodels xxhash
vllm serve ShareGPTVideo/LLaVA-Hound-DPO --allowed-local-media-path /data/clips
```

vLLM finds the plugin by itself, in every process that it starts. Both checkpoint layouts work; tensor parallelism,
prefix caching, LoRA adapters (`--enable-lora`) and quantised weights of the language model are vLLM's (tried on a
CPU: two processes, adapters, weights of 16, 8 and 4 bits; several GPUs were not). Frames, pixels and prompt tokens are
those of this package, so greedy answers are those of `hound_plugin.load` at the same dtype: vLLM makes 16 bits of
float32 checkpoints unless `--dtype float32` is given.

- `video_url` is a path or `file://` under `--allowed-local-media-path`, `data:video/mp4;base64,...` or http; there, a
  folder of frames is a clip too, and `file:///data/clips/dog.mp4#t=5,10` is a part of one. Several clips and images
  may be shown.
- A clip that cannot be read, a placeholder without a clip and so on are answered with a 400 that says why; other
  requests go on.
- Frames are set by `--mm-processor-kwargs '{{"num_frames": 16}}'`. `--media-io-kwargs` for `video` is refused: it
  belongs to loaders that choose frames differently.
- An adapter is refused if it was trained on another model, on top of another adapter or with another system prompt, or
  if it changes more than the language model. Weights of fewer bits and hub ids are not compared.
- Another chat template, given with a request or saved with the checkpoint, goes vLLM's own way.
- Role names (`USER:`) do not end an answer, as they do with `llamafactory-cli api`: send `"stop": ["USER:"]` if your
  checkpoint goes on to play both parts.

`hound reward sample`, `hound eval` and `hound caption` use such a server with `backend: openai`, or vLLM's engine in
their own process with `backend: vllm`; there `vllm:` passes arguments to the engine:

```bash
hound reward sample RECIPE sample.backend=vllm sample.vllm.tensor_parallel_size=2
hound eval predict RECIPE predict.backend=vllm
hound caption clips/ --model MODEL --out captions.jsonl --backend vllm --set predict.vllm.gpu_memory_utilization=0.8
```

Each answer has its own seed; the answers to one question share its prompt in the prefix cache, and a clip is decoded
and encoded once. With all but the smallest models that is
[about three times faster](performance.md#several-answers-by-vllm) than `backend: model` with its own `batch_size`.
vLLM's CPU build has no attention for heads of 16 channels. `make vllm` builds an environment for the CPU in
`.venv-vllm` and tests all of this there.
"""


def table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table with a code cell first."""
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for name, *cells in rows:
        lines.append("| " + " | ".join([f"`{name}`", *(cell.replace("|", "\\|") for cell in cells)]) + " |")
    return "\n".join(lines)


def _values(values: tuple[object, ...]) -> str:
    return " or ".join([*(f"`{_json(value)}`" for value in values), "null"])


def _json(value: object) -> str:
    return json.dumps(value)


def page() -> str:
    """The whole page."""
    fields, limits = keys_of(ChatRequest).items(), HoundSettings()
    return TEXT.format(
        honoured=table(
            "| parameter | accepts | |",
            ((name, accepts(field).removesuffix(" or null"), field.description or "") for name, field in fields),
        ),
        ignored=table("| parameter | why |", IGNORED.items()),
        neutral=table(
            "| parameter | accepts | why, or what to do |",
            ((name, _values(values), reason) for name, (values, reason) in NEUTRAL.items()),
        ),
        decoders=limits.api_decoders,
        decode=DECODE_TIMEOUT,
        download=limits.api_download_timeout,
        size=MAX_BYTES >> 20,
        limit=limits.api_request_limit,
        values=f"{MOST_VALUES:,}",
        memory=MEMORY >> 30,
        in_a_row={1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}[IN_A_ROW],
        video=", ".join(SUBTYPES["video"]),
        image=", ".join(SUBTYPES["image"]),
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"written to {PAGE}\n")
