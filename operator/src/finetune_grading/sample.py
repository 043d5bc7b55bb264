"""A model's output to one example, as graders see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from finetune_grading.tool_calls import ToolCall


class MissingVariableError(LookupError):
    """One example, or one output, lacks a variable that a template names."""


@dataclass(frozen=True)
class Sample:
    """A model's output: its text and its tool calls."""

    output_text: str
    tool_calls: tuple[ToolCall, ...] = ()

    @cached_property
    def output_json(self) -> Any:
        """The text parsed as strict JSON. Raises MissingVariableError when it is not JSON."""
        try:
            return orjson.loads(self.output_text)
        except orjson.JSONDecodeError as error:
            raise MissingVariableError("sample.output_json") from error

    @cached_property
    def output_tools(self) -> list[dict[str, Any]]:
        """The tool calls as OpenAI's messages have them."""
        return [call.to_wire() for call in self.tool_calls]
