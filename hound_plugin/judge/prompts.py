"""Judge prompts: versioned templates of our own wording, which a file can replace.

A template is a YAML file; recipes and scores call it the protocol. Its texts contain ``{{name}}`` for a field. Each
field is fenced by markers with a code that its author cannot know: it is derived from a secret of the ledger and from
the request. The same request has the same code, so a batch that is built again is the same batch.
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
from hound_plugin.judge.parsing import Scale, read_score
from hound_plugin.judge.verdicts import read_verdict
from hound_plugin.llm.requests import Message, Request
from hound_plugin.validation import Settings, build, read_yaml

BUILT_IN = ("caption", "vision", "official")
FIELDS = ("caption", "question", "reference", "answer")
_FIELD = re.compile(r"\{\{(\w+)\}\}")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value or ()


Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Bounds = Annotated[tuple[int, int], BeforeValidator(_as_tuple)]


class PromptTemplate(Settings):
    """The texts of a template file. Each may contain ``{{nonce}}``; ``user`` contains the fields.

    Raises:
        SettingsError: an unknown or missing key, a field that is not used, or markers without their code.
    """

    name: Text = Field(description="part of every score's `protocol`")
    version: Text = Field(description="increase it whenever a word changes")
    untrusted: Names = Field(
        description=f"the fields of `user`, from {', '.join(FIELDS)}; must include `answer`",
        json_schema_extra={"accepts": "a list of names"},
    )
    optional: Names = Field(
        description="which of these may be missing; only `reference` can be",
        json_schema_extra={"accepts": "a list of names"},
    )
    system: Text = Field(description="the system message; must contain the markers' `{{nonce}}`")
    user: Text = Field(description="the user message, with `{{question}}`, `{{answer}}` and so on")
    reference: Text = Field(description="how the reference is introduced, if there is one")
    reminder: Text = Field(description="after the fields; must contain the markers' `{{nonce}}`")
    json_: Text = Field(alias="json", description="the form of replies, for servers that support JSON schemas")
    text: Text = Field(description="the form of replies for other servers: a last line `SCORE: N`")
    retry: Text = Field(description="added when an earlier reply could not be parsed")
    bounds: Bounds = Field(
        default=(1, 5),
        alias="scale",
        description="lowest and highest score, whole numbers from 0 to 100; the texts above must name the same ones",
        json_schema_extra={"accepts": "a list of two whole numbers, such as [1, 10]"},
    )

    verdict: bool = Field(
        default=False,
        description="the judge also says yes or no, as `verdict` in JSON or a line `VERDICT: yes` before the score; "
        "for `hound eval`",
    )
    markers: bool = Field(
        default=True,
        description="fence each field with markers; false puts bare texts into `user`, as published prompts do, and "
        "an answer can then pose as an instruction",
    )

    @property
    def scale(self) -> Scale:
        """The scores that the judge may give."""
        return Scale(*self.bounds)

    @property
    def id(self) -> str:
        """Name, version and digest: ``caption/1/2f6c...``; any change of a word or of the scale changes it."""
        usual = {name: key.default for name, key in type(self).model_fields.items() if not key.is_required()}
        words = "\x00".join(str(value) for name, value in self if value != usual.get(name))
        return f"{self.name}/{self.version}/{hashlib.sha256(words.encode()).hexdigest()[:12]}"

    @model_validator(mode="after")
    def _fields_and_markers(self) -> PromptTemplate:
        used = set(_FIELD.findall(self.user))
        if used != set(self.untrusted) or not used <= set(FIELDS) or "answer" not in used:
            raise ValueError(
                f"`untrusted` must list the fields of `user`, including `answer`, from {', '.join(FIELDS)}; it "
                f"lists {', '.join(self.untrusted)}, `user` has {', '.join(sorted(used))}."
            )
        if not set(self.optional) <= {"reference"}:
            raise ValueError(f"only `reference` can be optional; got {', '.join(self.optional)}.")
        if not 0 <= self.scale.lowest < self.scale.highest <= 100:
            raise ValueError(f"`scale` must be two numbers from 0 to 100, the lower first; got {list(self.bounds)}.")
        if self.markers and ("{{nonce}}" not in self.system or "{{nonce}}" not in self.reminder):
            raise ValueError("`system` and `reminder` must contain the markers' {{nonce}}.")
        return self


def read_template(name: str) -> PromptTemplate:
    """A built-in template by name, or one from a YAML file.

    Raises:
        SettingsError: no such name or file, an unknown or missing key, or a field that is not used.
    """
    if name in BUILT_IN:
        content = resources.files("hound_plugin.judge").joinpath("templates", f"{name}.yaml").read_bytes()
    elif Path(name).is_file():
        content = Path(name).read_bytes()
    else:
        raise SettingsError(f"judge.protocol: expected {', '.join(BUILT_IN)} or a YAML file; got {name!r}.")
    try:
        values = read_yaml(content.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"judge.protocol: {name} is not valid YAML: {error}") from error
    return build(PromptTemplate, values, f"judge.protocol: {name}: ")


@dataclass(frozen=True)
class JudgePrompt:
    """The :class:`~hound_plugin.llm.requests.ChatPrompt` of judgements: a template filled with the fields of a request.

    Attributes:
        template: the texts.
        salt: the ledger's secret.
        answer_format: ``json`` (schema) or ``text``.
    """

    template: PromptTemplate
    salt: str
    answer_format: str = "json"
    keeps_truncated: bool = False

    def with_format(self, answer_format: str) -> JudgePrompt:
        """The same prompt with another reply format."""
        return replace(self, answer_format=answer_format)

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The JSON schema of replies, for servers that support it."""
        return make_schema(self.template.scale, self.template.verdict) if self.answer_format == "json" else None

    @property
    def required_fields(self) -> tuple[str, ...]:
        """Fields that every request must have."""
        return tuple(name for name in self.template.untrusted if name not in self.template.optional)

    def messages(self, request: Request, attempt: int) -> list[Message]:
        """System and user message; from the second attempt on with a reminder of the reply format."""
        nonce = make_nonce(self.salt, request.key, request.fields)
        rules = self.template.json_ if self.answer_format == "json" else self.template.text
        given = {name: request.fields.get(name, "") for name in self.template.untrusted}
        values = {name: fence(name, text, nonce) for name, text in given.items()} if self.template.markers else given
        if "reference" in values:
            has_reference = bool(request.fields.get("reference"))
            values["reference"] = _fill(self.template.reference, values | {"nonce": nonce}) if has_reference else ""
        ending = [self.template.reminder, rules, *([self.template.retry] if attempt else [])]
        user = [_fill(self.template.user, values), *(_fill(text, {"nonce": nonce}) for text in ending)]
        messages = [
            {"role": "system", "content": _fill(self.template.system, {"nonce": nonce}).strip()},
            {"role": "user", "content": "\n".join(text.rstrip("\n") + "\n" for text in user if text).strip()},
        ]
        return messages if messages[0]["content"] else messages[1:]

    def parse(self, text: str) -> int | str | None:
        """The score, or None; both reply formats are parsed, whichever was requested. With a verdict: ``yes 4``."""
        if not self.template.verdict:
            return read_score(text, self.template.scale).score
        reading = read_verdict(text, self.template.scale)
        return None if reading.score is None else f"{'yes' if reading.correct else 'no'} {reading.score}"

    def why_missing(self, text: str) -> str:
        """Why a reply has no score."""
        read = read_verdict if self.template.verdict else read_score
        return read(text, self.template.scale).why

    @property
    def expects(self) -> str:
        """The form of a reply that can be parsed."""
        if self.template.verdict:
            lines = "a line `VERDICT: yes` or `VERDICT: no`, then a last line `SCORE: N`"
            form = '{"reason": "...", "verdict": "yes" or "no", "score": N}' if self.answer_format == "json" else lines
        else:
            form = '{"reason": "...", "score": N}' if self.answer_format == "json" else "a last line `SCORE: N`"
        return f"{form} with N from {self.template.scale}"


def make_schema(scale: Scale, verdict: bool = False) -> dict[str, Any]:
    """The ``response_format`` of a reply on that scale, with a verdict or without."""
    numbers = list(range(scale.lowest, scale.highest + 1))
    properties: dict[str, Any] = {"reason": {"type": "string"}}
    if verdict:
        properties["verdict"] = {"type": "string", "enum": ["yes", "no"]}
    properties["score"] = {"type": "integer", "enum": numbers}
    grade = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": grade}}


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each ``{{name}}`` once; values are never scanned for further fields."""
    return _FIELD.sub(lambda match: values.get(match[1], match[0]), template)


def fence(name: str, text: str, nonce: str) -> str:
    """A text between two marker lines."""
    return f"<<<{name.upper()} {nonce}>>>\n{text}\n<<<END {name.upper()} {nonce}>>>"


def make_nonce(salt: str, key: str, texts: Mapping[str, str]) -> str:
    """12 hex digits that occur in none of the texts."""
    for turn in range(1000):
        nonce = hmac.new(salt.encode(), f"{key}/{turn}".encode(), hashlib.sha256).hexdigest()[:12]
        if not any(nonce in text for text in texts.values()):
            return nonce
    raise SettingsError("No marker code was found that occurs in none of the texts.")
