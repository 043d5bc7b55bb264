"""ModelDeployment: nothing is served before its gate, and what serves goes on serving meanwhile."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.modeldeployment import DriftedField, ModelDeploymentStatus
from finetune_api.outcome import Failure
from finetune_api.run import STORAGE_CREDENTIALS_DIRECTORY, ModelSource
from finetune_operator.core.conditions import Readiness, conditions, failed, stalled
from finetune_operator.modeldeployment.observed import GateEvaluation, ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.models.resolve import ResolvedModel, tuned_model
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.warning_events import WarningEvent
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.deployment_states import (
    DEPLOYMENT,
    GATED,
    after,
    answering,
    deployment_spec,
    observed_deployment,
    rolled_out,
    verdict,
)
from tests.unit.operator.evaluation_states import WAITING_FOR_MODEL, evaluation_spec, tuned
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    RESULT,
    Decided,
    Decision,
    ago,
    decided,
    earlier_conditions,
    job_spec,
    pod,
    resolved_class,
    trained_status,
)
from tests.unit.operator.states import told as told_by

STRANGERS = {"apiVersion": "v1", "metadata": {"name": "router", "uid": "x", "generation": 1, "ownerReferences": []}}
NO_EVALUATION = stalled(Reason.REFERENCE_NOT_FOUND, "Evaluation 'router-eval' does not exist. Create it.")


def decide(observed: ObservedModelDeployment) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def serving(**changes: Any) -> ObservedModelDeployment:
    """Everything is applied and available."""
    observed = observed_deployment(**changes)
    applied = after(observed, plan(observed, NOW))
    assert applied.deployment is not None
    number = applied.spec.replicas
    available = replace(
        applied, deployment=rolled_out(applied.deployment, number), pods=answering(applied.deployment, number)
    )
    return replace(available, status=plan(available, NOW).status)


# What holds it back.


@pytest.mark.parametrize(
    ("changes", "phase", "reason", "told"),
    [
        ({"platform": CLASS_NOT_FOUND}, "Blocked", Reason.CLASS_NOT_FOUND, "Create it"),
        (
            {"spec": deployment_spec(replicas=9)},
            "Blocked",
            Reason.LIMIT_EXCEEDED,
            "spec.replicas is 9; FineTuneClass 'cpu' allows 8",
        ),
        (
            {
                "spec": deployment_spec(model={"fineTuneJobRef": None, "uri": "hf://org/name"}),
                "platform": resolved_class(sources={"models": ["s3://*"]}),
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
    assert "Name the FineTuneJob that made it" in result.message
    assert "served only without a gate" in result.message
    assert "candidates" not in result.message


@pytest.mark.parametrize(
    ("gate", "phase", "reason", "told"),
    [
        (NO_EVALUATION, "Blocked", Reason.REFERENCE_NOT_FOUND, "Create it"),
        (verdict(None), "Waiting", Reason.WAITING_FOR_GATE, "has not judged this model yet"),
        (verdict(False), "Blocked", Reason.GATE_FAILED, "at least 0.800 demanded. The model is not served."),
        (verdict(True, digest="sha256:of-another"), "Waiting", Reason.WAITING_FOR_GATE, "has not judged this model"),
        (verdict(False, digest="sha256:of-another"), "Waiting", Reason.WAITING_FOR_GATE, "has not judged this model"),
        (verdict(True, run_id="0"), "Waiting", Reason.WAITING_FOR_GATE, "has not judged this model"),
        (verdict(True, seen=0), "Waiting", Reason.WAITING_FOR_GATE, "has not judged this model"),
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


YET = "Evaluation 'router-eval' has not judged this model yet"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (verdict(None), f"{YET}: it is waiting."),
        (
            verdict(True, digest="sha256:old"),
            f"{YET}: it is about revision sha256:old, and the next one here is sha256:aa.",
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
    assert "failed, so that it has judged nothing: Nothing is there. A new run of it" in result.message


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


# The rollout.


def test_without_a_gate_a_model_is_served_at_once() -> None:
    result = decide(observed_deployment())
    config_map = result.decision.writes[0]
    assert config_map.startswith("ConfigMap/router-serve-")
    assert result.decision == Decision(
        "RollingOut",
        "RollingOut",
        writes=(config_map, "Deployment/router", "Service/router"),
        again_in=15,
        event="Normal RollingOut",
    )
    assert result.status.url == "http://router.team-a.svc.cluster.local/v1"
    assert result.status.model_name == "router"
    assert result.status.class_name == resolved_class().name
    assert result.status.applied == tuned().source
    assert (result.status.revision, result.status.served) == (None, None)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ({}, "RollingOut"),
        ({"observedGeneration": 0, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}, "Available"),
    ],
    ids=["new", "status is of before", "none is new yet", "an old one remains", "not ready", "rolled out"],
)
def test_it_is_available_when_every_replica_is_new_and_ready(status: dict[str, int], phase: str) -> None:
    observed = serving()
    assert observed.deployment is not None
    result = decide(replace(observed, deployment={**observed.deployment, "status": status}))
    assert result.decision.phase == phase
    assert result.decision.ready is (phase == "Available")
    assert result.decision.again_in == (15 if phase == "RollingOut" else None)


def test_what_is_available_says_what_to_ask_for() -> None:
    result = decide(serving())
    assert result.decision == Decision("Available", "Available", ready=True)
    assert result.message == "Ask http://router.team-a.svc.cluster.local/v1 for the model 'router'."
    assert (result.status.replicas, result.status.ready_replicas) == (1, 1)


def test_nothing_is_applied_again_while_it_is_what_was_applied() -> None:
    observed = serving(spec=deployment_spec(**GATED), gate=verdict(True))
    again = plan(observed, NOW)
    assert (again.apply, again.delete, again.status) == ((), (), observed.status)


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        ((pod("", phase="Pending", waiting_reason="ImagePullBackOff"),), Reason.IMAGE_PULL_FAILED),
        ((pod("", phase="Pending", unschedulable_since=ago(31)),), Reason.UNSCHEDULABLE),
        (
            (pod("", phase="Running", waiting_reason="CrashLoopBackOff", exit_code=1, message="ImportError: x"),),
            Reason.FAILED,
        ),
        (
            (pod("", phase="Running", waiting_reason="CrashLoopBackOff", exit_code=137, oom_killed=True),),
            Reason.OUT_OF_MEMORY,
        ),
        (
            (pod("", phase="Failed", disk_exceeded='Usage of EmptyDir volume "models" exceeds the limit "20Gi".'),),
            Reason.OUT_OF_DISK,
        ),
    ],
)
def test_a_rollout_that_does_not_come_along_is_diagnosed(pods: tuple[Any, ...], reason: Reason) -> None:
    observed = serving()
    assert observed.deployment is not None
    starting = replace(observed, deployment={**observed.deployment, "status": {}}, pods=pods)
    result = decide(starting)
    assert result.decision == Decision("Blocked", reason, stalled=True, again_in=15, event=f"Warning {reason}")


def test_pods_that_the_api_server_refuses_are_told_by_the_deployment_itself() -> None:
    observed = serving()
    assert observed.deployment is not None
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "router-5d8" is forbidden: exceeded quota: team, requested: pods=1, limited: pods=9',
    }
    refused = replace(observed, deployment={**observed.deployment, "status": {"conditions": [condition]}})
    assert decide(refused).decision.reason == Reason.QUOTA_EXCEEDED
    gone = {**condition, "status": "False"}
    cleared = replace(observed, deployment={**observed.deployment, "status": {"conditions": [gone]}})
    assert decide(cleared).decision.reason == Reason.ROLLING_OUT


def test_a_volume_that_a_server_waits_for_is_told_by_an_event() -> None:
    observed = serving()
    assert observed.deployment is not None
    starting = replace(
        observed,
        deployment={**observed.deployment, "status": {}},
        pods=(pod("", phase="Pending", uid="p"),),
        warnings=(WarningEvent("p", "FailedMount", 'secret "s3-credentials" not found', ago(9)),),
    )
    assert decide(starting).decision.reason == Reason.SECRET_NOT_FOUND


# The next model.


def test_another_model_is_rolled_out_and_the_run_configuration_of_the_one_before_goes_when_it_is_available() -> None:
    old = serving()
    (old_config,) = [item["metadata"]["name"] for item in old.config_maps]
    started = decide(replace(old, model=tuned("sha256:bb")))
    assert [kind.partition("/")[0] for kind in started.decision.writes] == ["ConfigMap", "Deployment"]
    assert started.decision.deletes == ()
    assert (started.status.applied, started.status.revision) == (tuned("sha256:bb").source, "sha256:aa")
    rolling = after(replace(old, model=tuned("sha256:bb")), started.plan)
    assert decide(rolling).decision.deletes == ()
    assert rolling.deployment is not None
    finished = rolled_out(rolling.deployment, observedGeneration=2)
    # By the Deployment's counts alone it would be done.
    assert decide(replace(rolling, deployment=finished)).decision.deletes == ()
    result = decide(replace(rolling, deployment=finished, pods=answering(rolling.deployment)))
    assert (result.decision.phase, result.decision.deletes) == ("Available", (f"ConfigMap/{old_config}",))
    assert result.status.revision == "sha256:bb"


@pytest.mark.parametrize(
    "changes",
    [
        {"platform": CLASS_NOT_FOUND},
        {"model": WAITING_FOR_MODEL},
        {"model": tuned("sha256:bb")},
        {"gate": verdict(False)},
        {"gate": NO_EVALUATION},
    ],
    ids=["class gone", "model made anew", "new model not judged", "gate changed", "evaluation gone"],
)
def test_what_serves_goes_on_serving_while_it_waits(changes: dict[str, Any]) -> None:
    observed = serving(spec=deployment_spec(**GATED), gate=verdict(True))
    result = decide(replace(observed, **changes))
    assert (result.decision.ready, result.decision.writes, result.decision.deletes) == (False, (), ())
    assert result.status.url == "http://router.team-a.svc.cluster.local/v1"
    assert result.status.revision == "sha256:aa"
    assert result.status.ready_replicas == 1


HOLDS: list[dict[str, Any]] = [
    {"model": WAITING_FOR_MODEL},
    {"model": stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'router' does not exist. Create it.")},
    {"model": tuned("sha256:bb")},
    {"gate": verdict(False)},
    {"gate": NO_EVALUATION},
    {"platform": resolved_class(sources={"models": ["s3://elsewhere/*"]}), "model": WAITING_FOR_MODEL},
]


def gated() -> ObservedModelDeployment:
    """A revision that passed its gate is served."""
    return serving(spec=deployment_spec(**GATED), gate=verdict(True))


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize(
    ("lost", "writes"),
    [({"deployment": None}, "Deployment"), ({"service": None}, "Service"), ({"config_maps": ()}, "ConfigMap")],
    ids=["Deployment", "Service", "ConfigMap"],
)
def test_what_serves_is_made_again_while_the_next_revision_waits(
    hold: dict[str, Any], lost: dict[str, Any], writes: str
) -> None:
    observed = gated()
    result = decide(replace(observed, **hold, **lost))
    assert [item.partition("/")[0] for item in result.decision.writes] == [writes]
    told = [note.message for note in result.plan.events if note.reason == "DriftCorrected"]
    assert [writes in message for message in told] == [True]
    assert f"Somebody deleted {writes} " in result.message
    assert result.status.revision == "sha256:aa"
    again = after(replace(observed, **hold, **lost), result.plan)
    assert decide(again).decision.writes == ()


def of_an_older_version(observed: ObservedModelDeployment) -> ObservedModelDeployment:
    """As an operator left it that wrote down only which revision it served."""
    return replace(observed, status=observed.status.model_copy(update={"applied": None, "served": None}))


@pytest.mark.parametrize("hold", HOLDS)
def test_what_an_older_version_served_is_kept_up_while_the_next_revision_waits(hold: dict[str, Any]) -> None:
    observed = replace(of_an_older_version(gated()), **hold)
    result = decide(observed)
    assert (result.status.applied, result.status.served) == (tuned().source, tuned().source)
    assert "is not served" not in result.message
    (writes,) = decide(replace(observed, service=None)).decision.writes
    assert writes.startswith("Service/")


def test_a_run_configuration_that_somebody_wrote_tells_nothing_of_what_an_older_version_served() -> None:
    observed = replace(of_an_older_version(gated()), gate=verdict(False))
    (config_map,) = observed.config_maps
    forged = {**config_map, "data": {"run.json": config_map["data"]["run.json"].replace("s3://", "s3://not-")}}
    assert decide(replace(observed, config_maps=(forged,))).status.applied is None
    strange = observed.status.model_copy(update={"revision": "sha256:bb"})
    assert decide(replace(observed, status=strange)).status.applied is None


@pytest.mark.parametrize("hold", HOLDS)
def test_replicas_are_applied_while_the_next_revision_waits(hold: dict[str, Any]) -> None:
    (deployment,) = plan(replace(gated(), spec=deployment_spec(replicas=0, **GATED), **hold), NOW).apply
    assert deployment["spec"]["replicas"] == 0


def test_the_status_is_true_to_the_pods_while_the_next_revision_waits() -> None:
    observed = replace(gated(), gate=verdict(False))
    assert observed.deployment is not None
    down = {**observed.deployment, "status": {**observed.deployment["status"], "readyReplicas": 0}}
    assert decide(replace(observed, deployment=down)).status.ready_replicas == 0
    assert decide(replace(observed, deployment=None)).status.ready_replicas == 0
    strange = decide(
        replace(observed, deployment={**down, **STRANGERS, "kind": "Deployment", "status": {"replicas": 3}})
    )
    assert (strange.decision.reason, strange.status.replicas) == (Reason.NAME_CONFLICT, 0)


def test_the_message_says_what_is_served_and_what_keeps_the_next_one_back() -> None:
    message = decide(replace(gated(), gate=verdict(False))).message
    assert "did not pass: 1 of 1 gates failed" in message
    assert message.endswith("Revision 'sha256:aa' is served meanwhile: 1 of 1 replicas ready.")
    assert "not served" not in message


def test_pods_that_crash_meanwhile_are_told_too() -> None:
    observed = replace(gated(), gate=verdict(False))
    assert observed.deployment is not None
    down = {**observed.deployment, "status": {**observed.deployment["status"], "readyReplicas": 0}}
    crashing = pod("", phase="Running", exit_code=137, oom_killed=True)
    message = decide(replace(observed, deployment=down, pods=(crashing,))).message
    assert "0 of 1 replicas ready. OutOfMemory: " in message


def test_what_ails_the_pods_of_an_older_revision_is_not_told_of_the_one_that_follows() -> None:
    observed = serving()
    assert observed.deployment is not None
    waiting = {**observed.deployment, "status": {}}
    wrong = pod("old", phase="Pending", exit_code=1, message="no such model", created=ago(90))
    right = pod("new", phase="Pending", created=ago(5))
    told = decide(replace(observed, deployment=waiting, pods=(wrong,)))
    assert told.decision.stalled
    corrected = decide(replace(observed, deployment=waiting, pods=(wrong, right)))
    assert (corrected.decision.phase, corrected.decision.stalled) == ("RollingOut", False)


def test_scaled_to_zero_it_says_that_nobody_answers() -> None:
    result = decide(serving(spec=deployment_spec(replicas=0)))
    assert result.decision == Decision("Available", "Available", ready=True)
    assert "`kubectl scale mdep`" in result.message


def test_no_more_replicas_than_the_class_allows() -> None:
    observed = replace(serving(), spec=deployment_spec(replicas=9))
    result = decide(observed)
    (deployment,) = result.plan.apply
    assert deployment["spec"]["replicas"] == 8
    assert result.decision.reason == Reason.LIMIT_EXCEEDED
    assert "Revision 'sha256:aa' is served meanwhile" in result.message


def test_an_autoscaler_that_asks_for_more_than_the_class_allows_blocks_nothing() -> None:
    observed = replace(serving(spec=deployment_spec(replicas=8)), spec=deployment_spec(replicas=9))
    result = decide(observed)
    assert result.decision == Decision("Available", Reason.LIMIT_EXCEEDED, ready=True, event="Normal LimitExceeded")
    assert result.message == (
        "spec.replicas is 9; FineTuneClass 'cpu' allows 8. "
        "Ask http://router.team-a.svc.cluster.local/v1 for the model 'router'."
    )
    rolled = decide(replace(observed, model=tuned("sha256:bb")))
    assert rolled.status.applied == tuned("sha256:bb").source
    assert rolled.decision.phase == "RollingOut"


def test_without_its_class_what_serves_keeps_its_address_and_may_become_less() -> None:
    observed = replace(serving(spec=deployment_spec(replicas=3)), platform=CLASS_NOT_FOUND)
    assert decide(replace(observed, service=None)).decision.writes == ("Service/router",)
    assert plan(replace(observed, spec=deployment_spec(replicas=4)), NOW).merge == ()
    (merge,) = plan(replace(observed, spec=deployment_spec(replicas=1)), NOW).merge
    assert (merge["kind"], merge["spec"]) == ("Deployment", {"replicas": 1})
    theirs = {**STRANGERS, "kind": "Deployment", "apiVersion": "apps/v1", "spec": {"replicas": 3}}
    assert plan(replace(observed, spec=deployment_spec(replicas=1), deployment=theirs), NOW).merge == ()


def test_a_run_configuration_with_other_content_is_made_anew() -> None:
    observed = serving()
    (config_map,) = observed.config_maps
    forged = {**config_map, "data": {"run.json": "{}"}}
    result = decide(replace(observed, config_maps=(forged,)))
    assert result.decision.deletes == (f"ConfigMap/{config_map['metadata']['name']}",)
    assert decide(replace(observed, config_maps=())).decision.writes == (f"ConfigMap/{config_map['metadata']['name']}",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exit_code": 1}, True),
        ({"exit_code": 1, "ready": True}, False),
        ({"exit_code": 143, "deletion_time": ago(1)}, False),
        ({"exit_code": 0}, False),
    ],
    ids=["ended with an error", "serves since", "is being deleted", "ended well"],
)
def test_a_container_that_ended_is_told_at_once(changes: dict[str, Any], told: bool) -> None:
    """One that runs longer than the kubelet's pause before it is started again never shows CrashLoopBackOff."""
    observed = serving()
    assert observed.deployment is not None
    said = told_by(Failure(reason=Reason.MODEL_NOT_FOUND, message="Nothing is at s3://models/typo."))
    started = pod("", phase="Pending", **{"message": said, **changes})
    result = decide(replace(observed, deployment={**observed.deployment, "status": {}}, pods=(started,)))
    assert result.decision.reason == (Reason.MODEL_NOT_FOUND if told else Reason.ROLLING_OUT)
    assert result.decision.phase == ("Blocked" if told else "RollingOut")


