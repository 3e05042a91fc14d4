"""Judge protocols: the words of a request, and how its answer is read. Own wording, versioned, replaceable by a file.

A protocol is a YAML file. Its texts hold ``{{name}}`` for a field, each fenced by markers with a code that whoever
wrote the field cannot know: it is derived from a secret of the ledger and from the request. The same request has the
same code, so a batch that is made again is the same batch.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, model_validator

from hound_plugin.errors import SettingsError
from hound_plugin.llm.requests import Message, Task
from hound_plugin.judge.parsing import Scale, read_score
from hound_plugin.validation import Settings, build

BUILT_IN = ("caption", "vision")
FORMATS = ("json", "text")
FIELDS = ("caption", "question", "reference", "answer")
_FIELD = re.compile(r"\{\{(\w+)\}\}")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value or ()


Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Bounds = Annotated[tuple[int, int], BeforeValidator(_as_tuple)]


class ProtocolText(Settings):
    """The texts of a protocol file. Every one may hold ``{{nonce}}``; ``user`` holds the fields.

    Raises:
        SettingsError: an unknown or missing key, a field that is used nowhere, or markers without their code.
    """

    name: Text = Field(description="stands in every score's `protocol`")
    version: Text = Field(description="raise it when a word changes")
    untrusted: Names = Field(
        description=f"the fields of `user`, out of {', '.join(FIELDS)}; `answer` is one of them",
        json_schema_extra={"accepts": "a list of names"},
    )
    optional: Names = Field(
        description="fields of these that may be missing; only `reference` can be",
        json_schema_extra={"accepts": "a list of names"},
    )
    system: Text = Field(description="the system message; names the markers' `{{nonce}}`")
    user: Text = Field(description="the user message, with `{{question}}`, `{{answer}}` and the like")
    reference: Text = Field(description="how the reference is introduced, where there is one")
    reminder: Text = Field(description="after the fields; names the markers' `{{nonce}}`")
    json_: Text = Field(alias="json", description="the form of answers for servers that keep to a schema")
    text: Text = Field(description="the form of answers for others: a last line `SCORE: N`")
    retry: Text = Field(description="added when an answer could not be read")
    bounds: Bounds = Field(
        default=(1, 5),
        alias="scale",
        description="lowest and highest score, whole numbers from 0 to 100; the texts above must name the same ones",
        json_schema_extra={"accepts": "a list of two whole numbers, such as [1, 10]"},
    )

    @property
    def scale(self) -> Scale:
        """The numbers that a judge may give."""
        return Scale(*self.bounds)

    @property
    def id(self) -> str:
        """Name, version and digest: ``caption/1/2f6c...``; any change of a word or of the scale changes it."""
        usual = {"bounds": type(self).model_fields["bounds"].default}
        words = "\x00".join(str(value) for name, value in self if value != usual.get(name))
        return f"{self.name}/{self.version}/{hashlib.sha256(words.encode()).hexdigest()[:12]}"

    @model_validator(mode="after")
    def _fields_and_markers(self) -> ProtocolText:
        used = set(_FIELD.findall(self.user))
        if used != set(self.untrusted) or not used <= set(FIELDS) or "answer" not in used:
            raise ValueError(
                f"`untrusted` must list the fields of `user`, `answer` among them, out of {', '.join(FIELDS)}; it "
                f"lists {', '.join(self.untrusted)}, `user` has {', '.join(sorted(used))}."
            )
        if not set(self.optional) <= {"reference"}:
            raise ValueError(f"only `reference` can be optional; got {', '.join(self.optional)}.")
        if not 0 <= self.scale.lowest < self.scale.highest <= 100:
            raise ValueError(f"`scale` must be two numbers from 0 to 100, the lower first; got {list(self.bounds)}.")
        if "{{nonce}}" not in self.system or "{{nonce}}" not in self.reminder:
            raise ValueError("`system` and `reminder` must name the markers' {{nonce}}.")
        return self


def read_protocol(name: str) -> ProtocolText:
    """A protocol of ours by name, or one from a YAML file.

    Raises:
        SettingsError: no such name or file, an unknown or missing key, or a field that is used nowhere.
    """
    if name in BUILT_IN:
        text = resources.files("hound_plugin.judge").joinpath("templates", f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise SettingsError(f"judge.protocol: expected {', '.join(BUILT_IN)} or a YAML file; got {name!r}.")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"judge.protocol: {name} is not valid YAML: {error}") from error
    return build(ProtocolText, values, f"judge.protocol: {name}: ")


@dataclass(frozen=True)
class Judging:
    """A protocol at work: :class:`~hound_plugin.llm.requests.Conversation` for judgements.

    Attributes:
        protocol: the texts.
        salt: the ledger's secret.
        answer_format: ``json`` (schema) or ``text``.
    """

    protocol: ProtocolText
    salt: str
    answer_format: str = "json"
    keeps_truncated: bool = False

    def with_format(self, answer_format: str) -> Judging:
        """The same with another format of answers."""
        return replace(self, answer_format=answer_format)

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The schema, for servers that know it."""
        return make_schema(self.protocol.scale) if self.answer_format == "json" else None

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields without which nothing can be judged."""
        return tuple(name for name in self.protocol.untrusted if name not in self.protocol.optional)

    def messages(self, task: Task, attempt: int) -> list[Message]:
        """System and user message; from the second attempt on with a word about the form."""
        nonce = make_nonce(self.salt, task.key, task.fields)
        rules = self.protocol.json_ if self.answer_format == "json" else self.protocol.text
        values = {name: fence(name, task.fields.get(name, ""), nonce) for name in self.protocol.untrusted}
        if "reference" in values:
            given = bool(task.fields.get("reference"))
            values["reference"] = _fill(self.protocol.reference, values | {"nonce": nonce}) if given else ""
        ending = [self.protocol.reminder, rules, *([self.protocol.retry] if attempt else [])]
        user = [_fill(self.protocol.user, values), *(_fill(text, {"nonce": nonce}) for text in ending)]
        return [
            {"role": "system", "content": _fill(self.protocol.system, {"nonce": nonce}).strip()},
            {"role": "user", "content": "\n".join(text.rstrip("\n") + "\n" for text in user).strip()},
        ]

    def parse(self, text: str) -> int | None:
        """The score, or None; both forms of answers are read, whichever was asked for."""
        return read_score(text, self.protocol.scale).score

    def why_missing(self, text: str) -> str:
        """Why an answer has no score."""
        return read_score(text, self.protocol.scale).why

    @property
    def expects(self) -> str:
        """The form of an answer that can be read."""
        form = '{"reason": "...", "score": N}' if self.answer_format == "json" else "a last line `SCORE: N`"
        return f"{form} with N from {self.protocol.scale}"


def make_schema(scale: Scale) -> dict[str, Any]:
    """The ``response_format`` of an answer on that scale."""
    numbers = list(range(scale.lowest, scale.highest + 1))
    grade = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "score": {"type": "integer", "enum": numbers}},
        "required": ["reason", "score"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": grade}}


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replace ``{{name}}`` once; what stands in a value is never looked at again."""
    return _FIELD.sub(lambda match: values.get(match[1], match[0]), template)


def fence(name: str, text: str, nonce: str) -> str:
    """A text between two marker lines."""
    return f"<<<{name.upper()} {nonce}>>>\n{text}\n<<<END {name.upper()} {nonce}>>>"


def make_nonce(salt: str, key: str, texts: Mapping[str, str]) -> str:
    """12 hex digits that stand in none of the texts."""
    for turn in range(1000):
        nonce = hmac.new(salt.encode(), f"{key}/{turn}".encode(), hashlib.sha256).hexdigest()[:12]
        if not any(nonce in text for text in texts.values()):
            return nonce
    raise SettingsError("No marker code could be found that stands in none of the texts.")
