"""A Hugging Face chat model in this process as a judge. torch is imported only when the model is used."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.errors import JudgeError
from hound_plugin.judge.chat_tokens import encode_chat
from hound_plugin.llm.requests import ChatPrompt, Message, RejectedError, Reply, Request
from hound_plugin.llm.server_settings import output_token_limit

STANDARD = ("temperature", "top_p", "max_tokens", "max_completion_tokens")


@dataclass
class _Waiting:
    messages: list[Message]
    seed: int
    reply: asyncio.Future[Reply]


class LocalJudge:
    """A :class:`~hound_plugin.llm.requests.Client` that generates for all waiting requests in batches."""

    def __init__(
        self,
        model: str,
        prompt: ChatPrompt,
        parameters: Mapping[str, Any],
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int = 8,
    ) -> None:
        """Does not load the model yet.

        Args:
            model: folder or hub id of a causal language model with a chat template.
            prompt: wording and parser.
            parameters: ``temperature`` (0 is greedy), ``top_p``, ``max_tokens``; others go to ``generate``.
            device: by default the first GPU if there is one, else the CPU.
            dtype: ``auto`` uses the checkpoint's.
            batch_size: requests at a time.
        """
        self.prompt = prompt
        self.identity: Mapping[str, Any] = {"backend": "local", "model": model}
        self._model, self._device, self._dtype, self._batch_size = model, device, dtype, batch_size
        self._parameters = dict(parameters)
        self._loaded: tuple[Any, Any] | None = None
        self._queue: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def send(self, request: Request, attempt: int) -> Reply:
        """Queue a request and wait for its reply.

        Raises:
            RejectedError: it does not fit into the model's context, or its control tokens cannot be told from text.
            JudgeError: the model cannot be loaded, or has no chat template.
        """
        messages = self.prompt.messages(request, attempt)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(messages, (request.seed or 0) + attempt, reply))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await reply

    async def _work(self) -> None:
        await asyncio.sleep(0.02)  # let others queue up next to the first
        while self._queue:
            replies: list[Reply | RejectedError] | list[JudgeError]
            batch, self._queue = self._queue[: self._batch_size], self._queue[self._batch_size :]
            try:
                replies = await asyncio.to_thread(self._generate, [w.messages for w in batch], batch[0].seed)
            except Exception as error:
                replies = [self._problem(error)] * len(batch)
            for waiting, reply in zip(batch, replies, strict=True):
                if not waiting.reply.done():
                    if isinstance(reply, Reply):
                        waiting.reply.set_result(reply)
                    else:
                        waiting.reply.set_exception(reply)

    def _problem(self, error: Exception) -> JudgeError:
        """Whatever generation raised, as an error that stops the run; the original is its cause."""
        if isinstance(error, JudgeError):
            return error
        problem = JudgeError(f"judge.model: {self._model!r} cannot generate: {error!r}")
        problem.__cause__ = error
        return problem

    def _load(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self._loaded is None:
            try:
                tokenizer = AutoTokenizer.from_pretrained(self._model, padding_side="left", trust_remote_code=False)
                network = AutoModelForCausalLM.from_pretrained(self._model, dtype=self._dtype, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise JudgeError(f"judge.model: {self._model!r} cannot be loaded as a chat model: {error}") from error
            if not tokenizer.chat_template:
                raise JudgeError(f"judge.model: {self._model!r} has no chat template; use a chat model.")
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
            self._loaded = (network.to(device).eval(), tokenizer)
        return self._loaded

    def _generate(self, requests: list[list[Message]], seed: int) -> list[Reply | RejectedError]:
        import torch

        network, tokenizer = self._load()
        limit = output_token_limit(self._parameters)
        room = getattr(network.config, "max_position_embeddings", None)
        replies: list[Reply | RejectedError] = []
        encoded: dict[int, list[int]] = {}
        for index, messages in enumerate(requests):
            try:
                ids = encode_chat(tokenizer, messages)
                if room is not None and len(ids) + limit > room:
                    raise RejectedError(f"{len(ids)} prompt tokens and {limit} new ones exceed the context of {room}")
                encoded[index] = ids
                replies.append(RejectedError("not generated"))
            except RejectedError as problem:
                replies.append(problem)
        if encoded:
            batch = tokenizer.pad({"input_ids": list(encoded.values())}, return_tensors="pt").to(network.device)
            torch.manual_seed(seed)
            with torch.inference_mode():
                output = network.generate(**batch, max_new_tokens=limit, **self._sampling(tokenizer))
            new = output[:, batch["input_ids"].shape[1] :].tolist()
            for index, tokens in zip(encoded, new, strict=True):
                replies[index] = self._reply(tokens, limit, len(encoded[index]))
        return replies

    def _sampling(self, tokenizer: Any) -> dict[str, Any]:
        arguments = {name: value for name, value in self._parameters.items() if name not in STANDARD}
        temperature = self._parameters.get("temperature") or 0
        arguments |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            top_p = self._parameters.get("top_p", 1.0)
            arguments |= {"do_sample": True, "temperature": temperature, "top_p": top_p}
        return {**arguments, "pad_token_id": tokenizer.pad_token_id}

    def _reply(self, tokens: list[int], limit: int, prompt: int) -> Reply:
        """Control tokens stay in the text: some of them separate reasoning from the answer."""
        network, tokenizer = self._load()
        known = getattr(network.generation_config, "eos_token_id", None)
        ends = {tokenizer.eos_token_id, tokenizer.pad_token_id, *(known if isinstance(known, list) else [known])}
        end = next((index for index, token in enumerate(tokens) if token in ends), None)
        kept = tokens if end is None else tokens[:end]
        finish = "length" if end is None and len(tokens) >= limit else "stop"
        text = tokenizer.decode(kept, skip_special_tokens=False)
        return Reply(text, finish, model=self._model, prompt_tokens=prompt, completion_tokens=len(kept))

    async def close(self) -> None:
        """Let the current batch finish."""
        if self._worker is not None and not self._worker.done():
            await self._worker
