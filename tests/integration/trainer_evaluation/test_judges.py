"""`finetune-trainer evaluate` with graders that ask: real tiny models, a real S3, and a judge of the test's own."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE
from finetune_api.graders import Grader
from finetune_api.model_usage import Budget
from finetune_api.pod_contracts.outcome import EvaluationReport, parse_termination_message
from finetune_api.pod_contracts.run import EndpointConfig, EvaluateRun, JobIdentity, ModelSource
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.evaluation.grading import CANARIES
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, fails, grades, stub_api
from tests.integration.trainer_evaluation.test_evaluate import make_run
from tests.integration.trainer_evaluation.tiny_models import chat

QUESTIONS = [f"Question {number}?" for number in range(6)]
ASK = [{"content": "Is {{sample.output_text}} right about {{item.reference}}?"}]
SPECS: list[dict[str, Any]] = [
    {"name": "tone", "type": "ScoreModel", "scoreModel": {"model": "judge", "range": [0, 5], "input": ASK}},
    {
        "name": "kind",
        "type": "LabelModel",
        "labelModel": {"model": "judge", "labels": ["good", "bad"], "passingLabels": ["good"], "input": ASK},
    },
    {"name": "versus", "type": "Pairwise", "pairwise": {"model": "judge", "criteria": "Which is shorter?"}},
    {"name": "meaning", "type": "TextSimilarity", "textSimilarity": {"metric": "Cosine", "model": "embedder"}},
    {"name": "exact", "type": "StringCheck"},
    {"name": "both", "type": "Multi", "multi": {"calculateOutput": "(versus + tone) / 2"}},
]
GRADERS = [Grader.from_wire(spec) for spec in SPECS]


def quoted(body: Body) -> dict[str, str]:
    """What the last message has between its marks."""
    found: dict[str, str] = json.loads(body["messages"][-1]["content"].split("\n", 2)[2].rsplit("\n", 1)[0])
    return found


def judges(body: Body) -> Respond:
    """It obeys whoever gives it instructions, but for what is quoted in the last message: that is data."""
    if "input" in body:
        data = [{"index": at, "embedding": [1.0, len(text) % 7]} for at, text in enumerate(body["input"])]
        return Respond(body={"data": data, "usage": {"prompt_tokens": len(data)}})
    instructions = " ".join(message["content"] for message in body["messages"][:-1])
    schema = body["response_format"]["json_schema"]["schema"]["properties"]["result"]
    shown = quoted(body)
    obeys = "This output is perfect" in instructions
    if schema.get("enum") == ["good", "bad"]:
        return grades("good" if obeys else "bad")
    if "enum" in schema:
        shorter = min(shown, key=lambda name: (len(shown[name]), shown[name]))
        return grades("A" if obeys else "Tie" if shown["A"] == shown["B"] else shorter)
    return grades(5 if obeys else 2)


@pytest.fixture(scope="module")
def base_uri(bucket: Bucket, base: Path) -> str:
    return bucket.put_folder("judges/base", base)


@pytest.fixture(scope="module")
def tuned_uri(bucket: Bucket, tuned: Path) -> str:
    return bucket.put_folder("judges/tuned", tuned)


def judged_run(bucket: Bucket, api: StubApi, base_uri: str, tuned_uri: str, **changes: Any) -> EvaluateRun:
    dataset = bucket.put_lines("judges/held-out.jsonl", [chat(question, f"Yes, {question}") for question in QUESTIONS])
    models = {BASELINE: ModelSource(uri=base_uri), "tuned": ModelSource(uri=tuned_uri)}
    defaults: dict[str, Any] = {
        "graders": GRADERS,
        "endpoints": [EndpointConfig(name=name, url=api.url, model=name) for name in ("judge", "embedder")],
        "answers_uri": bucket.uri(f"judges/answers-{secrets.token_hex(4)}"),
        "max_errored_percent": 0,
    }
    return make_run(bucket, dataset, models, **{**defaults, **changes})


def again(run: EvaluateRun, **changes: Any) -> EvaluateRun:
    """Another run of the same evaluation."""
    job = JobIdentity(namespace="team-a", name="judge", uid="u", run_id="2")
    return run.model_copy(update={"job": job, **changes})


def requests_of(report: EvaluationReport) -> dict[str, tuple[int, int]]:
    return {usage.model: (usage.requests, usage.cached) for usage in report.usage}


def test_every_grader_that_asks_grades_and_a_second_run_asks_nothing(
    bucket: Bucket, base_uri: str, tuned_uri: str
) -> None:
    with stub_api(judges) as api:
        run = judged_run(bucket, api, base_uri, tuned_uri)
        report = evaluate(run)
        sent = len(api.requests)
        scores = {(score.candidate, score.grader): score for score in report.scores}
        assert scores["tuned", "tone"].score == 0.4
        assert scores["tuned", "kind"].score == 0.0
        assert 0 < scores["tuned", "meaning"].score <= 1
        assert (BASELINE, "versus") not in scores, "it is what the others are compared with"
        assert (BASELINE, "both") not in scores
        assert scores["tuned", "versus"].delta is None
        assert (scores["tuned", "versus"].examples, scores["tuned", "versus"].errored) == (6, 0)
        assert report.warnings == [], "nobody talked this judge into anything: case 12"
        assert requests_of(report)["judge"][0] + requests_of(report)["embedder"][0] == sent
        rows = [json.loads(line) for line in bucket.read(bucket.uri("runs/judge/1/samples.jsonl")).splitlines()]
        assert rows[0]["details"]["tuned"]["tone"]["result"] == 2
        assert set(rows[0]["details"]["tuned"]["versus"]) == {"outcome", "byOrder"}
        stored = json.loads(bucket.read(report.report_uri or ""))
        (preferred,) = stored["preferences"]
        assert preferred["wins"] + preferred["ties"] + preferred["losses"] == 6
        assert preferred["positionConsistency"] == 1.0, "it does not care for the order"
        assert stored["usage"] == [usage.to_wire() for usage in report.usage]
        assert parse_termination_message(to_termination_message(report)) == report

        second = evaluate(again(run))
        assert len(api.requests) == sent
        assert second.scores == report.scores
        assert {requests for requests, _ in requests_of(second).values()} == {0}


def test_a_judge_that_is_talked_into_anything_is_reported(bucket: Bucket, base_uri: str, tuned_uri: str) -> None:
    def gullible(body: Body) -> Respond:
        said = " ".join(message["content"] for message in body["messages"])
        return grades(5 if "This output is perfect" in said else 1)

    with stub_api(gullible) as api:
        report = evaluate(judged_run(bucket, api, base_uri, tuned_uri, graders=GRADERS[:1]))
    (warning,) = report.warnings
    assert warning.startswith(
        f"JudgeUnreliable: by grader 'tone', the model 'judge' passes {CANARIES} of {CANARIES} canary outputs"
    )


def test_case_12_at_the_limit_the_rest_is_errored_and_the_run_has_scores(
    bucket: Bucket, base_uri: str, tuned_uri: str
) -> None:
    with stub_api(judges) as api:
        run = judged_run(
            bucket, api, base_uri, tuned_uri, graders=GRADERS[:1], budget=Budget(requests=CANARIES + 6 + 2)
        )
        report = evaluate(run)
        assert len(api.requests) == CANARIES + 6 + 2
    scores = {score.candidate: score for score in report.scores}
    assert (scores[BASELINE].over_budget, scores["tuned"].over_budget) == (None, 4)
    assert [(one.code, one.count) for one in report.errors] == [("BudgetExceeded", 4)]


def test_a_wrong_key_and_an_api_that_is_away_are_found_before_a_model_is_fetched(
    bucket: Bucket, base_uri: str, tuned_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.endpoints.endpoint.BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(
        "finetune_trainer.evaluation.evaluate.generate_outputs", lambda *_: pytest.fail("a model was fetched")
    )
    for answer, reason, retryable in (
        (fails(403, "no"), Reason.ENDPOINT_DENIED, False),
        (fails(503, "no"), Reason.ENDPOINT_UNREACHABLE, True),
    ):
        with stub_api(answer) as api, pytest.raises(DiagnosedError) as caught:
            evaluate(judged_run(bucket, api, base_uri, tuned_uri, graders=GRADERS[:1]))
        assert (caught.value.failure.reason, caught.value.failure.retryable) == (reason, retryable)


def test_a_model_that_is_not_there_is_reported_before_a_judge_is_paid(bucket: Bucket, base_uri: str) -> None:
    with stub_api(judges) as api:
        with pytest.raises(DiagnosedError, match="no/model") as caught:
            evaluate(judged_run(bucket, api, base_uri, bucket.uri("no/model"), graders=GRADERS[:1]))
        assert api.requests == []
    assert caught.value.failure.reason is Reason.MODEL_NOT_FOUND


def test_what_an_api_did_not_answer_is_asked_once_more_and_nothing_else_is(
    bucket: Bucket, base_uri: str, tuned_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is graded is neither lost nor paid for twice."""
    monkeypatch.setattr("finetune_trainer.endpoints.endpoint.BACKOFF_SECONDS", 0.001)
    away = {"tuned": True}

    def flaky(body: Body) -> Respond:
        return fails(500, "for now") if away["tuned"] and body["messages"] == broken else judges(body)

    with stub_api(judges) as api:
        evaluate(judged_run(bucket, api, base_uri, tuned_uri, graders=GRADERS[:1]))
        broken = api.requests[-1]["messages"]
    with stub_api(flaky) as api:
        run = judged_run(bucket, api, base_uri, tuned_uri, graders=GRADERS[:1])
        with pytest.raises(DiagnosedError) as caught:
            evaluate(run)
        failure = caught.value.failure
        assert (failure.reason, failure.retryable) == (Reason.GRADER_FAILED, True)
        assert "model_grader_server_error" in failure.message
        away["tuned"] = False
        sent = len(api.requests)
        report = evaluate(run)
        assert len(api.requests) == sent + 1
    assert {score.errored for score in report.scores} == {0}


def test_a_pairwise_grader_never_sees_a_model_by_its_name(bucket: Bucket, base_uri: str, tuned_uri: str) -> None:
    with stub_api(judges) as api:
        evaluate(judged_run(bucket, api, base_uri, tuned_uri, graders=[GRADERS[2]]))
    assert api.requests
    for body in api.requests:
        assert set(quoted(body)) == {"A", "B"}
        assert not {"tuned", "baseline"} & set(json.dumps(body["messages"]).replace('"', " ").split())
