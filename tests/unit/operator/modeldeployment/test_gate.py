"""A ModelDeployment waits: for its model, and for the Evaluation that is its gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.pod_contracts.run import CheckpointSource, ModelSource
from finetune_operator.core.conditions import Readiness, conditions, failed, stalled
from finetune_operator.modeldeployment.observed import GateEvaluation
from finetune_operator.models.resolve import ResolvedModel, tuned_model
from tests.unit.operator.deployment_states import (
    GATED,
    deployment_spec,
    observed_deployment,
    verdict,
)
from tests.unit.operator.evaluation_states import WAITING_FOR_MODEL, evaluation_spec
from tests.unit.operator.modeldeployment.plans import NO_EVALUATION, STRANGERS, decide
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    RESULT,
    Decision,
    job_spec,
    resolved_class,
    trained_status,
)

# What holds it back.


@pytest.mark.parametrize(
    ("changes", "phase", "reason", "told"),
    [
        ({"class_": CLASS_NOT_FOUND}, "Blocked", Reason.CLASS_NOT_FOUND, "Create it"),
        (
            {"spec": deployment_spec(replicas=9)},
            "Blocked",
            Reason.LIMIT_EXCEEDED,
            "spec.replicas is 9; FineTuneClass 'cpu' allows 8. Lower it, or ask the platform team",
        ),
        (
            {
                "spec": deployment_spec(model={"fineTuneJobRef": None, "uri": "hf://org/name"}),
                "class_": resolved_class(sources={"models": ["s3://*"]}),
            },
            "Blocked",
            Reason.SOURCE_NOT_ALLOWED,
            "'hf://org/name'",
        ),
        ({"model": WAITING_FOR_MODEL}, "Waiting", Reason.WAITING_FOR_MODEL, "is not complete"),
        (
            {"deployment": {**STRANGERS, "kind": "Deployment"}},
            "Blocked",
            Reason.NAME_CONFLICT,
            "A Deployment named 'router'",
        ),
        ({"service": {**STRANGERS, "kind": "Service"}}, "Blocked", Reason.NAME_CONFLICT, "Delete it, or give"),
    ],
    ids=["class", "replicas", "source", "model", "a stranger's Deployment", "a stranger's Service"],
)
def test_it_waits_and_makes_nothing(changes: dict[str, Any], phase: str, reason: Reason, told: str) -> None:
    result = decide(observed_deployment(**changes))
    kind = "Warning" if phase == "Blocked" else "Normal"
    assert result.decision == Decision(phase, reason, stalled=phase == "Blocked", event=f"{kind} {reason}")
    assert told in result.message


@pytest.mark.parametrize("judged", ["s3://models/tuned", "s3://models/another"], ids=["a candidate", "no candidate"])
def test_a_model_without_a_digest_passes_no_gate(judged: str) -> None:
    """Two digests that nobody knows are no match: what is at a URI may be another model today.

    That is said at once: to become a candidate of the evaluation would not help it.
    """
    by_uri = {"fineTuneJobRef": None, "uri": "s3://models/tuned"}
    passed = verdict(True)
    gate = replace(
        passed,
        spec=evaluation_spec(candidates=[{"name": "tuned", "model": {"uri": judged}}]),
        status=passed.status.model_copy(update={"candidate_digests": {}}),
    )
    model = ResolvedModel(ModelSource(uri="s3://models/tuned"))
    result = decide(observed_deployment(spec=deployment_spec(model=by_uri, **GATED), model=model, gate=gate))
    assert (result.decision.phase, result.decision.reason) == ("Blocked", Reason.GATE_FAILED)
    assert result.decision.writes == ()
    assert "Refer to what made it (spec.model.fineTuneJobRef or sweepRef)" in result.message
    assert "served only without a gate" in result.message
    assert "candidates" not in result.message


AT_100 = ModelSource(
    uri="s3://models/base",
    checkpoint=CheckpointSource(
        uri="s3://models/checkpoints/step-000100/claim-000001", step=100, digest="sha256:100", adapter={}
    ),
)


@pytest.mark.parametrize(
    ("evaluated", "told"),
    [(100, None), (None, "none of its candidates"), ("All", "none of its candidates")],
    ids=["the same checkpoint", "the result", "all"],
)
def test_a_checkpoint_is_served_behind_an_evaluation_of_the_same_checkpoint(evaluated: Any, told: str | None) -> None:
    reference = {"fineTuneJobRef": {"name": "router"}}
    candidate = {"name": "tuned", "model": reference | ({} if evaluated is None else {"checkpoint": evaluated})}
    gate = replace(verdict(True, digest="sha256:100"), spec=evaluation_spec(candidates=[candidate]))
    spec = deployment_spec(model={**reference, "checkpoint": 100}, **GATED)
    result = decide(observed_deployment(spec=spec, model=ResolvedModel(AT_100), gate=gate))
    if told is None:
        assert result.status.applied == AT_100
        served = decide(observed_deployment(result.status, spec=spec, model=ResolvedModel(AT_100), gate=gate))
        assert served.status.applied == AT_100
    else:
        assert result.decision.writes == ()
        assert told in result.message


@pytest.mark.parametrize(
    ("gate", "phase", "reason", "told"),
    [
        (NO_EVALUATION, "Blocked", Reason.REFERENCE_NOT_FOUND, "Create it"),
        (verdict(None), "Waiting", Reason.WAITING_FOR_GATE, "has not evaluated this model yet"),
        (verdict(False), "Blocked", Reason.GATE_FAILED, "at least 0.800 demanded. The model is not served."),
        (verdict(True, digest="sha256:of-another"), "Waiting", Reason.WAITING_FOR_GATE, "has not evaluated this model"),
        (
            verdict(False, digest="sha256:of-another"),
            "Waiting",
            Reason.WAITING_FOR_GATE,
            "has not evaluated this model",
        ),
        (verdict(True, run_id="0"), "Waiting", Reason.WAITING_FOR_GATE, "has not evaluated this model"),
        (verdict(True, seen=0), "Waiting", Reason.WAITING_FOR_GATE, "has not evaluated this model"),
        (verdict(True), "RollingOut", Reason.ROLLING_OUT, ""),
    ],
    ids=[
        "no such evaluation",
        "no verdict",
        "failed",
        "passed by another model",
        "failed by another model",
        "passed in an earlier run",
        "passed by gates that were changed since",
        "passed",
    ],
)
def test_only_what_passed_its_gate_is_served(
    gate: GateEvaluation | Readiness, phase: str, reason: Reason, told: str
) -> None:
    result = decide(observed_deployment(spec=deployment_spec(**GATED), gate=gate))
    assert (result.decision.phase, result.decision.reason) == (phase, reason)
    assert bool(result.decision.writes) is (phase == "RollingOut")
    assert told in result.message


YET = "Evaluation 'router-eval' has not evaluated this model yet"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (verdict(None), f"{YET}: it is waiting."),
        (
            verdict(True, digest="sha256:old"),
            f"{YET}: its result is for revision sha256:old, and the next one here is sha256:aa.",
        ),
        (verdict(True, run_id="0"), f"{YET}: its run '1' has not begun."),
        (verdict(True, seen=0), f"{YET}: its spec has just changed."),
    ],
    ids=["no verdict", "of another model", "of an earlier run", "by other gates"],
)
def test_the_message_says_what_the_gate_waits_for(gate: GateEvaluation, message: str) -> None:
    assert decide(observed_deployment(spec=deployment_spec(**GATED), gate=gate)).message == message


def test_an_evaluation_that_failed_for_good_never_opens_its_gate_by_itself() -> None:
    over = conditions(failed(Reason.DATASET_NOT_FOUND, "Nothing is there"), [], generation=1, now=NOW)
    gate = verdict(None)
    gate = replace(gate, status=gate.status.model_copy(update={"conditions": over}))
    result = decide(observed_deployment(spec=deployment_spec(**GATED), gate=gate))
    assert (result.decision.reason, result.decision.stalled) == ("WaitingForGate", True)
    assert "failed and has no result: Nothing is there. Waiting for a new run of it" in result.message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (FineTuneJobStatus(run_id="1", phase="Training"), "FineTuneJob 'a' is not complete (Training)."),
        (FineTuneJobStatus(), "FineTuneJob 'a' is not complete: its run '1' has not begun."),
        (
            trained_status(run_id="0", phase="Succeeded", result=RESULT),
            "FineTuneJob 'a' is not complete: its run '1' has not begun.",
        ),
    ],
)
def test_the_message_says_what_the_model_waits_for(status: FineTuneJobStatus, message: str) -> None:
    readiness = tuned_model("a", job_spec(), status)
    assert isinstance(readiness, Readiness)
    assert readiness.message == message


def test_an_evaluation_that_does_not_judge_this_model_is_no_gate() -> None:
    spec = deployment_spec(model={"fineTuneJobRef": {"name": "another"}}, **GATED)
    result = decide(observed_deployment(spec=spec, gate=verdict(True)))
    assert (result.decision.reason, result.decision.stalled) == ("GateFailed", True)
    assert "Add it to the evaluation's candidates" in result.message


def test_a_verdict_on_the_spec_before_opens_no_gate() -> None:
    """What the operator can't read it has not judged, though it has seen it: Passed is kept as it was."""
    kept = verdict(True)
    unread = replace(kept, generation=2, status=kept.status.model_copy(update={"observed_generation": 2}))
    result = decide(observed_deployment(spec=deployment_spec(**GATED), gate=unread))
    assert (result.decision.phase, result.decision.reason) == ("Waiting", Reason.WAITING_FOR_GATE)
    assert "its spec has just changed." in result.message


