"""A grader that is tried says of an output what an Evaluation says of it, in OpenAI's words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from finetune_api.graders import Grader
from finetune_openai.graders.request import RunRequest
from finetune_openai.graders.run import InvalidRequestError, checked, run
from tests.unit.grading.graders import all_compiled, grade_all

OUTPUT = "The cat sat on the mat."
ITEM = {"reference": "The cat is sitting on the mat."}
CODE = {"type": "python", "name": "code", "source": "raise SystemExit\ndef grade(sample, item): return 1\n"}
EXACT = {
    "type": "string_check",
    "name": "Exact match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}
ALIKE = {
    "type": "text_similarity",
    "name": "Alike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "evaluation_metric": "fuzzy_match",
}
ASK = {"role": "user", "content": "How kind is this? {{sample.output_text}}"}
MANY = {"type": "multi", "name": "a", "graders": {f"x{number}": EXACT for number in range(99)}}
METRICS = ("fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")


def result(grader: dict[str, Any], output: str = OUTPUT, item: dict[str, Any] | None = None) -> dict[str, Any]:
    return asyncio.run(run(RunRequest(grader=grader, model_sample=output, item=ITEM if item is None else item)))


@pytest.mark.parametrize(("operation", "reward"), [("eq", 0.0), ("ne", 1.0), ("like", 0.0), ("ilike", 1.0)])
def test_a_string_check_answers_with_its_reward_and_scores(operation: str, reward: float) -> None:
    found = result({**EXACT, "operation": operation}, "THE CAT", {"reference": "the cat"})
    assert found["reward"] == reward
    assert found["metadata"]["scores"] == {"Exact match": reward}
    assert (found["metadata"]["name"], found["metadata"]["type"]) == ("Exact match", "string_check")


@pytest.mark.parametrize("metric", METRICS)
def test_a_text_similarity_is_that_of_an_evaluation(metric: str) -> None:
    ours = {f"rouge_{n}": f"ROUGE{n}" for n in range(1, 6)} | {"fuzzy_match": "FuzzyMatch", "rouge_l": "ROUGEL"}
    settings = {"reference": "{{item.reference}}", "metric": ours.get(metric, metric.upper())}
    graders = [Grader.from_wire({"name": "a", "type": "TextSimilarity", "textSimilarity": settings})]
    (grade,) = grade_all(all_compiled(graders), ITEM, OUTPUT).values()
    assert result({**ALIKE, "evaluation_metric": metric})["reward"] == grade.score


def test_a_multi_has_its_parts_rewards_by_their_names() -> None:
    multi = {
        "type": "multi",
        "name": "both",
        "graders": {"is_exact": EXACT, "alike": ALIKE},
        "calculate_output": "0.1 * is_exact + 0.2 * alike",
    }
    found = result(multi)
    alike = result(ALIKE)["reward"]
    assert found["sub_rewards"] == {"is_exact": 0.0, "alike": alike}
    assert found["reward"] == pytest.approx(0.2 * alike), (
        "a reward that no threshold would ever pass is one all the same"
    )
    assert found["metadata"]["scores"] == {"both": found["reward"], **found["sub_rewards"]}


def test_a_multi_of_one_grader_without_a_key() -> None:
    """As the SDK's type has it."""
    multi = {"type": "multi", "name": "half", "graders": ALIKE, "calculate_output": "Alike / 2"}
    assert result(multi)["sub_rewards"] == {"Alike": result(ALIKE)["reward"]}


@pytest.mark.parametrize(
    ("grader", "output", "code", "details"),
    [
        ({**EXACT, "reference": "{{item.answer}}"}, OUTPUT, "invalid_variable_error", "item.answer"),
        ({**EXACT, "input": "{{sample.output_json.name}}"}, "no JSON", "sample_parse_error", "not JSON"),
        ({**EXACT, "input": "{{sample.output_json.name}}"}, '{"x": 1}', "invalid_variable_error", "name"),
    ],
)
def test_an_output_that_cannot_be_graded_has_the_flag_of_its_error(
    grader: dict[str, Any], output: str, code: str, details: str
) -> None:
    found = result(grader, output)
    assert found["reward"] == 0.0
    errors = found["metadata"]["errors"]
    (why,) = errors.pop("details")
    assert details in why
    assert {name for name, is_set in errors.items() if is_set} == {code}


def test_items_are_read_as_they_are() -> None:
    """Names that a line of our datasets has for itself are fields like others here."""
    grader = {**EXACT, "reference": "{{item.messages}}"}
    assert result(grader, "hello", {"messages": "hello"})["reward"] == 1.0


@pytest.mark.parametrize(
    ("grader", "why"),
    [
        ({**EXACT, "operation": "equals"}, "'eq', 'ne', 'like' or 'ilike'"),
        ({**EXACT, "input": "{{sample.nothing}}"}, "sample.nothing"),
        ({**EXACT, "extra": 1}, "grader.extra: unknown field"),
        ({"type": "python", "name": "a", "source": ""}, "source: String should have at least 1 character"),
        ({**CODE, "source": "x = 1\ndef grade(sample) return 1"}, "python.source: line 2: expected ':'"),
        ({**CODE, "source": "def grade(sample): return 1"}, r"line 1: grade must take \(sample, item\)"),
        ({"type": 7, "name": "a"}, "no equivalent of type 7"),
        ({"type": ["string_check"], "name": "a"}, "no equivalent of type"),
        ({}, "grader.type"),
        ({"type": "multi", "name": "a", "graders": {}, "calculate_output": "1"}, "reads no grader"),
        ({"type": "multi", "name": "a", "graders": {"x": EXACT}, "calculate_output": "x +"}, "formula"),
        ({"type": "multi", "name": "a", "graders": {"x": EXACT}, "calculate_output": "y"}, "y"),
        (
            {"type": "multi", "name": "a", "graders": {f"x{n}": EXACT for n in range(99)}, "calculate_output": "x1"},
            "99",
        ),
    ],
)
def test_a_grader_that_cannot_work_is_refused(grader: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        checked(grader)


def test_python_code_is_valid_and_never_run_in_the_servers_process() -> None:
    checked(CODE)
    checked({**CODE, "image_tag": "2025-05-08"})
    for grader in (CODE, {"type": "multi", "name": "m", "graders": {"x": CODE}, "calculate_output": "x"}):
        with pytest.raises(InvalidRequestError, match="is Python code, which is not run in the API server's process"):
            result(grader)


def test_one_that_asks_a_model_is_valid_and_not_run_here() -> None:
    grader = {"type": "score_model", "name": "kind", "model": "gpt-4o", "input": [ASK]}
    checked(grader)
    with pytest.raises(InvalidRequestError, match="Evaluation"):
        result(grader)
