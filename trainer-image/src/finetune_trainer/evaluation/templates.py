"""Templates of graders: `{{item.x}}`, `{{item.x.y}}`, `{{sample.output_text}}`, `{{sample.output_json.x}}`,
`{{sample.output_tools.0.function.name}}`.

OpenAI's graders have the same. A variable is replaced by its value, once: nothing is evaluated, and what a value
contains is never looked at again. Text stands as it is, any other value as compact JSON with sorted keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from finetune_trainer.generate.tool_calls import ToolCall

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NAME = re.compile(r"(item(\.[\w-]+)+|sample\.output_text|sample\.output_(json|tools)(\.[\w-]+)*)")


class TemplateError(ValueError):
    """A template names what does not exist in any example: the spec is wrong."""


class MissingVariableError(LookupError):
    """One example, or one output, lacks a variable."""


@dataclass(frozen=True)
class Sample:
    """What a model answered to one example: text, and calls of tools."""

    output_text: str
    tool_calls: tuple[ToolCall, ...] = ()

    @cached_property
    def output_json(self) -> Any:
        """The output parsed as strict JSON. Raises MissingVariableError when it is none."""
        try:
            return orjson.loads(self.output_text)
        except orjson.JSONDecodeError as error:
            raise MissingVariableError("sample.output_json") from error

    @cached_property
    def output_tools(self) -> list[dict[str, Any]]:
        """The calls as OpenAI's messages have them."""
        return [call.to_wire() for call in self.tool_calls]


def variables(template: str) -> list[str]:
    """The variables of a template, in order. Raises TemplateError for one that can't exist."""
    names = [found.group(1).strip() for found in _BRACES.finditer(template)]
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise TemplateError(
                f"{{{{{name}}}}} is no variable. Use {{{{item.<field>}}}}, {{{{sample.output_text}}}}, "
                "{{sample.output_json}} or {{sample.output_tools}}."
            )
    return names


def resolve(name: str, item: Mapping[str, Any], sample: Sample) -> Any:
    """The value of a variable. Raises MissingVariableError."""
    root, *path = name.split(".")
    if root == "sample":
        value = getattr(sample, path[0])
        path = path[1:]
    else:
        value = item
    for key in path:
        value = _member(value, key, name)
    return value


def render(template: str, item: Mapping[str, Any], sample: Sample) -> str:
    """The template with its variables replaced. Raises MissingVariableError."""
    return _BRACES.sub(lambda found: _as_text(resolve(found.group(1).strip(), item, sample)), template)


def _member(value: Any, key: str, name: str) -> Any:
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    raise MissingVariableError(name)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