def test_an_evaluation_that_is_invalid_is_said_to_be() -> None:
    """It stays so until somebody corrects it; the verdict on the spec before is kept, and does not count."""
    kept = verdict(True).status
    invalid = conditions(stalled(Reason.INVALID_SPEC, "The object is invalid: x"), [], generation=2, now=NOW)
    status = kept.model_copy(update={"observed_generation": 2, "conditions": [*kept.conditions, *invalid]})
    gate = replace(verdict(True), generation=2, status=status)
    result = decide(observed_deployment(spec=deployment_spec(**GATED), gate=gate))
    assert (result.decision.phase, result.decision.reason, result.decision.stalled) == (
        "Blocked",
        "WaitingForGate",
        True,
    )
    assert "Evaluation 'router-eval' is refused: The object is invalid: x. Fix the Evaluation" in result.message
    corrected = replace(gate, generation=3)
    waits = decide(observed_deployment(spec=deployment_spec(**GATED), gate=corrected))
    assert "its spec has just changed." in waits.message


def test_a_verdict_that_counts_opens_though_the_rest_of_the_status_can_not_be_read() -> None:
    """Another version of the operator wrote it, and this one says so whenever it looks, before the gate or after it."""
    kept = verdict(True).status
    unread = conditions(stalled(Reason.STATUS_UNREADABLE, "status.phase is 'Levitating'"), [], generation=1, now=NOW)
    status = kept.model_copy(update={"conditions": [*kept.conditions, *unread]})
    gate = replace(verdict(True), status=status)
    result = decide(observed_deployment(spec=deployment_spec(**GATED), gate=gate))
    assert result.decision.phase != "Blocked"
    assert result.decision.reason != Reason.WAITING_FOR_GATE