@pytest.mark.parametrize(
    ("counts", "most_unavailable"),
    [
        ({"replicas": 2, "updatedReplicas": 1, "readyReplicas": 0}, "100%"),
        ({"replicas": 1, "updatedReplicas": 0, "readyReplicas": 0}, "100%"),
        ({"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}, 0),
        ({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 0}, 0),
    ],
    ids=["nothing answers", "none is new yet", "the revision before answers", "there is none before"],
)
def test_pods_that_do_not_answer_make_room_for_the_next_revision(
    counts: dict[str, int], most_unavailable: object
) -> None:
    """On the only accelerator: a wrong image holds it, and the corrected one waits for it."""
    observed = serving()
    assert observed.deployment is not None
    corrected = resolved_class(images={"trainer": "example.com/trainer:2"})
    deployment = {**observed.deployment, "status": {**observed.deployment["status"], **counts}}
    (applied,) = plan(replace(observed, deployment=deployment, platform=corrected), NOW).apply
    assert applied["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == most_unavailable


NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 No preemption "


@pytest.mark.parametrize(
    ("holder", "blocked"),
    [
        (pod("router-old", ready=True), True),
        (pod("router-new", ready=True), False),
        (pod("router-old"), False),
        (pod("router-old", ready=True, deletion_time=ago(0)), False),
    ],
    ids=["the revision before serves", "another replica of it serves", "nothing serves", "it makes room"],
)
def test_a_revision_that_waits_for_what_the_one_before_holds_says_so(holder: PodView, blocked: bool) -> None:
    observed = serving()
    assert observed.deployment is not None
    counts = {**observed.deployment["status"], "replicas": 2, "updatedReplicas": 1}
    waiting = pod(
        "router-new", phase="Pending", unschedulable_since=ago(60), unschedulable_message=f"{NO_GPU}victims found."
    )
    result = decide(replace(observed, deployment={**observed.deployment, "status": counts}, pods=(holder, waiting)))
    assert result.decision.phase == ("Blocked" if blocked else "RollingOut")
    assert ("The revision before holds what this one waits for" in result.message) == blocked
    assert ("lower spec.replicas by one" in result.message) == blocked


def test_a_model_by_uri_is_its_own_revision() -> None:
    spec = deployment_spec(model={"fineTuneJobRef": None, "uri": "s3://models/base"})
    result = decide(serving(spec=spec, model=ResolvedModel(ModelSource(uri="s3://models/base"))))
    assert result.status.revision == "s3://models/base"


def test_nothing_applied_makes_it_unavailable_again() -> None:
    """A status that a restored backup brings along is not believed."""
    restored = ModelDeploymentStatus(
        phase="Available", replicas=3, ready_replicas=3, conditions=earlier_conditions(Reason.AVAILABLE, ready=True)
    )
    result = decide(observed_deployment(restored))
    assert (result.decision.phase, result.status.ready_replicas) == ("RollingOut", 0)


# What is applied.


def contested() -> ObservedModelDeployment:
    """An autoscaler has scaled the Deployment again, five times in a row."""
    observed = serving()
    assert observed.deployment is not None
    scaled = copy.deepcopy(observed.deployment)
    (ours,) = scaled["metadata"]["managedFields"]
    replicas = {"f:spec": {"f:replicas": ours["fieldsV1"]["f:spec"].pop("f:replicas")}}
    theirs = {"manager": "hpa", "operation": "Update", "subresource": "scale", "fieldsV1": replicas}
    scaled["metadata"]["managedFields"] = [ours, theirs]
    drift = DriftedField(field="Deployment spec.replicas", manager="hpa", corrections=5, last_correction_time=ago(3))
    return replace(observed, deployment=scaled, status=observed.status.model_copy(update={"drift": [drift]}))


def test_a_field_that_somebody_added_is_gone_after_one_look() -> None:
    """First it is made ours, and then applied without it."""
    observed = serving()
    assert observed.deployment is not None
    paused = copy.deepcopy(observed.deployment)
    added = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    paused["metadata"] |= {"resourceVersion": "7", "managedFields": [*paused["metadata"]["managedFields"], added]}
    writes = plan(replace(observed, deployment=paused), NOW)
    assert [body["kind"] for body in writes.merge] == ["Deployment"]
    assert [body["kind"] for body in writes.apply] == ["Deployment"]


@pytest.mark.parametrize(
    ("changes", "applied"),
    [
        ({}, []),
        ({"generation": 2}, []),
        ({"spec": deployment_spec(replicas=2)}, ["Deployment"]),
        ({"platform": resolved_class(images={"trainer": "example.com/trainer:2"})}, ["Deployment"]),
        ({"model": tuned("sha256:bb")}, ["ConfigMap", "Deployment"]),
    ],
    ids=["nothing new", "another gate", "more replicas", "another image of the class", "a new revision"],
)
def test_what_is_new_does_not_wait_for_a_contest(changes: dict[str, Any], applied: list[str]) -> None:
    plan_of = plan(replace(contested(), **changes), NOW)
    assert [body["kind"] for body in plan_of.apply] == applied
    assert decided(plan_of).decision.reason == Reason.DRIFT_CONTESTED


def test_a_pod_identity_is_the_fetching_containers_only() -> None:
    """What the webhooks of AWS, Azure and Alibaba are told: the Pod's other container gets no token and no variable."""
    identity = resolved_class(storage={"credentialsSecretName": None, "serviceAccountName": "storage"})
    template = plan(observed_deployment(platform=identity), NOW).apply[1]["spec"]["template"]
    assert [container["name"] for container in template["spec"]["containers"]] == ["server"]
    skipped = {
        name: value for name, value in template["metadata"]["annotations"].items() if name.endswith("/skip-containers")
    }
    assert skipped == {
        "eks.amazonaws.com/skip-containers": "server",
        "azure.workload.identity/skip-containers": "server",
        "pod-identity.alibabacloud.com/skip-containers": "server",
    }
    assert template["spec"]["initContainers"][0]["name"] == "fetch"
    by_secret = plan(observed_deployment(), NOW).apply[1]["spec"]["template"]["metadata"]["annotations"]
    assert not any(name.endswith("/skip-containers") for name in by_secret)


def test_the_server_has_no_credential_and_serves_what_was_fetched_read_only() -> None:
    _, deployment, service = plan(observed_deployment(), NOW).apply
    pod_spec = deployment["spec"]["template"]["spec"]
    (fetch,), (server,) = pod_spec["initContainers"], pod_spec["containers"]
    assert STORAGE_CREDENTIALS_DIRECTORY in json.dumps(fetch)
    assert STORAGE_CREDENTIALS_DIRECTORY not in json.dumps(server)
    assert "AWS_" not in json.dumps(server)
    assert pod_spec["automountServiceAccountToken"] is False
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in server["volumeMounts"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == DEPLOYMENT.uid
