"""What is served is told by the Pods that answer, never by what is to be served."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.modeldeployment.observed import GateEvaluation, ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.pods.observed import PodView
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.deployment_states import (
    GATED,
    after,
    answering,
    deployment_spec,
    observed_deployment,
    rolled_out,
    verdict,
)
from tests.unit.operator.evaluation_states import tuned
from tests.unit.operator.states import NOW, Decided, ago, decided, resolved_class

OLD, NEW = "sha256:aa", "sha256:bb"
STUCK: dict[str, Any] = {"phase": "Pending", "waiting_reason": "ImagePullBackOff", "waiting_message": "no such image"}


def decide(observed: ObservedModelDeployment) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def serving(replicas: int = 1) -> ObservedModelDeployment:
    """The old model is served."""
    observed = observed_deployment(spec=deployment_spec(replicas=replicas))
    applied = after(observed, plan(observed, NOW))
    assert applied.deployment is not None
    pods = answering(applied.deployment, replicas, created=ago(90))
    return replace(applied, deployment=rolled_out(applied.deployment, replicas), pods=pods)


def rolling(observed: ObservedModelDeployment, *old: PodView, new: int = 1, **changes: Any) -> Decided:
    """The new model is applied upon the old one, which has these Pods left; `changes`: of the `new` Pods."""
    started = replace(observed, model=tuned(NEW))
    applied = after(started, plan(started, NOW))
    assert applied.deployment is not None
    pods = answering(applied.deployment, new, created=ago(5), **changes)
    return decide(replace(applied, pods=(*old, *pods)))


def told(status: ModelDeploymentStatus) -> tuple[str | None, str | None, list[tuple[str, int, int]]]:
    """The revision, the digest of what is served, and the revisions that have Pods."""
    counts = [(one.revision, one.replicas, one.ready_replicas) for one in status.revisions]
    return status.revision, status.served and status.served.digest, counts


@pytest.mark.parametrize("changes", [{"ready": False, "phase": "Pending"}, {"ready": False, **STUCK}])
def test_a_model_whose_pods_do_not_answer_is_not_served(changes: dict[str, Any]) -> None:
    observed = serving()
    result = rolling(observed, *observed.pods, **changes)
    assert told(result.status) == (OLD, OLD, [(OLD, 1, 1), (NEW, 1, 0)])
    assert result.status.applied == tuned(NEW).source
    assert f"Meanwhile, revision '{OLD}' (1 ready) is served; of '{NEW}' 0 of 1 replicas are ready." in result.message


def test_two_models_that_answer_are_both_reported_and_the_older_one_is_the_revision() -> None:
    observed = serving(replicas=3)
    result = rolling(observed, *observed.pods[:1], new=2)
    assert told(result.status) == (OLD, OLD, [(NEW, 2, 2), (OLD, 1, 1)])
    assert f"Meanwhile, revisions '{NEW}' (2 ready) and '{OLD}' (1 ready) are served." in result.message


@pytest.mark.parametrize(
    "changes", [{"ready": False}, {"deletion_time": ago(0)}, {"phase": "Failed"}], ids=["not ready", "going", "ended"]
)
def test_a_pod_that_answers_nobody_serves_nothing(changes: dict[str, Any]) -> None:
    observed = serving()
    result = rolling(observed, *(replace(one, **changes) for one in observed.pods))
    assert told(result.status)[:2] == (NEW, NEW)


def test_a_rollout_is_over_when_the_last_pod_of_the_revision_before_is_seen_to_be_gone() -> None:
    """The Deployment and its Pods are watched apart: its counts may say so earlier."""
    observed = serving()
    started = replace(observed, model=tuned(NEW))
    applied = after(started, plan(started, NOW))
    assert applied.deployment is not None
    pods = answering(applied.deployment, created=ago(5))
    counted = replace(applied, deployment=rolled_out(applied.deployment, 1, observedGeneration=2))
    assert decide(replace(counted, pods=(*observed.pods, *pods))).status.phase == "RollingOut"
    over = decide(replace(counted, pods=pods)).status
    assert (over.phase, *told(over)) == ("Available", NEW, NEW, [(NEW, 1, 1)])


def test_where_no_pod_answers_no_revision_is_served() -> None:
    observed = serving()
    result = rolling(observed, ready=False, phase="Pending")
    assert told(result.status) == (None, None, [(NEW, 1, 0)])
    assert "Meanwhile, no Pod is serving: 0 of 1 replicas ready." in result.message


def test_back_to_the_model_that_serves_still_while_the_next_one_is_stuck() -> None:
    observed = serving()
    started = replace(observed, model=tuned(NEW))
    rolled = after(started, plan(started, NOW))
    assert rolled.deployment is not None
    stuck = answering(rolled.deployment, ready=False, created=ago(5), **STUCK)
    back = replace(rolled, model=tuned(OLD), pods=(*observed.pods, *stuck))
    result = decide(replace(back, status=plan(back, NOW).status))
    assert told(result.status)[:2] == (OLD, OLD)
    assert result.status.applied == tuned(OLD).source
    assert f"Meanwhile, revision '{OLD}' is served: 1 of 1 replicas ready." in result.message


def test_pods_whose_run_configuration_is_gone_serve_something_that_nobody_knows() -> None:
    observed = serving()
    started = replace(observed, model=tuned(NEW), config_maps=())
    applied = after(started, plan(started, NOW))
    result = decide(replace(applied, pods=observed.pods))
    assert told(result.status) == ("unknown", None, [("unknown", 1, 1)])
    assert "Meanwhile, revision 'unknown' (1 ready) is served" in result.message


def test_a_run_configuration_that_somebody_wrote_names_no_model() -> None:
    observed = serving()
    (config_map,) = observed.config_maps
    text = config_map["data"]["run.json"].replace(OLD, "sha256:of-choice")
    forged = replace(observed, config_maps=({**config_map, "data": {"run.json": text}},), model=tuned(NEW))
    assert told(rolling(forged, *observed.pods, ready=False).status)[:2] == ("unknown", None)
    # What is served now is what is applied: it is made anew.
    assert told(decide(replace(forged, model=tuned(OLD))).status)[:2] == (OLD, OLD)


def test_the_same_model_from_a_class_with_a_broken_image_is_served_by_the_pods_of_before() -> None:
    observed = serving()
    started = replace(observed, class_=resolved_class(images={"trainer": "example.com/typo:1"}))
    applied = after(started, plan(started, NOW))
    assert applied.deployment is not None
    (stuck,) = answering(applied.deployment, ready=False, created=ago(5), **STUCK)
    result = decide(replace(applied, pods=(*observed.pods, replace(stuck, job_uid="uid-of-new"))))
    assert result.decision.reason == Reason.IMAGE_PULL_FAILED
    assert told(result.status) == (OLD, OLD, [(OLD, 2, 1)])
    assert f"Meanwhile, revision '{OLD}' is served: 1 of 1 replicas ready." in result.message


def test_what_an_operator_of_before_called_served_was_what_it_rolled_out() -> None:
    """It named the next model there although the one before answers."""
    observed = serving()
    started = replace(observed, model=tuned(NEW), spec=deployment_spec(**GATED), gate=verdict(True, digest=NEW))
    applied = after(started, plan(started, NOW))
    assert applied.deployment is not None
    earlier = plan(applied, NOW).status.model_copy(update={"served": tuned(NEW).source, "applied": None})
    stuck = answering(applied.deployment, ready=False, created=ago(5), **STUCK)
    held = replace(applied, status=earlier, pods=(*observed.pods, *stuck), gate=verdict(False))
    result = decide(held)
    assert result.decision.writes == ()
    assert result.status.applied == tuned(NEW).source
    assert told(result.status)[:2] == (OLD, OLD)


NO_ROOM = "0/1 nodes are available: 1 Insufficient cpu."


@pytest.mark.parametrize("gate", [verdict(True), verdict(False)], ids=["rolls out", "the next revision waits"])
@pytest.mark.parametrize("seconds", [28, 40], ids=["too early to call it blocked", "it is queued"])
def test_what_a_pod_waits_for_is_said_from_the_first_second(gate: GateEvaluation, seconds: int) -> None:
    gated = replace(serving(), spec=deployment_spec(**GATED), gate=verdict(True))
    gated = replace(gated, status=plan(gated, NOW).status)
    since = NOW - timedelta(seconds=seconds)
    waiting: dict[str, Any] = {
        "ready": False,
        "phase": "Pending",
        "unschedulable_since": since,
        "unschedulable_message": NO_ROOM,
    }
    (only,) = gated.pods
    result = decide(replace(gated, gate=gate, pods=(replace(only, **waiting),)))
    assert not result.decision.stalled or gate == verdict(False)
    assert "0 of 1 replicas ready." in result.message
    assert f"{only.name} can't be scheduled: {NO_ROOM}" in result.message
