"""Tool calls, and whether those of an output are those of the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.graders import ToolCallMatch
from finetune_grading.exact_json import parse_json, write_json


@dataclass(frozen=True)
class ToolCall:
    """A tool call; `arguments` is a JSON value, in practice an object."""

    name: str
    arguments: Any

    def to_wire(self) -> dict[str, Any]:
        """The call as OpenAI's messages have it: its arguments are JSON in a string. Raises TypeError, ValueError."""
        return {"type": "function", "function": {"name": self.name, "arguments": write_json(self.arguments)}}

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> ToolCall:
        """A call of OpenAI's messages that has been validated before."""
        return cls(value["function"]["name"], parse_json(value["function"]["arguments"]))


def problem_of_calls(value: Any) -> str | None:
    """What keeps a value that nothing has checked from being calls as OpenAI's messages have them; None if nothing."""
    if not isinstance(value, list):
        return "it must be a list of tool calls"
    for number, call in enumerate(value, start=1):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return f"call {number} must be an object with function.name"
        try:
            parse_json(function["arguments"])
        except (KeyError, TypeError, ValueError, RecursionError):
            return f"call {number}: function.arguments must be JSON in a string"
    return None


def matched_calls(found: Sequence[ToolCall], expected: Sequence[ToolCall], match: ToolCallMatch) -> int:
    """How many of the expected calls are among those found, each call taken once: in their order, or in any."""
    accepted = [[_accepts(want, call, match) for call in found] for want in expected]
    return _most_in_order(accepted) if match.order == "InOrder" else _most_paired(accepted)


def json_equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 equals 1.0 but not true, and the order of keys does not matter."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(json_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(json_equal(*pair) for pair in zip(one, other, strict=True))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def json_contains(whole: Any, part: Any) -> bool:
    """Whether a JSON value contains another: objects, at any depth, may have further keys."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and json_contains(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(json_contains(*pair) for pair in zip(whole, part, strict=True))
    return json_equal(whole, part)


def _most_paired(accepted: Sequence[Sequence[bool]]) -> int:
    """The most rows that can each be given a column of its own that it accepts (Kuhn's matching algorithm)."""
    taken_by: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fits in enumerate(accepted[row]):
            if fits and column not in seen:
                seen.add(column)
                if column not in taken_by or place(taken_by[column], seen):
                    taken_by[column] = row
                    return True
        return False

    return sum(place(row, set()) for row in range(len(accepted)))


def _most_in_order(accepted: Sequence[Sequence[bool]]) -> int:
    """The same where neither rows nor columns may cross: the longest common subsequence."""
    columns = len(accepted[0]) if accepted else 0
    best = [0] * (columns + 1)
    for row in accepted:
        before = best
        best = [0]
        for column, fits in enumerate(row):
            best.append(before[column] + 1 if fits else max(before[column + 1], best[column]))
    return best[-1]


def _accepts(expected: ToolCall, found: ToolCall, match: ToolCallMatch) -> bool:
    if expected.name != found.name:
        return False
    if match.arguments == "Ignore":
        return True
    compare: Callable[[Any, Any], bool] = json_equal if match.arguments == "Exact" else json_contains
    ignored = frozenset(match.ignore_arguments)
    return compare(_without(found.arguments, ignored), _without(expected.arguments, ignored))


def _without(arguments: Any, ignored: frozenset[str]) -> Any:
    if not isinstance(arguments, dict):
        return arguments
    return {key: value for key, value in arguments.items() if key not in ignored}
