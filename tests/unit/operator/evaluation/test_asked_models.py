"""Graders that ask a model of the class: what they wait for, what the Pod gets, and what a budget leaves open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import ConditionType, Reason
from finetune_api.evaluation import Score
from finetune_api.finetuneclass import ListedModel
from finetune_api.model_usage import ModelUsage
from finetune_api.pod_contracts.outcome import EvaluationReport, Failure
from finetune_api.pod_contracts.run import EndpointConfig, EvaluateRun, NamedModel
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.core.digest import DIGEST_ANNOTATION
from finetune_operator.evaluation.objects import evaluate_objects
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan
from finetune_operator.evaluation.refusal import grading_refusal
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.models.endpoints import endpoint_config
from finetune_operator.models.observe import resolve_endpoint
from tests.unit.operator.evaluation.plans import JOB, NEW, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION,
    SCORES,
    evaluated_status,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    tuned,
)
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import NOW, failed_pod, job, resolved_class, succeeded_pod

LARGE = {
    "name": "large",
    "url": "https://api.example.com/v1",
    "model": "large-2026",
    "credentialsSecretName": "api-key",
    "requestsPerMinute": 60,
}
TONE = {
    "name": "tone",
    "type": "ScoreModel",
    "scoreModel": {"model": "large", "input": [{"content": "{{sample.output_text}}"}]},
}
VERSUS = {"name": "versus", "type": "Pairwise", "pairwise": {"model": "large", "criteria": "Which is shorter?"}}
CLASS = resolved_class(models=[LARGE, {"name": "open", "url": "http://vllm.models.svc/v1"}])
CONFIG = endpoint_config(ListedModel.from_wire(LARGE))


def observed(*endpoints: EndpointConfig | Readiness, **changes: Any) -> ObservedEvaluation:
    spec = changes.pop("spec", evaluation_spec(graders=[TONE], gates=[{"grader": "tone", "minimum": 0.5}]))
    return observed_evaluation(changes.pop("status", NEW), spec=spec, class_=CLASS, endpoints=endpoints, **changes)


def parts(made: ObservedEvaluation) -> tuple[EvaluateRun, Object]:
    config_map, evaluate = plan(made, NOW).create
    spec: Object = evaluate["spec"]["template"]["spec"]
    return EvaluateRun.model_validate_json(config_map["data"]["run.json"]), spec


async def resolved(
    name: str, kube: FakeKube | None = None, class_: ResolvedClass = CLASS
) -> EndpointConfig | Readiness:
    return await resolve_endpoint(kube or FakeKube(), "team-a", class_, name, "Grader 'tone' asks")


async def test_a_model_that_the_class_does_not_list_starts_nothing() -> None:
    found = await resolved("larger")
    assert isinstance(found, Readiness)
    result = decide(observed(found))
    assert (result.decision.reason, result.decision.stalled, result.decision.writes) == ("ModelNotListed", True, ())
    assert result.message.startswith(
        "Grader 'tone' asks the model 'larger', and FineTuneClass 'cpu' lists large, open. Name one of these"
    )


async def test_the_pod_gets_how_to_ask_the_model_and_its_one_key() -> None:
    found = await resolved("large")
    assert isinstance(found, EndpointConfig)
    run, spec = parts(observed(found))
    (endpoint,) = run.endpoints
    assert (endpoint.url, endpoint.model, endpoint.secret_name) == (LARGE["url"], "large-2026", "api-key")
    assert (endpoint.requests_per_minute, endpoint.concurrency) == (60, 8)
    assert run.answers_uri == "s3://models/finetune/team-a/_answers"
    (volume,) = [one for one in spec["volumes"] if one["name"] == "model-key-large"]
    items = [{"key": "API_KEY", "path": "API_KEY"}]
    assert volume["secret"] == {"secretName": "api-key", "items": items, "defaultMode": 0o440}
    (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "model-key-large"]
    assert mount["mountPath"] == "/var/run/secrets/finetune.dev/models/large"
    assert mount["readOnly"] is True
    assert "api-key" not in str(spec["containers"][0]["env"])


async def test_a_model_without_a_key_has_none_and_graders_that_ask_none_have_no_model() -> None:
    found = await resolved("open")
    assert isinstance(found, EndpointConfig)
    assert (found.model, found.secret_name) == ("open", None)
    for made in (observed(found), observed_evaluation(NEW)):
        _, spec = parts(made)
        assert [one["name"] for one in spec["volumes"] if one["name"].startswith("model-key")] == []
    assert parts(observed_evaluation(NEW))[0].answers_uri is None


def test_tries_of_a_run_share_a_budget_and_other_models_or_questions_have_their_own() -> None:
    """A job that is trained again is judged again under the same runId: by a budget that was not used up."""

    def run_key(digest: str = "sha256:aa", number: int = 1, **changes: Any) -> str:
        source = tuned(digest).source
        spec = evaluation_spec(**changes)
        objects = evaluate_objects(
            EVALUATION, spec, CLASS, [NamedModel(name="tuned", model=source)], f"evaluate-{number}"
        )
        return EvaluateRun.model_validate_json(objects[0]["data"]["run.json"]).run_key

    first = run_key()
    assert first and first == run_key(number=2) == run_key(budget={"requests": 9}) == run_key(retryLimit=1)
    assert first != run_key("sha256:bb")
    assert first != run_key(dataset={"uri": "s3://data/other.jsonl"})


def deployment(**status: Any) -> FakeKube:
    path = "GET /apis/finetune.dev/v1alpha1/namespaces/models/modeldeployments/guard"
    spec = {"model": {"uri": "s3://models/guard"}}
    return FakeKube({path: {"metadata": {"name": "guard"}, "spec": spec, "status": status}})


async def test_a_model_of_a_model_deployment_is_waited_for_and_known_by_its_digest() -> None:
    guard = {"name": "guard", "modelDeploymentRef": {"name": "guard", "namespace": "models"}}
    class_ = resolved_class(models=[guard])
    gone = await resolved("guard", class_=class_)
    assert isinstance(gone, Readiness)
    assert gone.reason is Reason.REFERENCE_NOT_FOUND
    assert "ModelDeployment 'guard' in namespace 'models', which serves the class's model 'guard', does" in gone.message
    starting = await resolved("guard", deployment(phase="RollingOut"), class_)
    assert isinstance(starting, Readiness)
    result = decide(observed(starting))
    assert (result.decision.phase, result.decision.reason) == ("Waiting", "WaitingForModel")
    assert result.decision.writes == ()
    assert plan(observed(starting), NOW).requeue_at is not None, "nothing else looks again"
    serving = deployment(url="http://guard.models.svc/v1", modelName="guard", revision="sha256:aa", readyReplicas=1)
    found = await resolved("guard", serving, class_)
    assert isinstance(found, EndpointConfig)
    assert (found.url, found.model, found.digest) == ("http://guard.models.svc/v1", "guard", "sha256:aa")


async def test_a_model_deployment_is_asked_once_one_known_revision_serves_alone() -> None:
    class_ = resolved_class(models=[{"name": "guard", "modelDeploymentRef": {"name": "guard", "namespace": "models"}}])
    serves = {"url": "http://guard.models.svc/v1", "modelName": "guard", "readyReplicas": 2}
    old, new = ({"revision": f"sha256:{name}", "replicas": 1, "readyReplicas": 1} for name in ("aa", "bb"))
    both = await resolved("guard", deployment(**serves, revision="sha256:aa", revisions=[old, new]), class_)
    assert isinstance(both, Readiness)
    assert (both.reason, both.stalled) == (Reason.WAITING_FOR_MODEL, False)
    assert "is rolling out: sha256:aa and sha256:bb answer." in both.message
    nobody_knows = await resolved("guard", deployment(**serves, revision="unknown"), class_)
    assert isinstance(nobody_knows, Readiness)
    assert "serves an unknown model" in nobody_knows.message
    assert "rolling out" not in nobody_knows.message
    unknown = {**old, "revision": "unknown"}
    mixed = await resolved("guard", deployment(**serves, revision="unknown", revisions=[unknown, new]), class_)
    assert isinstance(mixed, Readiness)
    assert "is rolling out: unknown and sha256:bb answer." in mixed.message
    not_yet = {**new, "readyReplicas": 0}
    alone = await resolved("guard", deployment(**serves, revision="sha256:aa", revisions=[old, not_yet]), class_)
    assert isinstance(alone, EndpointConfig)
    assert alone.digest == "sha256:aa"


def test_a_rollout_that_interrupts_a_try_is_no_failure_of_it() -> None:
    rolls_out = progressing(Reason.WAITING_FOR_MODEL, "ModelDeployment 'guard' is rolling out.")
    for by_now in (SERVED.model_copy(update={"digest": "sha256:bb"}), rolls_out):
        result = decide(replace(asked_in_vain(), endpoints=(by_now,)))
        assert (result.decision.phase, result.status.disruptions, result.status.retries) == ("Retrying", 1, 0)
        assert "now answers as revision 'sha256:bb'. The next try starts at" in result.message


def test_a_server_that_names_another_revision_than_it_serves_is_not_asked_for_ever() -> None:
    once = decide(asked_in_vain(retryLimit=1))
    assert (once.decision.phase, once.decision.reason) == ("Retrying", "ModelChanged")
    assert (once.status.disruptions, once.status.retries) == (0, 1)
    over = decide(asked_in_vain(retryLimit=0))
    assert (over.decision.phase, over.decision.reason) == ("Failed", "RetryLimitReached")
    assert "now answers as revision 'sha256:bb'" in over.message


SERVED = CONFIG.model_copy(update={"digest": "sha256:aa"})


def asked_in_vain(**changes: Any) -> ObservedEvaluation:
    """A try that asked revision sha256:aa, and was answered by another one."""
    changed = Failure(
        reason=Reason.MODEL_CHANGED, message="The API now answers as revision 'sha256:bb'", retryable=True
    )
    spec = evaluation_spec(graders=[TONE], gates=[], **{"retryLimit": 0, **changes})
    begun = plan(observed(SERVED, spec=spec), NOW)
    _, made = begun.create
    name, digest = made["metadata"]["name"], made["metadata"]["annotations"][DIGEST_ANNOTATION]
    ended, said = job(name, "Failed", digest=digest), failed_pod(name, changed)
    return observed(SERVED, spec=spec, status=begun.status, jobs=(ended,), pods=(said,))


def test_a_gate_on_the_gain_of_a_comparison_is_refused() -> None:
    multi = {"name": "both", "type": "Multi", "multi": {"calculateOutput": "versus / 2"}}
    for grader in ("versus", "both"):
        spec = evaluation_spec(graders=[VERSUS, multi], gates=[{"grader": grader, "minimumDelta": 0.0}])
        refusal = grading_refusal(spec)
        assert refusal is not None
        assert refusal.message.startswith(f"spec.gates[0]: the score by '{grader}' is a comparison with the baseline")
    assert grading_refusal(evaluation_spec(graders=[VERSUS, multi], gates=[{"grader": "both", "minimum": 0.5}])) is None


def tone(candidate: str, over_budget: int | None, **changes: Any) -> Score:
    numbers = {"score": 0.8, "low": 0.7, "high": 0.9, "examples": 150, "passed": 100, "failed": 0, "errored": 50}
    return Score(candidate=candidate, grader="tone", over_budget=over_budget, **{**numbers, **changes})


@pytest.mark.parametrize(
    ("gate", "scores", "verdict"),
    [
        ({"minimum": 0.5}, [tone("tuned", 50)], "Inconclusive"),
        ({"minimum": 0.5}, [tone("tuned", None)], "Passed"),
        ({"minimum": 0.99}, [tone("tuned", 50)], "Inconclusive"),
        ({"minimum": 0.5}, [tone("tuned", None), tone("baseline", 50)], "Passed"),
        (
            {"minimumDelta": 0.1},
            [tone("tuned", None, delta=0.5, delta_low=0.4, delta_high=0.6), tone("baseline", 50)],
            "Inconclusive",
        ),
        ({"minimum": 0.5, "decision": "PointEstimate"}, [tone("tuned", 1)], "Inconclusive"),
    ],
)
def test_case_12_a_gate_on_what_the_budget_left_ungraded_is_open(
    gate: dict[str, Any], scores: list[Score], verdict: str
) -> None:
    spec = evaluation_spec(graders=[TONE], gates=[{"grader": "tone", **gate}])
    made = plan(observed(CONFIG, spec=spec, status=evaluated_status(results=scores)), NOW)
    assert [one.verdict for one in made.status.gates] == [verdict]


@pytest.mark.parametrize("gates", [[{"grader": "tone", "minimum": 0.5}], []], ids=["a gate", "none"])
def test_case_12_at_the_limit_passed_is_unknown(gates: list[dict[str, Any]]) -> None:
    spec = evaluation_spec(graders=[TONE], gates=gates)
    result = decide(observed(CONFIG, spec=spec, status=evaluated_status(results=[tone("tuned", 50)])))
    assert (result.decision.phase, result.decision.reason) == ("Inconclusive", "BudgetExceeded")
    (passed,) = [one for one in result.status.conditions if one.type == ConditionType.PASSED]
    assert (passed.status, passed.reason) == ("Unknown", "BudgetExceeded")
    assert "50 of 150 outputs of 'tuned' are not graded by 'tone'. Raise spec.budget and change" in passed.message


def test_another_gate_that_failed_has_failed() -> None:
    gates = [{"grader": "exact", "minimum": 0.99}, {"grader": "tone", "minimum": 0.5}]
    spec = evaluation_spec(graders=[TONE, {"name": "exact", "type": "StringCheck"}], gates=gates)
    result = decide(observed(CONFIG, spec=spec, status=evaluated_status(results=[*SCORES, tone("tuned", 50)])))
    assert result.decision.reason == "GateFailed"


def test_usage_and_warnings_are_in_the_status() -> None:
    usage = ModelUsage(model="large", requests=3, cached=1, prompt_tokens=100, completion_tokens=20, cost=0.5)
    folder = "s3://models/finetune/team-a/router-eval/1-7d1e5c70"
    report = EvaluationReport(
        scores=SCORES, usage=[usage], warnings=["JudgeUnreliable: ..."], report_uri=f"{folder}/report.json"
    )
    running = observed_evaluation(evaluation_status(), job(JOB, "Succeeded"), pods=(succeeded_pod(JOB, report),))
    status = decide(running).status
    assert status.usage == [usage]
    assert status.warnings == ["JudgeUnreliable: ..."]
