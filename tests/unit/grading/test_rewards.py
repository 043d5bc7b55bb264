"""Rewards of reinforcement fine-tuning: the graders of an Evaluation, and a formula of their scores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from finetune_api.finetunejob import RFT
from finetune_api.graders import Grader
from finetune_grading.grade_rows import grade_rows
from finetune_grading.registered_graders import check_graders
from finetune_grading.rewards import Rewarded, compile_reward, reward_problem
from finetune_grading.sample import Row, Sample
from finetune_grading.tool_calls import ToolCall

EXACT: dict[str, Any] = {
    "name": "exact-match",
    "type": "StringCheck",
    "stringCheck": {"reference": "{{item.answer}}"},
}
CLOSE: dict[str, Any] = {
    "name": "close",
    "type": "TextSimilarity",
    "textSimilarity": {"reference": "{{item.answer}}", "metric": "FuzzyMatch"},
}
OBJECT: dict[str, Any] = {"name": "object", "type": "JsonSchema", "jsonSchema": {"schema": {"type": "object"}}}
INSIDE: dict[str, Any] = {
    "name": "inside",
    "type": "StringCheck",
    "stringCheck": {"input": "{{sample.output_json.total}}", "reference": "{{item.answer}}"},
}
BOTH: dict[str, Any] = {"name": "both", "type": "Multi", "multi": {"calculateOutput": "0.75*exact_match + 0.25*close"}}


def spec(*graders: dict[str, Any], **changes: Any) -> RFT:
    return RFT.from_wire({"graders": list(graders), **changes})


def rewarded(output: str, settings: RFT, answer: str = "5") -> Rewarded:
    (found,) = asyncio.run(compile_reward(settings).of([Row({"answer": answer}, Sample(output))]))
    return found


def test_the_only_grader_is_the_reward() -> None:
    assert [rewarded(output, spec(EXACT)).reward for output in ("5", "6")] == [1.0, 0.0]


def test_a_formula_weighs_graders_and_a_name_chooses_one() -> None:
    assert rewarded("5", spec(EXACT, OBJECT, reward="0.8*exact_match + 0.2*object")).reward == pytest.approx(0.8)
    assert rewarded("5", spec(EXACT, OBJECT, reward="exact-match")).reward == 1.0
    assert rewarded("5", spec(EXACT, CLOSE, reward="2*exact_match + close")).reward == 1.0


def test_a_reward_is_what_an_evaluation_scores() -> None:
    """The same graders on the same outputs: equal to the last bit."""
    outputs = [f"{number % 13}" * (number % 5) for number in range(250)]
    rows = [Row({"answer": str(at % 7) * 3}, Sample(output)) for at, output in enumerate(outputs)]
    settings = spec(EXACT, CLOSE, reward=BOTH["multi"]["calculateOutput"])
    found = asyncio.run(compile_reward(settings).of(rows))
    graded = asyncio.run(grade_rows(check_graders([Grader.from_wire(one) for one in (EXACT, CLOSE, BOTH)]), rows))
    assert [one.reward for one in found] == [grade.score for grade in graded["both"]]
    assert len({one.reward for one in found}) > 5


def test_an_output_that_lacks_what_is_asked_for_has_no_reward_but_one_that_cant_be_graded_teaches_nothing() -> None:
    assert rewarded("no JSON", spec(INSIDE)).reward == 0.0
    assert rewarded('{"sum": 5}', spec(INSIDE)).reward == 0.0
    assert rewarded('{"total": "5"}', spec(INSIDE)).reward == 1.0
    nothing = rewarded("6", spec(EXACT, reward="1 / exact_match"))
    assert nothing.reward is None
    assert nothing.total.error is not None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (spec(EXACT, reward="exact"), "spec.method.rft.reward: invalid_variable_error: character 1: 'exact'"),
        (spec(EXACT, CLOSE, reward="2 +"), "spec.method.rft.reward: formula_parse_error"),
        (spec(EXACT, reward="exact_match / 0"), "spec.method.rft.reward: invalid_variable_error: it has no value"),
        (spec(EXACT, reward="0.5"), "spec.method.rft.reward: invalid_variable_error: it reads no grader"),
        (spec(EXACT, EXACT, reward="close"), "spec.method.rft.graders: 'exact-match': its name is used twice"),
        (
            spec({"name": "fixed", "type": "StringCheck", "stringCheck": {"input": "{{item.answer}}"}}),
            "spec.method.rft.graders: 'fixed'",
        ),
    ],
)
def test_a_reward_that_cant_work_is_refused_with_its_field(settings: RFT, told: str) -> None:
    assert told in str(reward_problem(settings))


ADD = {"type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}


@pytest.mark.parametrize(
    ("made", "reward"),
    [([ToolCall("add", {"a": 2})], 1.0), ([ToolCall("add", {"a": 2}), ToolCall("add", {})], 2 / 3), ([], 0.0)],
    ids=["right", "one too many", "none"],
)
def test_tool_calls_are_rewarded_by_those_of_the_line(made: list[ToolCall], reward: float) -> None:
    compiled = compile_reward(spec({"name": "calls", "type": "ToolCall", "toolCall": {"partialCredit": True}}))
    row = Row({"reference_tools": [ADD], "tools": [{}]}, Sample(output_text="", tool_calls=tuple(made)))
    (found,) = asyncio.run(compiled.of([row]))
    assert found.reward == pytest.approx(reward)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"reference_tools": "add", "tools": [{}]}, "it must be a list of tool calls"),
        ({"reference_tools": [7], "tools": [{}]}, "call 1 must be an object with function.name"),
        ({"reference_tools": [ADD, {"function": {"name": "add"}}], "tools": [{}]}, "call 2: function.arguments must"),
        ({"reference_tools": [ADD]}, "the example has no 'tools'"),
        ({"reference_tools": []}, None),
        ({"reference_tools": [ADD], "tools": [{}]}, None),
    ],
)
def test_a_line_whose_calls_are_none_is_reported(item: dict[str, Any], told: str | None) -> None:
    problem = compile_reward(spec({"name": "calls", "type": "ToolCall"})).problem_of(item)
    assert problem is None if told is None else problem is not None and told in problem


def test_a_line_without_a_grader_of_calls_may_hold_anything() -> None:
    assert compile_reward(spec(EXACT)).problem_of({"reference_tools": 7}) is None
