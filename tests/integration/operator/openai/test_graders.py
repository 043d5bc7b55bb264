"""/v1/fine_tuning/alpha/graders, by OpenAI's own client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.integration.operator.openai.service import Service

EXACT: Any = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}


def test_a_grader_is_tried_on_an_output(client: openai.OpenAI) -> None:
    found = client.fine_tuning.alpha.graders.run(grader=EXACT, model_sample="42", item={"answer": "42"})
    assert found.reward == 1.0
    assert found.metadata.name == "exact"
    assert not found.metadata.errors.invalid_variable_error
    lacking = client.fine_tuning.alpha.graders.run(grader=EXACT, model_sample="42", item={})
    assert lacking.reward == 0.0
    assert lacking.metadata.errors.invalid_variable_error


def similarity(metric: str) -> Any:
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    return {"type": "text_similarity", "name": "alike", "evaluation_metric": metric, **texts}


def test_meteor_reads_wordnet(client: openai.OpenAI) -> None:
    run = client.fine_tuning.alpha.graders.run
    found = run(grader=similarity("meteor"), model_sample="my auto", item={"answer": "my car"})
    assert found.reward > 0.9, "they mean the same"


def test_a_grader_is_validated(client: openai.OpenAI) -> None:
    assert client.fine_tuning.alpha.graders.validate(grader=EXACT).grader is not None
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.alpha.graders.validate(grader={**EXACT, "input": "{{sample.outputs}}"})
    assert (refused.value.param, refused.value.code) == ("grader", "invalid_grader")
    assert "sample.outputs" in str(refused.value)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"grader": EXACT}, "model_sample"),
        ({"grader": EXACT, "model_sample": 7}, "model_sample"),
        ({"grader": "exact", "model_sample": ""}, "grader"),
        ({"grader": EXACT, "model_sample": "", "item": []}, "item"),
        ({"grader": EXACT, "model_sample": "", "reference_answer": ""}, "reference_answer"),
        ({"grader": {**EXACT, "operation": "is"}, "model_sample": "", "item": {}}, "grader"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(client: openai.OpenAI, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/fine_tuning/alpha/graders/run", body=body, cast_to=object)
    assert refused.value.param == param


def test_who_may_create_no_jobs_tries_no_graders(service: Service) -> None:
    reader = service.client(service.token("reader"))
    with pytest.raises(openai.PermissionDeniedError):
        reader.fine_tuning.alpha.graders.run(grader=EXACT, model_sample="", item={"answer": ""})


def test_texts_that_are_too_long_to_compare_have_an_error(client: openai.OpenAI) -> None:
    run = client.fine_tuning.alpha.graders.run
    found = run(grader=similarity("fuzzy_match"), model_sample="ab" * 10_000, item={"answer": "ba" * 10_000})
    assert found.metadata.errors.other_error
    assert found.reward == 0.0
