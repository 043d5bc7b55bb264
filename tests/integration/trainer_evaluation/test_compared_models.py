"""`finetune-trainer evaluate` on models behind an API and on outputs that exist already: real S3, HTTP, tiny models."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, Generation
from finetune_api.finetuneclass import Prices
from finetune_api.graders import Grader
from finetune_api.model_usage import Budget
from finetune_api.pod_contracts.outcome import Failure, parse_termination_message
from finetune_api.pod_contracts.run import EndpointConfig, EvaluateRun, ModelSource, NamedModel
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_trainer.endpoints import endpoint as endpoint_module
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.outputs import endpoint_outputs
from finetune_trainer.outputs.endpoint_outputs import to_messages
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, fails, grades, says, stub_api
from tests.integration.trainer_evaluation.test_evaluate import EXACT, MAX_TOKENS, by_name, make_run
from tests.integration.trainer_evaluation.test_judges import again
from tests.integration.trainer_evaluation.tiny_models import chat
from tests.integration.trainer_evaluation.tiny_vision_models import png

QUESTIONS = [f"Question {number}?" for number in range(8)]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
SEEN = NamedModel(name="seen", endpoint="big")
RATED = {"model": "big", "input": [{"content": "Rate {{sample.output_text}}"}]}
TONE = Grader.from_wire({"name": "tone", "type": "ScoreModel", "scoreModel": RATED})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(endpoint_module, "BACKOFF_SECONDS", 0.001)
    yield


@pytest.fixture(scope="module")
def dataset(bucket: Bucket) -> str:
    return bucket.put_lines("compared/held-out.jsonl", [chat(one, f"Yes: {one}") for one in QUESTIONS])


def answers_well(body: Body) -> Respond:
    return says(f"Yes: {body['messages'][-1]['content']}")


def compared(bucket: Bucket, dataset: str, api: StubApi | None, *models: NamedModel, **changes: Any) -> EvaluateRun:
    prices = Prices(prompt_per_million=10, completion_per_million=100)
    endpoint = EndpointConfig(
        name="big", url=api.url if api else "", model="big-1", prices=prices, **changes.pop("of_endpoint", {})
    )
    defaults: dict[str, Any] = {
        "endpoints": [endpoint] if api else [],
        "answers_uri": bucket.uri(f"compared/answers-{secrets.token_hex(4)}"),
    }
    return make_run(bucket, dataset, {}, **{**defaults, **changes}).model_copy(update={"models": list(models)})


def rows(bucket: Bucket) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()]


def failure_of(run: EvaluateRun) -> Failure:
    with pytest.raises(DiagnosedError) as caught:
        evaluate(run)
    return caught.value.failure


def ready(name: str, uri: str) -> NamedModel:
    return NamedModel(name=name, outputs_uri=uri)


def test_the_model_to_be_replaced_is_the_baseline_and_earlier_outputs_are_a_candidate(
    bucket: Bucket, dataset: str, tuned: Path
) -> None:
    before = bucket.put_lines(
        "compared/before.jsonl",
        [
            {"output_text": "Yes: Question 0?", "usage": {"prompt_tokens": 7, "completion_tokens": 3}, "seconds": 0.5}
            for _ in QUESTIONS
        ],
    )
    loaded = NamedModel(name="tuned", model=ModelSource(uri=bucket.put_folder("compared/tuned", tuned)))
    big = NamedModel(name=BASELINE, endpoint="big")
    with stub_api(answers_well) as api:
        run = compared(bucket, dataset, api, big, loaded, ready("before", before))
        report = evaluate(run)
        assert len(api.requests) == 8
        assert all(set(body) >= {"model", "messages", "temperature", "seed"} for body in api.requests)
        assert not any("top_p" in body for body in api.requests), "the API has its own"
        assert [body["max_completion_tokens"] for body in api.requests] == [MAX_TOKENS] * 8
        second = evaluate(again(run))
        assert len(api.requests) == 8, "nothing is paid for twice"
    scores = by_name(report.scores)
    assert (scores[BASELINE, "exact"].score, scores["tuned", "exact"].score, scores["before", "exact"].score) == (
        1.0,
        0.0,
        0.125,
    )
    assert scores["tuned", "exact"].delta == -1.0
    assert second.scores == report.scores

    took = {one.candidate: one for one in report.outputs}
    assert list(took) == [BASELINE, "tuned", "before"]
    assert (took[BASELINE].prompt_tokens, took[BASELINE].completion_tokens) == (800, 160)
    assert took[BASELINE].cost == pytest.approx((800 * 10 + 160 * 100) / 1e6)
    assert (took[BASELINE].measurements, took[BASELINE].count) == (8, 8)
    low, median, high = (took[BASELINE].to_wire()[f"latency{which}Milliseconds"] for which in ("Low", "", "High"))
    assert 0 <= low <= median <= high < 60_000
    assert (took["tuned"].measurements, took["tuned"].latency_milliseconds) == (1, None), (
        "one batch: no interval, no number"
    )
    assert 8 <= (took["tuned"].completion_tokens or 0) <= 8 * MAX_TOKENS
    assert (took["tuned"].cost, took["before"].cost) == (None, None)
    assert (took["before"].prompt_tokens, took["before"].latency_milliseconds) == (56, 500)
    of_second = {one.candidate: one for one in second.outputs}
    assert of_second[BASELINE] == took[BASELINE], "what they took is known, though nobody was asked now"
    assert [(one.model, one.requests, one.cached, one.cost) for one in second.usage] == [("big", 0, 8, 0.0)]

    first = rows(bucket)[0]
    assert first["outputs"][BASELINE] == "Yes: Question 0?"
    assert first["usage"][BASELINE]["completionTokens"] == 20
    assert first["usage"][BASELINE]["cost"] == pytest.approx((100 * 10 + 20 * 100) / 1e6)
    assert set(first["usage"]["tuned"]) == {"promptTokens", "completionTokens", "seconds"}
    stored = json.loads(bucket.read(report.report_uri or ""))
    assert stored["outputs"] == [one.to_wire() for one in report.outputs]
    assert parse_termination_message(to_termination_message(report)) == report


def test_messages_tools_and_images_are_sent_as_the_api_knows_them(bucket: Bucket) -> None:
    image = bucket.put("compared/red.png", png("red"))
    picture = {"type": "image_url", "image_url": {"url": image}}
    call = {"type": "function", "function": {"name": "look_up", "arguments": '{"b": 1, "a": 2}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, picture]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "red"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    elsewhere = {**TOOL, "server_url": "http://169.254.169.254"}
    dataset = bucket.put_lines("compared/tools.jsonl", [{"messages": messages, "tools": [elsewhere]}])
    grader = Grader.from_wire({"name": "calls", "type": "ToolCall"})
    with stub_api(says(None, tool_calls=[{"id": "x", **call}])) as api:  # type: ignore[arg-type]
        report = evaluate(
            compared(bucket, dataset, api, SEEN, graders=[grader], allowed_images=[bucket.uri("compared/*")])
        )
    assert report.scores[0].score == 1.0
    (body,) = api.requests
    assert body["tools"] == [TOOL], "an API is not told of other servers"
    developer, user, assistant, tool = body["messages"]
    assert developer == {"role": "developer", "content": "Be brief."}
    assert user["content"][0] == {"type": "text", "text": "What?"}
    assert user["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert assistant["tool_calls"] == [{"id": "call_1", **call}], "with its arguments as written"
    assert tool == {"role": "tool", "content": "red", "tool_call_id": "call_1"}


def test_each_sample_is_a_question_of_its_own_and_a_text_is_the_users(bucket: Bucket) -> None:
    dataset = bucket.put_lines("compared/text.jsonl", [{"prompt": "1 + 1 =", "completion": "2"}])
    generation = Generation(temperature=0.7, top_p=0.9, samples_per_example=3, seed=5)
    with stub_api(says("2"), says("3"), says("2")) as api:
        report = evaluate(compared(bucket, dataset, api, SEEN, generation=generation))
        assert {body["top_p"] for body in api.requests} == {0.9}
    assert sorted(body["seed"] for body in api.requests) == [5, 6, 7]
    assert {json.dumps(body["messages"]) for body in api.requests} == {'[{"role": "user", "content": "1 + 1 ="}]'}
    assert report.scores[0].score == pytest.approx(2 / 3, abs=1e-4)


def test_what_the_api_does_not_answer_is_errored_and_no_grader_is_asked_about_it(bucket: Bucket, dataset: str) -> None:
    def sometimes(body: Body) -> Respond:
        if "response_format" in body:
            return grades(1)
        return fails(500, "no") if "Question 3" in str(body["messages"]) else answers_well(body)

    with stub_api(sometimes) as api:
        run = compared(bucket, dataset, api, SEEN, graders=[EXACT, TONE])
        failure = failure_of(run)
        assert (failure.reason, failure.retryable) == (Reason.GRADER_FAILED, True)
        assert "1 of 8 outputs of 'seen' (12.5 %" in failure.message
        assert "line 4: NoOutput: The API of the model 'big'" in failure.message
        report = evaluate(run.model_copy(update={"max_errored_percent": 20}))
        judged = [body for body in api.requests if "response_format" in body and "answers nothing" not in str(body)]
    assert "No output" not in str(judged)
    exact = by_name(report.scores)["seen", "exact"]
    assert (exact.passed, exact.failed, exact.errored, exact.score) == (7, 0, 1, 0.875)
    assert {(one.grader, one.code, one.count, one.first_line) for one in report.errors} == {
        ("exact", "NoOutput", 1, 4),
        ("tone", "NoOutput", 1, 4),
    }
    assert report.outputs[0].count == 7
    assert rows(bucket)[3]["outputs"]["seen"] is None
    assert any(
        warning.startswith("JudgesItself: by grader 'tone', the model 'big' grades") for warning in report.warnings
    )


def test_at_the_limit_of_the_budget_the_rest_has_no_output_and_no_verdict(bucket: Bucket, dataset: str) -> None:
    with stub_api(answers_well) as api:
        report = evaluate(compared(bucket, dataset, api, SEEN, budget=Budget(requests=5)))
        assert len(api.requests) == 5
    assert (report.scores[0].over_budget, report.outputs[0].count) == (3, 5)


def test_what_an_earlier_try_paid_for_is_in_the_budget_before_anything_is_sent(bucket: Bucket, dataset: str) -> None:
    backwards = bucket.put_lines("compared/backwards.jsonl", [chat(one, "Yes") for one in reversed(QUESTIONS)])
    with stub_api(answers_well) as api:
        run = compared(bucket, dataset, api, SEEN, budget=Budget(requests=5), of_endpoint={"concurrency": 1})
        evaluate(run)
        second = evaluate(run.model_copy(update={"dataset_uri": backwards}))
        assert len(api.requests) == 5
    assert (second.scores[0].over_budget, second.outputs[0].count) == (3, 5)


def test_no_more_bodies_are_made_than_are_sent_at_once(
    bucket: Bucket, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return to_messages(*arguments)

    monkeypatch.setattr(endpoint_outputs, "to_messages", counted)
    waiting: list[int] = []

    def answer(body: Body) -> Respond:
        waiting.append(len(made) - len(waiting))
        return answers_well(body)

    with stub_api(answer) as api:
        report = evaluate(compared(bucket, dataset, api, SEEN, of_endpoint={"concurrency": 2}))
    assert report.scores[0].score == 1.0
    assert len(waiting) == 8
    assert max(waiting) <= 2


@pytest.mark.parametrize(
    ("reason", "text", "why"),
    [
        ("length", None, "used up spec.generation.maxTokens"),
        ("length", " ", "used up spec.generation.maxTokens"),
        ("content_filter", "", "a content filter of the model 'big' withheld it"),
    ],
)
def test_a_model_that_was_cut_off_before_it_said_anything_has_no_output(
    bucket: Bucket, dataset: str, reason: str, text: str, why: str
) -> None:
    def thinks(body: Body) -> Respond:
        return says(text, finish_reason=reason) if "Question 3" in str(body["messages"]) else answers_well(body)

    with stub_api(thinks) as api:
        report = evaluate(compared(bucket, dataset, api, SEEN, max_errored_percent=20))
    assert [(one.code, one.count, one.first_line) for one in report.errors] == [("NoOutput", 1, 4)]
    assert report.outputs[0].count == 7
    (row,) = [one for one in rows(bucket) if one["line"] == 4]
    assert row["outputs"]["seen"] is None
    assert why in row["errors"]["seen"]["exact"]["details"]
    told = [one for one in report.warnings if one.startswith("OutputsTruncated: 1 of 8 outputs of 'seen' end at")]
    assert len(told) == (reason == "length")


@pytest.mark.parametrize(("also_away", "most"), [(False, 0), (True, 0), (True, 12.5)])
def test_outputs_that_are_cut_off_are_no_reason_to_try_again_and_silence_of_the_api_is(
    bucket: Bucket, dataset: str, also_away: bool, most: float
) -> None:
    """Another try has the same outputs from the cache: only where these alone would do may it help."""

    def thinks(body: Body) -> Respond:
        if "Question 3" in str(body["messages"]):
            return says(None, finish_reason="length")  # type: ignore[arg-type]
        return fails(500, "no") if also_away and "Question 5" in str(body["messages"]) else answers_well(body)

    with stub_api(thinks) as api:
        failure = failure_of(compared(bucket, dataset, api, SEEN, max_errored_percent=most))
    assert failure.reason is Reason.GRADER_FAILED
    assert failure.retryable == (most > 0)


def test_what_a_model_said_before_it_was_cut_off_is_graded_and_reported(bucket: Bucket, dataset: str) -> None:
    with stub_api(says("Yes: ", finish_reason="length")) as api:
        report = evaluate(compared(bucket, dataset, api, SEEN))
    assert (report.scores[0].score, report.scores[0].errored, report.outputs[0].count) == (0.0, 0, 8)
    (warning,) = report.warnings
    assert warning.startswith("OutputsTruncated: 8 of 8 outputs of 'seen' end at spec.generation.maxTokens")


@pytest.mark.parametrize("tool", [{"type": "mcp", "server_url": "http://169.254.169.254"}, {"name": "look_up"}])
def test_tools_that_an_api_would_run_itself_are_refused_by_line(bucket: Bucket, tool: dict[str, Any]) -> None:
    lines = [chat("What?", "That."), chat("What?", "That.", tools=[TOOL, tool])]
    dataset = bucket.put_lines("compared/foreign-tools.jsonl", lines)
    with stub_api(answers_well) as api:
        failure = failure_of(compared(bucket, dataset, api, SEEN))
        assert api.requests == []
    assert failure.reason is Reason.DATASET_INVALID
    assert f"Line 2 of {dataset}: Tools of type {tool.get('type')!r} are not sent" in failure.message


def test_a_setting_that_the_api_refuses_is_reported_also_when_the_cache_answers(bucket: Bucket, dataset: str) -> None:
    def only_default(body: Body) -> Respond:
        if "temperature" in body:
            return fails(400, "Unsupported value: 'temperature'", param="temperature")
        return answers_well(body)

    with stub_api(only_default) as api:
        run = compared(bucket, dataset, api, SEEN)
        for report in (evaluate(run), evaluate(again(run))):
            (warning,) = report.warnings
            assert warning.startswith("OptionRefused: the API of the model 'big' refuses temperature: 'seen' answers")


@pytest.mark.parametrize(
    ("of_endpoint", "answer", "reason", "what"),
    [
        ({"secret_name": "api-key"}, says("x"), Reason.SECRET_NOT_FOUND, "create secret generic api-key"),
        ({}, fails(401, "no"), Reason.ENDPOINT_DENIED, "rejected the key: 401"),
        ({}, fails(404, "no"), Reason.MODEL_NOT_FOUND, "has no model 'big-1'"),
    ],
)
def test_an_api_that_can_not_be_asked_is_found_before_a_model_is_fetched(
    bucket: Bucket, dataset: str, of_endpoint: Mapping[str, Any], answer: Respond, reason: Reason, what: str
) -> None:
    for name in ("config.json", "model.safetensors"):
        bucket.put(f"compared/broken/{name}", b"no model at all")
    broken = NamedModel(name="tuned", model=ModelSource(uri=bucket.uri("compared/broken")))
    with stub_api(answer) as api:
        failure = failure_of(compared(bucket, dataset, api, broken, SEEN, of_endpoint=of_endpoint))
    assert failure.reason is reason
    assert what in f"{failure.message} {failure.suggestion}"


def with_ids(bucket: Bucket) -> str:
    lines = [chat(one, "Yes", id=f"q{at}") for at, one in enumerate(QUESTIONS)]
    return bucket.put_lines("compared/with-ids.jsonl", lines)


def test_outputs_are_found_by_their_ids_in_any_order(bucket: Bucket) -> None:
    lines = [{"id": f"q{at}", "output_text": "Yes" if at < 3 else "No"} for at in reversed(range(8))]
    uri = bucket.put_lines("compared/by-id.jsonl", lines)
    report = evaluate(compared(bucket, with_ids(bucket), None, ready("before", uri)))
    assert report.scores[0].score == 0.375
    assert [row["outputs"]["before"] for row in rows(bucket)] == ["Yes"] * 3 + ["No"] * 5
    part = evaluate(compared(bucket, with_ids(bucket), None, ready("before", uri), limit_examples=4))
    assert (part.scores[0].score, part.scores[0].examples) == (0.75, 4)


OK = [{"id": f"q{at}", "output_text": "Yes"} for at in range(8)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [one for at, one in enumerate(OK) if at not in (2, 5)],
            "there is no output to 2 of 8 examples: those in line 3, 6 of the dataset.",
        ),
        ([*OK, {"id": "q9", "output_text": "x"}], "line 9 has the id 'q9', which the dataset does not have."),
        ([*OK, OK[0]], "line 9 is one more output with the id 'q0'; 1 are expected."),
        ([*OK[:7], {"output_text": "x"}], "line 8 has no `id`, and line 1 has one."),
        ([{"output_text": "x"}] * 6, "there is no output to 2 of 8 examples: those in line 7, 8 of the dataset."),
        ([{"output_text": "x"}] * 9, "it has 9 outputs, and the dataset 8 examples."),
        ([*OK[:7], {"id": "q7", "text": "x"}], "Line 8 of s3://evaluation/compared/wrong.jsonl: `output_text` must be"),
        ([*OK[:7], {"id": True, "output_text": "x"}], "`id` must be a string or a whole number."),
        ([*OK[:7], {**OK[7], "seconds": -1}], "`seconds` must be a number"),
        ([*OK[:7], {**OK[7], "usage": {"prompt_tokens": 1.5}}], "`usage.prompt_tokens` must be a whole number."),
        ([*OK[:7], {"id": "q7", "output_tools": [{"name": "x"}]}], "`output_tools` must be a list of tool calls"),
    ],
)
def test_outputs_that_do_not_fit_the_dataset_name_the_lines(bucket: Bucket, lines: list[Any], message: str) -> None:
    uri = bucket.put_lines("compared/wrong.jsonl", lines)
    with stub_api(answers_well) as api:
        failure = failure_of(compared(bucket, with_ids(bucket), api, SEEN, ready("before", uri)))
        assert api.requests == [], "before anything is paid for"
    assert failure.reason is Reason.DATASET_INVALID
    assert message in failure.message


def test_an_output_that_repeats_a_key_names_the_line(bucket: Bucket, dataset: str) -> None:
    lines = b"".join(b'{"output_text": "Yes", "output_text": "No"}\n' for _ in QUESTIONS)
    failure = failure_of(compared(bucket, dataset, None, ready("before", bucket.put("compared/keys.jsonl", lines))))
    assert failure.reason is Reason.DATASET_INVALID
    assert "Line 1 of" in failure.message
    assert "The key 'output_text' appears twice in one object." in failure.message


def test_outputs_that_are_not_there_or_not_allowed(bucket: Bucket, dataset: str) -> None:
    nowhere = ready("before", bucket.uri("compared/nothing.jsonl"))
    failure = failure_of(compared(bucket, dataset, None, nowhere))
    assert (failure.reason, "compared/nothing.jsonl" in failure.message) == (Reason.DATASET_NOT_FOUND, True)
    refused = failure_of(compared(bucket, dataset, None, nowhere, allowed_datasets=[dataset]))
    assert refused.reason in (Reason.SOURCE_NOT_ALLOWED, Reason.DATASET_NOT_FOUND)
