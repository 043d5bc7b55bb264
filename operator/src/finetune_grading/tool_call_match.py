"""The grader ToolCall: whether an output calls the tools that the reference calls."""

from __future__ import annotations

from finetune_api.evaluation import Grader, ToolCallMatch
from finetune_grading.grader import REFERENCE_TOOLS, CompiledGrader, Item
from finetune_grading.sample import Sample
from finetune_grading.tool_calls import ToolCall, calls_match


def compile_tool_call(grader: Grader) -> CompiledGrader:
    """It reads the item's `reference_tools`."""
    match = grader.tool_call or ToolCallMatch()

    def score(item: Item, sample: Sample) -> float:
        expected = [ToolCall.from_wire(call) for call in item[REFERENCE_TOOLS]]
        try:
            return float(calls_match(sample.tool_calls, expected, match))
        except RecursionError:  # arguments nested hundreds of levels deep
            return 0.0

    return CompiledGrader(name=grader.name, item_variables=(f"item.{REFERENCE_TOOLS}",), score=score)
