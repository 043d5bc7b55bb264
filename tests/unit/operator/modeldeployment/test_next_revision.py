"""The next model of a ModelDeployment: what serves goes on serving until it is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import stalled
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.pods.observed import PodView
from tests.unit.operator.deployment_states import (
    GATED,
    after,
    answering,
    deployment_spec,
    rolled_out,
    verdict,
)
from tests.unit.operator.evaluation_states import WAITING_FOR_MODEL, tuned
from tests.unit.operator.modeldeployment.plans import NO_EVALUATION, STRANGERS, decide, serving
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    ago,
    pod,
    resolved_class,
)

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
        {"class_": CLASS_NOT_FOUND},
        {"model": WAITING_FOR_MODEL},
        {"model": tuned("sha256:bb")},
        {"gate": verdict(False)},
        {"gate": NO_EVALUATION},
    ],
    ids=["class gone", "model made anew", "new model not judged", "gate changed", "evaluation gone"],
)
def test_the_current_revision_is_served_while_the_next_one_waits(changes: dict[str, Any]) -> None:
    observed = serving(spec=deployment_spec(**GATED), gate=verdict(True))
    result = decide(replace(observed, **changes))
    assert (result.decision.ready, result.decision.writes, result.decision.deletes) == (False, (), ())
    assert result.status.url == "http://router.team-a.svc/v1"
    assert result.status.revision == "sha256:aa"
    assert result.status.ready_replicas == 1


HOLDS: list[dict[str, Any]] = [
    {"model": WAITING_FOR_MODEL},
    {"model": stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'router' does not exist. Create it.")},
    {"model": tuned("sha256:bb")},
    {"gate": verdict(False)},
    {"gate": NO_EVALUATION},
    {"class_": resolved_class(sources={"models": ["s3://elsewhere/*"]}), "model": WAITING_FOR_MODEL},
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
    assert f"Deleted objects are being recreated: {writes} " in result.message
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
    assert message.endswith("Meanwhile, revision 'sha256:aa' is served: 1 of 1 replicas ready.")
    assert "not served" not in message


def test_pods_that_crash_meanwhile_are_reported_too() -> None:
    observed = replace(gated(), gate=verdict(False))
    assert observed.deployment is not None
    down = {**observed.deployment, "status": {**observed.deployment["status"], "readyReplicas": 0}}
    crashing = pod("", phase="Running", exit_code=137, oom_killed=True)
    message = decide(replace(observed, deployment=down, pods=(crashing,))).message
    assert "0 of 1 replicas ready. OutOfMemory: " in message


def test_problems_of_an_older_revisions_pods_are_not_reported_of_the_newer_one() -> None:
    observed = serving()
    assert observed.deployment is not None
    waiting = {**observed.deployment, "status": {}}
    wrong = pod("old", phase="Pending", exit_code=1, message="no such model", created=ago(90))
    right = pod("new", phase="Pending", created=ago(5))
    told = decide(replace(observed, deployment=waiting, pods=(wrong,)))
    assert told.decision.stalled
    corrected = decide(replace(observed, deployment=waiting, pods=(wrong, right)))
    assert (corrected.decision.phase, corrected.decision.stalled) == ("RollingOut", False)


def test_without_its_class_what_serves_keeps_its_address_and_may_become_less() -> None:
    observed = replace(serving(spec=deployment_spec(replicas=3)), class_=CLASS_NOT_FOUND)
    assert decide(replace(observed, service=None)).decision.writes == ("Service/router",)
    assert plan(replace(observed, spec=deployment_spec(replicas=4)), NOW).merge == ()
    (merge,) = plan(replace(observed, spec=deployment_spec(replicas=1)), NOW).merge
    assert (merge["kind"], merge["spec"]) == ("Deployment", {"replicas": 1})
    theirs = {**STRANGERS, "kind": "Deployment", "apiVersion": "apps/v1", "spec": {"replicas": 3}}
    assert plan(replace(observed, spec=deployment_spec(replicas=1), deployment=theirs), NOW).merge == ()


def test_a_run_configuration_with_other_content_is_recreated() -> None:
    observed = serving()
    (config_map,) = observed.config_maps
    forged = {**config_map, "data": {"run.json": "{}"}}
    result = decide(replace(observed, config_maps=(forged,)))
    assert result.decision.deletes == (f"ConfigMap/{config_map['metadata']['name']}",)
    assert decide(replace(observed, config_maps=())).decision.writes == (f"ConfigMap/{config_map['metadata']['name']}",)


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
    (applied,) = plan(replace(observed, deployment=deployment, class_=corrected), NOW).apply
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
    assert ("The previous revision holds what this one needs" in result.message) == blocked
    assert ("set spec.rollout.type to Recreate" in result.message) == blocked
