"""Tool calls are compared with the reference's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.graders import ToolCallMatch
from finetune_grading.tool_calls import ToolCall, json_contains, json_equal, matched_calls
from tests.unit.grading.graders import compiled, grade

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("ab é\"'{}[]:,\n\\", max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=4,
)
calls = st.lists(
    st.tuples(st.sampled_from(["add", "look_up"]), st.dictionaries(st.text("abc_", min_size=1), values, max_size=3)),
    min_size=1,
    max_size=3,
)


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments)


@pytest.mark.parametrize(
    ("found", "expected", "match", "score"),
    [
        ([], [], {}, 1.0),
        ([call("a")], [], {}, 0.0),
        ([], [call("a")], {}, 0.0),
        ([call("a", x=1)], [call("a", x=1)], {}, 1.0),
        ([call("a", x=1)], [call("b", x=1)], {}, 0.0),
        ([call("a", x=1, y=2)], [call("a", y=2, x=1)], {}, 1.0),
        ([call("a", x=1.0)], [call("a", x=1)], {}, 1.0),
        ([call("a", x=True)], [call("a", x=1)], {}, 0.0),
        ([call("a", x="1")], [call("a", x=1)], {}, 0.0),
        ([call("a", x=1, y=2)], [call("a", x=1)], {}, 0.0),
        ([call("a", x=[1, 2])], [call("a", x=[2, 1])], {}, 0.0),
        # any order, each once
        ([call("a", x=2), call("a", x=1)], [call("a", x=1), call("a", x=2)], {}, 1.0),
        ([call("a", x=1), call("a", x=1)], [call("a", x=1), call("a", x=2)], {}, 0.0),
        ([call("a", x=1)], [call("a", x=1), call("a", x=1)], {}, 0.0),
        # more is given than the reference has
        ([call("a", x=1, y=2)], [call("a", x=1)], {"arguments": "Subset"}, 1.0),
        ([call("a", x={"p": 1, "q": 2})], [call("a", x={"p": 1})], {"arguments": "Subset"}, 1.0),
        ([call("a", x=1)], [call("a", x=1, y=2)], {"arguments": "Subset"}, 0.0),
        # the first could take either: it must leave the one that only the second takes
        ([call("a", x=1, y=1), call("a", x=1)], [call("a", x=1), call("a", x=1, y=1)], {"arguments": "Subset"}, 1.0),
        ([call("a", x=1)], [call("a", x=2)], {"arguments": "Ignore"}, 1.0),
        ([call("a", x=1)], [call("b", x=1)], {"arguments": "Ignore"}, 0.0),
        ([call("a", x=1, id=7)], [call("a", x=1, id=8)], {"ignoreArguments": ["id"]}, 1.0),
        ([call("a", x=1, id=7)], [call("a", x=1)], {"ignoreArguments": ["id"]}, 1.0),
        ([call("a", x=2, id=7)], [call("a", x=1)], {"ignoreArguments": ["id"]}, 0.0),
    ],
)
def test_tool_calls_pass_if_each_matches_an_expected_one_and_none_is_missing(
    found: list[ToolCall], expected: list[ToolCall], match: dict[str, Any], score: float
) -> None:
    grader = compiled(type="ToolCall", toolCall=match)
    item = {"reference_tools": [one.to_wire() for one in expected]}
    assert grader.missing_from(item) == []
    assert grader.missing_from({}) == ["item.reference_tools"]
    graded = grade(grader, item, "", *found)
    assert (graded.score, graded.verdict) == (score, "Passed" if score == 1 else "Failed")


@settings(max_examples=100, deadline=None)
@given(one=values, other=values)
def test_json_equality_is_symmetric_and_implies_containment(one: Any, other: Any) -> None:
    assert json_equal(one, one)
    assert json_equal(one, other) == json_equal(other, one)
    assert json_contains(one, one)
    if json_equal(one, other):
        assert json_contains(one, other) and json_contains(other, one)


@settings(max_examples=50, deadline=None)
@given(made=calls, data=st.data())
def test_the_order_of_calls_does_not_count(made: list[tuple[str, dict[str, Any]]], data: st.DataObject) -> None:
    expected = [ToolCall(name, arguments) for name, arguments in made]
    assert matched_calls(data.draw(st.permutations(expected)), expected, ToolCallMatch()) == len(expected)


BIG = 123456789012345678901230


@pytest.mark.parametrize(("found", "score"), [(BIG, 1.0), (BIG + 1, 0.0), (float(BIG), 0.0)])
def test_whole_numbers_are_compared_exactly_whatever_their_size(found: float, score: float) -> None:
    item = {"reference_tools": [call("a", x=BIG).to_wire()]}
    made = ToolCall.from_wire(call("a", x=found).to_wire())
    assert grade(compiled(type="ToolCall"), item, "", made).score == score


A, B, C = call("a"), call("b"), call("c")


@pytest.mark.parametrize(
    ("found", "expected", "any_order", "in_order"),
    [
        ([A, B, C], [A, B, C], 1.0, 1.0),
        ([B, A, C], [A, B, C], 1.0, 2 / 3),
        ([C, B, A], [A, B, C], 1.0, 1 / 3),
        ([A, B], [A, B, C], 0.8, 0.8),
        ([A, B, C], [A, C], 0.8, 0.8),
        ([A, A], [A], 2 / 3, 2 / 3),
        ([C], [A, B], 0.0, 0.0),
        ([], [A], 0.0, 0.0),
        ([A], [], 0.0, 0.0),
        ([], [], 1.0, 1.0),
    ],
)
def test_partial_credit_is_the_f1_of_the_calls(
    found: list[ToolCall], expected: list[ToolCall], any_order: float, in_order: float
) -> None:
    item = {"reference_tools": [one.to_wire() for one in expected]}
    for order, score in (("Any", any_order), ("InOrder", in_order)):
        partly = compiled(type="ToolCall", toolCall={"order": order, "partialCredit": True})
        assert grade(partly, item, "", *found).score == pytest.approx(score)
        strictly = compiled(type="ToolCall", toolCall={"order": order})
        assert grade(strictly, item, "", *found).score == (1.0 if score == 1 else 0.0)
