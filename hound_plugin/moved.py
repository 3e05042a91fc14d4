"""Modules and names that have moved: earlier imports work, with a ``DeprecationWarning`` that names the new ones."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_P = __package__
MODULES: dict[str, str] = {  # earlier module -> module that holds its names now
    f"{_P}.corpus.convert": f"{_P}.corpus.dataset_conversion",
    f"{_P}.corpus.records": f"{_P}.corpus.checking",
    f"{_P}.corpus.shapes": f"{_P}.corpus.dataset_conversion",
    f"{_P}.host.api": f"{_P}.host.serve.api",
    f"{_P}.host.api_answers": f"{_P}.host.serve.api_answers",
    f"{_P}.host.api_errors": f"{_P}.host.serve.api_errors",
    f"{_P}.host.api_messages": f"{_P}.host.serve.api_messages",
    f"{_P}.host.api_schema": f"{_P}.host.serve.api_schema",
    f"{_P}.host.chat": f"{_P}.host.serve.terminal_chat",
    f"{_P}.host.checks": f"{_P}.host.dataset_checks",
    f"{_P}.host.engine": f"{_P}.host.serve.engine",
    f"{_P}.host.sources": f"{_P}.host.serve.api_media",
    f"{_P}.host.type_clash": f"{_P}.host.column_type_errors",
    f"{_P}.host.typed": f"{_P}.host.column_types",
    f"{_P}.host.web": f"{_P}.host.serve.web_pages",
    f"{_P}.judge.address": f"{_P}.llm.address",
    f"{_P}.judge.batch": f"{_P}.llm.batch",
    f"{_P}.judge.batch_server": f"{_P}.llm.batch_api",
    f"{_P}.judge.exchange": f"{_P}.llm.requests",
    f"{_P}.judge.ledger": f"{_P}.llm.ledger",
    f"{_P}.judge.openai_client": f"{_P}.llm.openai_client",
    f"{_P}.judge.pilot": f"{_P}.llm.pilot",
    f"{_P}.judge.prices": f"{_P}.llm.prices",
    f"{_P}.judge.protocol": f"{_P}.judge.prompts",
    f"{_P}.judge.records": f"{_P}.llm.ledger_tables",
    f"{_P}.judge.redaction": f"{_P}.llm.redaction",
    f"{_P}.judge.replies": f"{_P}.llm.replies",
    f"{_P}.judge.rereading": f"{_P}.llm.reparse",
    f"{_P}.judge.runner": f"{_P}.llm.runner",
    f"{_P}.judge.throttle": f"{_P}.llm.throttle",
    f"{_P}.judge.transport": f"{_P}.llm.transport",
    f"{_P}.media.cache": f"{_P}.media.frame_cache",
    f"{_P}.media.memory": f"{_P}.media.pixel_cache",
    f"{_P}.media.pixel_memory": f"{_P}.media.pixel_cache",
    f"{_P}.media.sampling": f"{_P}.media.frame_sampling",
    f"{_P}.model.conversion": f"{_P}.model.checkpoint_conversion",
    f"{_P}.model.convert": f"{_P}.model.key_mapping",
    f"{_P}.model.features": f"{_P}.model.feature_cache",
    f"{_P}.model.sampling": f"{_P}.model.answer_sampling",
    f"{_P}.model.shards": f"{_P}.model.checkpoint_writer",
    f"{_P}.reward.backends": f"{_P}.judge.backends",
    f"{_P}.reward.card": f"{_P}.reward.report",
    f"{_P}.reward.questions": f"{_P}.records.questions",
    f"{_P}.reward.sampling_server": f"{_P}.llm.sampling_server",
    f"{_P}.reward.statistics": f"{_P}.judge.agreement",
    f"{_P}.reward.storage": f"{_P}.reward.run_folder",
    f"{_P}.processing.transforms": f"{_P}.processing.pixels",
}
NAMES: dict[str, str] = {  # earlier name -> new one, where more than the module has changed
    f"{_P}.corpus.convert.Converted": f"{_P}.corpus.dataset_conversion.ConversionResult",
    f"{_P}.corpus.records.IMAGE_TOKEN": f"{_P}.records.placeholders.IMAGE_TOKEN",
    f"{_P}.corpus.records.Problem": f"{_P}.records.record.Problem",
    f"{_P}.host.checks.checked_dataset": f"{_P}.host.dataset_checks.check_datasets",
    f"{_P}.host.checks.checked_encoding": f"{_P}.host.dataset_checks.check_encoding",
    f"{_P}.host.engine.asker_gone": f"{_P}.media.cancellation.client_disconnected",
    f"{_P}.host.engine.is_ours": f"{_P}.host.mm_plugin.is_ours",
    f"{_P}.host.engine.placed": f"{_P}.host.serve.engine.insert_placeholders",
    f"{_P}.host.engine.shielded": f"{_P}.host.serve.engine.escape_placeholders",
    f"{_P}.host.typed.typed_merge": f"{_P}.host.column_types.merge_with_types",
    f"{_P}.host.typed.typed_tokenisation": f"{_P}.host.column_types.tokenise_with_types",
    f"{_P}.host.typed.undecoded": f"{_P}.host.column_types.without_decoding",
    f"{_P}.corpus.records.VIDEO_TOKEN": f"{_P}.records.placeholders.VIDEO_TOKEN",
    f"{_P}.judge.batch_server.BatchServer": f"{_P}.llm.batch_api.BatchAPI",
    f"{_P}.judge.batch_server.BatchState": f"{_P}.llm.batch_api.BatchStatus",
    f"{_P}.judge.exchange.Conversation": f"{_P}.llm.requests.ChatPrompt",
    f"{_P}.judge.exchange.Task": f"{_P}.llm.requests.Request",
    f"{_P}.judge.pilot.PILOT": f"{_P}.llm.limits.PILOT",
    f"{_P}.judge.protocol.Judging": f"{_P}.judge.prompts.JudgePrompt",
    f"{_P}.judge.protocol.ProtocolText": f"{_P}.judge.prompts.PromptTemplate",
    f"{_P}.judge.protocol.read_protocol": f"{_P}.judge.prompts.read_template",
    f"{_P}.judge.rereading.read_again": f"{_P}.llm.reparse.reparse",
    f"{_P}.judge.runner.Limits": f"{_P}.llm.limits.Limits",
    f"{_P}.judge.runner.Outcome": f"{_P}.llm.limits.Outcome",
    f"{_P}.judge.runner.run_tasks": f"{_P}.llm.runner.run_requests",
    f"{_P}.judge.runner.why_missing": f"{_P}.llm.replies.why_missing",
    f"{_P}.judge.throttle.LONGEST_WAIT": f"{_P}.backoff.LONGEST_RETRY_AFTER",
    f"{_P}.judge.throttle.retry_after": f"{_P}.backoff.parse_retry_after",
    f"{_P}.judge.transport.OddReplyError": f"{_P}.llm.transport.BadReplyError",
    f"{_P}.media.memory.BoundedMemory": f"{_P}.media.pixel_cache.MemoryCache",
    f"{_P}.media.memory.MediaMemory": f"{_P}.media.pixel_cache.PixelCache",
    f"{_P}.media.pixel_memory.BoundedMemory": f"{_P}.media.pixel_cache.MemoryCache",
    f"{_P}.media.pixel_memory.MediaMemory": f"{_P}.media.pixel_cache.PixelCache",
    f"{_P}.model.conversion.Report": f"{_P}.model.checkpoint_conversion.ConversionReport",
    f"{_P}.model.features.FeatureMemory": f"{_P}.model.feature_cache.FeatureCache",
    f"{_P}.reward.backends.Asking": f"{_P}.llm.sampling_server.SamplingPrompt",
    f"{_P}.reward.backends.check_scale": f"{_P}.reward.run_setup.check_scale",
    f"{_P}.reward.backends.endpoint_of": f"{_P}.llm.server_settings.make_endpoint",
    f"{_P}.reward.backends.make_sampler": f"{_P}.llm.sampling_server.make_sampler",
    f"{_P}.reward.backends.needed_fields": f"{_P}.judge.backends.required_fields",
    f"{_P}.reward.backends.protocol_id": f"{_P}.judge.backends.template_id",
    f"{_P}.reward.backends.readable_date": f"{_P}.judge.probe.readable_date",
    f"{_P}.reward.backends.sampler_identity": f"{_P}.llm.sampling_server.sampler_identity",
    f"{_P}.reward.backends.text_of": f"{_P}.llm.requests.message_text",
    f"{_P}.reward.questions.make_seed": f"{_P}.records.seeds.make_seed",
    f"{_P}.reward.sampling_server.sampling_requests": f"{_P}.reward.stages.sampling_requests",
    f"{_P}.reward.statistics.histogram": f"{_P}.reward.summary.histogram",
    f"{_P}.reward.storage.append_rows": f"{_P}.records.files.append_rows",
    f"{_P}.reward.storage.read_rows": f"{_P}.records.jsonl.read_objects",
    f"{_P}.reward.storage.write_json": f"{_P}.records.files.write_json",
    f"{_P}.reward.storage.write_whole": f"{_P}.records.files.write_whole",
    f"{_P}.processing.transforms.expand_to_square": f"{_P}.processing.image_processor.expand_to_square",
    f"{_P}.processing.transforms.image_to_tensor": f"{_P}.processing.image_processor.image_to_tensor",
    f"{_P}.processing.transforms.video_frames_to_tensor": f"{_P}.processing.video_processor.video_frames_to_tensor",
}


class _MovedModule(ModuleType):
    """An earlier module, whose names are looked up where they are now."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # looked up by the import system and inspect
            raise AttributeError(name)
        earlier = f"{self.__name__}.{name}"
        module, _, now = NAMES.get(earlier, f"{MODULES[self.__name__]}.{name}").rpartition(".")
        value = getattr(import_module(module), now)
        warnings.warn(f"{earlier} is now {module}.{now}; change the import.", DeprecationWarning, stacklevel=2)
        return value


class _MovedFinder(MetaPathFinder, Loader):
    """The last of all finders, so that it is asked only for modules that no longer exist."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name, f"The earlier name of :mod:`{MODULES[spec.name]}`.")

    def exec_module(self, module: ModuleType) -> None:
        """Execute nothing: names are looked up on access."""


def install() -> None:
    """Make earlier imports work; harmless if repeated."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())
