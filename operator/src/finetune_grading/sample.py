"""What is graded: a model's output to one example, and the example's fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finetune_api.graders import GraderErrorCode
from finetune_grading.exact_json import parse_json
from finetune_grading.grade import RowError
from finetune_grading.tool_calls import ToolCall

Item = Mapping[str, Any]
"""The fields of one example, as `{{item.<field>}}` names them."""
REFERENCE_TOOLS = "reference_tools"
"""The item's field with the reference's tool calls, in OpenAI's form; every chat example has it."""


class MissingVariableError(RowError):
    """One example, or one output, lacks a variable that a template names."""

    def __init__(self, name: str, why: str, code: GraderErrorCode = GraderErrorCode.INVALID_VARIABLE_ERROR) -> None:
        super().__init__(code, f"{{{{{name}}}}}: {why}")


@dataclass(frozen=True)
class Sample:
    """A model's output: its text and its tool calls."""

    output_text: str
    tool_calls: tuple[ToolCall, ...] = ()

    @cached_property
    def output_json(self) -> Any:
        """The text parsed as strict JSON. Raises MissingVariableError (sample_parse_error) when it is not JSON."""
        try:
            return parse_json(self.output_text)
        except ValueError as error:
            why = f"the output is not JSON: {error}"
            raise MissingVariableError("sample.output_json", why, GraderErrorCode.SAMPLE_PARSE_ERROR) from error

    @cached_property
    def output_tools(self) -> list[dict[str, Any]]:
        """The tool calls as OpenAI's messages have them."""
        return [call.to_wire() for call in self.tool_calls]


@dataclass(frozen=True)
class Row:
    """One example with a model's output; `other`: the output that Pairwise compares it with."""

    item: Item
    sample: Sample
    other: Sample | None = None
