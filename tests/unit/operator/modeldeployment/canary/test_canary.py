"""A ModelDeployment whose next model proves itself first: what is applied, served and told, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import (
    AbortedRevision,
    Canary,
    ModelDeploymentStatus,
    TrafficBatch,
    TrafficCounts,
    TrafficReport,
)
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import progressing
from finetune_operator.core.plan import Plan
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.modeldeployment.serving.history import asked_as
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.progress.endpoint import ProgressEndpoint
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
from tests.unit.operator.modeldeployment.plans import decide, serving
from tests.unit.operator.states import NOW

ENDPOINT = ProgressEndpoint("https://operator.finetune.svc:8443", "the CA")
STEPS = [{"percent": 50, "minimumRequests": 100}]
NEXT = ModelSource(uri="s3://models/router/2", digest="sha256:bb")


def asked(**canary: Any) -> Any:
    return deployment_spec(gateway={"replicas": 1}, rollout={"type": "Canary", "canary": {"steps": STEPS, **canary}})


def behind_gateway(**canary: Any) -> ObservedModelDeployment:
    """A model serves behind a gateway, and the next one would be a canary."""
    observed = replace(
        serving(), spec=asked(**canary), gateway_image="example.com/operator:1", progress_endpoint=ENDPOINT
    )
    observed = after(observed, plan(observed, NOW))
    extras = [rolled_out(item, 1) if item["kind"] == "Deployment" else item for item in observed.extras]
    observed = replace(observed, extras=tuple(extras))
    return after(observed, plan(observed, NOW))


def with_next(observed: ObservedModelDeployment, model: ModelSource = NEXT) -> ObservedModelDeployment:
    resolved = observed.model
    assert isinstance(resolved, ResolvedModel)
    return replace(observed, model=replace(resolved, source=model))


def went_on(observed: ObservedModelDeployment) -> ObservedModelDeployment:
    """What was planned is there, and every Pod of the canary answers."""
    done = plan(observed, NOW)
    assert_storable(done.status)
    found = after(observed, done)
    canary = found.of_role("Deployment", "canary")
    pods = answering(canary, canary["spec"]["replicas"]) if canary is not None else ()
    return replace(found, canary_pods=pods)


def analysing() -> ObservedModelDeployment:
    observed = went_on(went_on(with_next(behind_gateway())))
    assert observed.status.canary is not None and observed.status.canary.phase == "Analysing"
    return observed


def reported(observed: ObservedModelDeployment, requests: int, errors: int) -> ObservedModelDeployment:
    canary = observed.status.canary
    assert canary is not None
    counts = (TrafficCounts(requests=requests), TrafficCounts(requests=requests, errors=errors))
    batch = TrafficBatch(sequence=1, stable=counts[0], canary=counts[1])
    return replace(observed, reports=(TrafficReport(source="0" * 32, split=canary.split, batch=batch),))


def container(observed: ObservedModelDeployment) -> Object:
    gateway = observed.of_role("Deployment", "gateway")
    assert gateway is not None
    (found,) = gateway["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_a_gateway_of_a_canary_asks_the_operator_with_a_token_for_nothing_else() -> None:
    observed = behind_gateway()
    found = container(observed)
    url = "https://operator.finetune.svc:8443/v1alpha1/namespaces/team-a/modeldeployments/router/traffic"
    assert f"--control-url={url}" in found["args"]
    servers = [item for item in observed.extras if item["kind"] == "Service"]
    (canary,) = [item for item in servers if "canary" in item["spec"]["selector"].values()]
    assert f"--canary-servers={canary['metadata']['name']}.team-a.svc" in found["args"]
    assert found["env"] == [{"name": "FINETUNE_CONTROL_CA", "value": "the CA"}]
    gateway = observed.of_role("Deployment", "gateway") or {}
    (volume,) = gateway["spec"]["template"]["spec"]["volumes"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "finetune.dev/progress"
    assert decide(observed).decision.writes == ()


def test_the_next_model_starts_beside_what_serves_which_is_left_alone() -> None:
    result = decide(with_next(behind_gateway()))
    assert sorted(write.partition("/")[0] for write in result.decision.writes) == ["ConfigMap", "Deployment"]
    assert "Deployment/router" not in result.decision.writes
    assert (result.decision.phase, result.decision.reason) == ("Canary", Reason.CANARY_RUNNING)
    assert result.decision.ready, "the other one serves"
    assert (result.status.applied or NEXT).digest == "sha256:aa"
    assert result.status.canary is not None and result.status.canary.percent == 0


def without_answers(observed: ObservedModelDeployment) -> ObservedModelDeployment:
    """No Pod of what serves is ready."""
    return replace(observed, pods=tuple(replace(pod, ready=False) for pod in observed.pods))


def applied(done: Plan[ModelDeploymentStatus]) -> str | None:
    return (done.status.applied or NEXT).digest


def test_the_first_model_needs_no_canary() -> None:
    first = decide(observed_deployment(spec=asked(), gateway_image="i", progress_endpoint=ENDPOINT))
    assert "Deployment/router" in first.decision.writes
    assert first.status.canary is None


def test_what_never_answered_is_replaced_at_once() -> None:
    new = observed_deployment(spec=asked(), gateway_image="i", progress_endpoint=ENDPOINT)
    begun = after(new, plan(new, NOW))
    assert applied(plan(with_next(begun), NOW)) == "sha256:bb"


def test_what_does_not_answer_for_a_moment_is_not_replaced_without_a_canary() -> None:
    broken = without_answers(with_next(behind_gateway()))
    first = plan(broken, NOW)
    assert (applied(first), first.status.canary) == ("sha256:aa", None)
    assert first.requeue_at is not None
    message = decide(broken).message
    assert "begins once a Pod of what serves is ready" in message
    still = after(broken, first)
    assert applied(plan(still, NOW + timedelta(seconds=599))) == "sha256:aa"
    assert applied(plan(still, NOW + timedelta(seconds=600))) == "sha256:bb", "it is broken"
    back = replace(still, pods=behind_gateway().pods)
    assert plan(back, NOW).status.canary is not None


def test_one_that_was_rolled_back_never_replaces_what_serves() -> None:
    ending = replace(after(analysing(), plan(reported(analysing(), 400, 200), NOW)), reports=())
    over = after(ending, plan(ending, NOW + timedelta(seconds=15)))
    scaled = replace(over, spec=over.spec.model_copy(update={"replicas": 0}))
    for state in (without_answers(ending), without_answers(over), scaled, without_answers(scaled)):
        seen = replace(state, status=plan(state, NOW).status)
        found = plan(seen, NOW + timedelta(hours=1))
        assert applied(found) == "sha256:aa"
        assert found.status.aborted[0].revision == "sha256:bb"


def test_scaled_to_zero_the_model_stays_and_the_canary_ends() -> None:
    for state in (analysing(), with_next(behind_gateway())):
        zero = replace(state, spec=state.spec.model_copy(update={"replicas": 0}))
        found = plan(zero, NOW)
        assert applied(found) == "sha256:aa"
        assert found.status.canary is None or found.status.canary.outcome == "Withdrawn"


def test_promoted_its_own_pods_go_first_so_that_the_rollout_finds_their_accelerators() -> None:
    promoted = reported(analysing(), 400, 0)
    result = decide(promoted)
    found = result.status.canary
    assert found is not None and (found.phase, found.percent, found.split) == ("Promoting", 0, "")
    assert (applied(result.plan), result.decision.deletes) == ("sha256:aa", ()), "gateways still know of it"
    draining = replace(after(promoted, result.plan), reports=())
    gone = plan(draining, NOW + timedelta(seconds=15))
    assert [child.resource.kind for child in gone.delete if "canary" in child.name] == ["Deployment"]
    assert applied(gone) == "sha256:aa"
    over = plan(after(draining, gone), NOW + timedelta(seconds=16))
    assert (applied(over), over.status.canary) == ("sha256:bb", None)
    rolling = after(after(draining, gone), over)
    assert applied(plan(rolling, NOW + timedelta(seconds=17))) == "sha256:bb"


def test_while_it_can_not_be_rolled_out_a_canary_that_passed_goes_on_and_is_still_judged() -> None:
    job_runs = replace(reported(analysing(), 400, 0), model=progressing(Reason.WAITING_FOR_MODEL, "The job runs."))
    passed = plan(job_runs, NOW)
    found = passed.status.canary
    assert found is not None and (found.phase, found.verdict, found.percent) == ("Analysing", "Pass", 50)
    after_it = replace(after(job_runs, passed), reports=())
    bad = TrafficBatch(
        sequence=2, stable=TrafficCounts(requests=1000), canary=TrafficCounts(requests=1000, errors=1000)
    )
    failing = replace(after_it, reports=(TrafficReport(source="0" * 32, split=found.split, batch=bad),))
    assert plan(failing, NOW).status.aborted[0].revision == "sha256:bb"


def test_pods_of_another_model_are_not_the_canarys() -> None:
    begun = with_next(behind_gateway())
    begun = after(begun, plan(begun, NOW))
    begun = after(begun, plan(begun, NOW))
    assert begun.deployment is not None
    others = replace(begun, canary_pods=answering(begun.deployment, 1))
    found = plan(others, NOW).status.canary
    assert found is not None and found.phase == "Starting"


def test_a_gate_that_fails_meanwhile_ends_it() -> None:
    gated = replace(
        analysing(),
        spec=deployment_spec(**GATED, gateway={"replicas": 1}, rollout={"type": "Canary", "canary": {"steps": STEPS}}),
    )
    passes = plan(replace(gated, gate=verdict(True, digest="sha256:bb")), NOW).status.canary
    assert passes is not None and passes.phase == "Analysing"
    fails = plan(replace(gated, gate=verdict(False, digest="sha256:bb")), NOW).status.canary
    assert fails is not None and (fails.phase, fails.outcome, fails.percent) == ("Ending", "Withdrawn", 0)


def test_without_what_splits_the_requests_none_begins_and_one_under_way_ends() -> None:
    cases: list[dict[str, Any]] = [{"gateway_image": None}, {"progress_endpoint": None}]
    for missing in cases:
        unsplit = replace(with_next(behind_gateway()), **missing)
        found = plan(unsplit, NOW)
        assert (found.status.canary, applied(found)) == (None, "sha256:aa")
        ended = plan(replace(analysing(), **missing), NOW).status.canary
        assert ended is not None and ended.outcome == "Withdrawn"


def test_it_says_that_no_gateway_has_reported_anything() -> None:
    quiet = analysing()
    assert "No gateway has reported" not in decide(quiet).message
    done = plan(quiet, NOW)
    assert done.requeue_at is not None and done.requeue_at <= NOW + timedelta(seconds=60)
    told = plan(quiet, NOW + timedelta(seconds=60)).status.conditions[0].message
    assert "No gateway has reported a request since" in told


def test_rolled_back_what_served_is_still_there_and_the_same_is_not_tried_again() -> None:
    result = decide(reported(analysing(), 400, 200))
    assert (result.decision.reason, result.decision.stalled, result.decision.ready) == (Reason.ROLLED_BACK, True, True)
    assert "ErrorRate was 0.5; that of the model that serves, 0" in result.message
    over = replace(after(analysing(), result.plan), reports=())
    gone = plan(over, NOW + timedelta(seconds=15))
    left = replace(after(over, gone), canary_pods=())
    left = after(left, plan(left, NOW + timedelta(seconds=16)))
    assert left.of_role("Deployment", "canary") is None
    assert decide(left).status.canary is None
    assert decide(left).decision.reason == Reason.ROLLED_BACK
    other = replace(left, spec=asked(checks=[{"metric": "ErrorRate", "maximumIncreasePercent": 50}]))
    assert decide(other).status.canary is not None, "it is asked for otherwise"
    third = with_next(left, ModelSource(uri="s3://models/router/3", digest="sha256:cc"))
    assert decide(third).status.canary is not None


def test_of_several_that_were_rolled_back_none_is_forgotten() -> None:
    first = AbortedRevision(revision="sha256:cc", canary_spec="x", message="It failed.", time=NOW)
    before = analysing()
    before = replace(before, status=before.status.model_copy(update={"aborted": [first]}))
    found = plan(reported(before, 400, 200), NOW).status.aborted
    assert [one.revision for one in found] == ["sha256:bb", "sha256:cc"]
    many = [first.model_copy(update={"revision": str(number)}) for number in range(10)]
    full = replace(before, status=before.status.model_copy(update={"aborted": many}))
    assert len(plan(reported(full, 400, 200), NOW).status.aborted) == 10


def test_defaults_that_are_written_out_are_the_same_canary() -> None:
    aborted = plan(reported(analysing(), 400, 200), NOW)
    over = replace(after(analysing(), aborted), reports=())
    spelt = replace(over, spec=asked(approval="Automatic", onNotEnoughData="Wait"))
    assert decide(spelt).decision.reason == Reason.ROLLED_BACK


def test_another_model_ends_it_and_begins_once_it_is_gone() -> None:
    third = with_next(analysing(), ModelSource(uri="s3://models/router/3", digest="sha256:cc"))
    ended = decide(third).status.canary
    assert ended is not None and (ended.phase, ended.outcome, ended.revision) == ("Ending", "Withdrawn", "sha256:bb")
    later = after(third, plan(third, NOW))
    ending = plan(later, NOW + timedelta(seconds=15))
    assert ending.status.canary == later.status.canary, "its Deployment is there yet"
    assert [child.resource.kind for child in ending.delete if "canary" in child.name] == ["Deployment"]
    gone = replace(after(later, ending), canary_pods=())
    begun = plan(gone, NOW + timedelta(seconds=16)).status.canary
    assert begun is not None and (begun.revision, begun.phase) == ("sha256:cc", "Starting")


def test_going_back_to_what_serves_ends_it() -> None:
    back = with_next(analysing(), behind_gateway().resolved_model.source)
    found = decide(back)
    assert found.status.canary is not None and found.status.canary.outcome == "Withdrawn"
    assert "Deployment/router" not in found.decision.writes


def replaced_by_next(ago_seconds: float, **canary: Any) -> ObservedModelDeployment:
    """The next model was rolled out so long ago, and the one before is asked for again."""
    observed = behind_gateway(**canary)
    earlier = observed.resolved_model.source
    rolled = after(observed, plan(with_next(replace(observed, spec=deployment_spec(gateway={"replicas": 1}))), NOW))
    first, second = rolled.status.history
    assert [one.revision for one in (first, second)] == ["sha256:bb", "sha256:aa"]
    first = first.model_copy(update={"applied_time": NOW - timedelta(seconds=ago_seconds), "available_time": NOW})
    status = rolled.status.model_copy(update={"history": [first, second]})
    return replace(with_next(rolled, earlier), spec=asked(**canary), status=status)


def test_what_served_until_a_while_ago_is_rolled_out_again_at_once_and_without_an_approval() -> None:
    back = replaced_by_next(86_399, approval="Manual")
    found = plan(back, NOW)
    assert (applied(found), found.status.canary) == ("sha256:aa", None)
    told = [one.message for one in found.events if one.reason == "ReturnedToEarlier"]
    assert told == ["'sha256:aa' served until 2026-11-21T12:00:01Z: it is rolled out again without a canary."]
    again = plan(after(back, found), NOW)
    assert applied(again) == "sha256:aa"
    assert [one for one in again.events if one.reason == "ReturnedToEarlier"] == []


@pytest.mark.parametrize(("ago", "window"), [(86_400, 86_400), (60, 60), (0, 0)])
def test_after_the_window_going_back_is_a_canary_as_well(ago: float, window: int) -> None:
    assert applied(plan(replaced_by_next(ago, rollbackWindowSeconds=window), NOW)) == "sha256:bb"


def test_what_never_served_or_was_rolled_back_is_not_returned_to() -> None:
    back = replaced_by_next(60)
    first, second = back.status.history
    never = [first, second.model_copy(update={"available_time": None})]
    assert applied(plan(replace(back, status=back.status.model_copy(update={"history": never})), NOW)) == "sha256:bb"
    assert (
        applied(plan(with_next(back, ModelSource(uri="s3://models/router/3", digest="sha256:cc")), NOW)) == "sha256:bb"
    )
    spec = back.spec.rollout.canary or Canary()
    failed = AbortedRevision(revision="sha256:aa", canary_spec=asked_as(spec), message="It failed.", time=NOW)
    held = replace(back, status=back.status.model_copy(update={"aborted": [failed]}))
    assert applied(plan(held, NOW)) == "sha256:bb"


def test_the_canary_of_another_model_ends_when_an_earlier_one_is_asked_for() -> None:
    back = replaced_by_next(60)
    other = analysing().status.canary
    assert other is not None
    third = other.model_copy(update={"revision": "sha256:cc"})
    found = plan(replace(back, status=back.status.model_copy(update={"canary": third})), NOW)
    assert applied(found) == "sha256:aa"
    assert found.status.canary is not None and found.status.canary.outcome == "Withdrawn"


def test_without_the_progress_endpoint_it_says_so() -> None:
    without = replace(behind_gateway(), progress_endpoint=None)
    result = decide(after(without, plan(without, NOW)))
    assert (result.decision.reason, result.decision.stalled) == (Reason.INVALID_SPEC, True)
    assert "--progress-url" in result.message


def test_of_a_canary_behind_a_gateway_without_a_ready_pod_nothing_is_said_to_be_served() -> None:
    observed = analysing()
    gateway = observed.of_role("Deployment", "gateway")
    assert gateway is not None
    down = tuple(rolled_out(item, 1, readyReplicas=0) if item is gateway else item for item in observed.extras)
    result = decide(replace(observed, extras=down))
    assert (result.decision.ready, result.decision.reason) == (False, Reason.GATEWAY_UNAVAILABLE)
    assert "nothing is reachable" in result.message
    assert "is in step 1 of 1" in result.message
    assert "is served" not in result.message


def test_why_a_canary_does_not_start_is_in_the_readiness_and_counts_once_it_ends_again() -> None:
    observed = went_on(with_next(behind_gateway()))
    crashed = tuple(
        replace(pod, ready=False, phase="Pending", exit_code=1, message="no such model") for pod in observed.canary_pods
    )
    result = decide(replace(observed, canary_pods=crashed))
    assert result.decision.reason == Reason.CANARY_RUNNING
    assert "no such model" in result.message
    assert result.status.canary is not None and result.status.canary.failing_time is None, "it is started again"
    again = decide(replace(observed, canary_pods=tuple(replace(pod, restarts=2) for pod in crashed)))
    assert again.status.canary is not None and again.status.canary.failing_time == NOW
