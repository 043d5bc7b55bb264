"""The grader ToolCall: whether an output calls the tools that the reference calls."""

from __future__ import annotations

from finetune_api.graders import Grader, ToolCallMatch
from finetune_grading.grade import Scored
from finetune_grading.graders.interface import LocalGrader
from finetune_grading.sample import REFERENCE_TOOLS, Row
from finetune_grading.templates import resolve
from finetune_grading.tool_calls import ToolCall, matched_calls


def compile_tool_call(grader: Grader, pass_threshold: float) -> LocalGrader:
    """It reads the item's `reference_tools`."""
    match = grader.tool_call or ToolCallMatch()
    return LocalGrader(grader.name, pass_threshold, (f"item.{REFERENCE_TOOLS}",), lambda row: _score(match, row))


def _score(match: ToolCallMatch, row: Row) -> Scored:
    found = row.sample.tool_calls
    expected = [ToolCall.from_wire(call) for call in resolve(f"item.{REFERENCE_TOOLS}", row.item, row.sample)]
    total = len(found) + len(expected)
    try:
        matched = matched_calls(found, expected, match)
    except RecursionError:
        return Scored(0.0, {"error": "The arguments are nested too deeply."})
    if total == 0:
        return Scored(1.0)
    share = 2 * matched / total  # F1 of the calls; 1 where all are matched, no more and no fewer
    return Scored(share if match.partial_credit or share == 1 else 0.0)
