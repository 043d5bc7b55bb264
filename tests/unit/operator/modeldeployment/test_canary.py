"""A ModelDeployment whose next model proves itself first: what is applied, served and told, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from finetune_api.canary import TrafficBatch, TrafficCounts, TrafficReport
from finetune_api.conditions import Reason
from finetune_api.run import ModelSource
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.deployment_states import after, answering, deployment_spec, observed_deployment, rolled_out
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


def test_the_first_model_and_one_in_place_of_what_does_not_serve_need_no_canary() -> None:
    first = decide(observed_deployment(spec=asked(), gateway_image="i", progress_endpoint=ENDPOINT))
    assert "Deployment/router" in first.decision.writes
    broken = replace(with_next(behind_gateway()), pods=())
    assert "Deployment/router" in decide(broken).decision.writes
    assert decide(broken).status.canary is None


def test_promoted_it_is_rolled_out_and_its_own_pods_go_last() -> None:
    promoted = reported(analysing(), 400, 0)
    result = decide(promoted)
    assert "Deployment/router" in result.decision.writes
    assert (result.status.applied or NEXT).digest == "sha256:bb"
    assert result.decision.deletes == ()
    rolling = replace(after(promoted, result.plan), reports=())
    assert decide(rolling).decision.deletes == (), "until every replica serves it"
    assert rolling.deployment is not None
    done = replace(rolling, deployment={**rolled_out(rolling.deployment, 1)}, pods=answering(rolling.deployment, 1))
    done.deployment["status"]["observedGeneration"] = done.deployment["metadata"]["generation"]  # type: ignore[index]
    told = replace(done, status=plan(done, NOW).status)
    ending = plan(told, NOW).status.canary
    assert ending is not None and (ending.phase, ending.outcome, ending.percent) == ("Ending", "Promoted", 0)
    over = plan(replace(told, status=plan(told, NOW).status), NOW + timedelta(seconds=15))
    assert over.status.canary is None
    assert [child.resource.kind for child in over.delete if "canary" in child.name] == ["Deployment"]


def test_rolled_back_what_served_is_still_there_and_the_same_is_not_tried_again() -> None:
    result = decide(reported(analysing(), 400, 200))
    assert (result.decision.reason, result.decision.stalled, result.decision.ready) == (Reason.ROLLED_BACK, True, True)
    assert "ErrorRate was 0.5 and 0 of what serves" in result.message
    over = replace(after(analysing(), result.plan), reports=())
    gone = plan(over, NOW + timedelta(seconds=15))
    assert gone.status.canary is None
    left = after(over, gone)
    assert decide(left).status.canary is None
    assert decide(left).decision.reason == Reason.ROLLED_BACK
    other = replace(left, spec=asked(checks=[{"metric": "ErrorRate", "maximumIncreasePercent": 50}]))
    assert decide(other).status.canary is not None, "it is asked for otherwise"
    third = with_next(left, ModelSource(uri="s3://models/router/3", digest="sha256:cc"))
    assert decide(third).status.canary is not None


def test_another_model_ends_it_and_begins_once_it_is_gone() -> None:
    third = with_next(analysing(), ModelSource(uri="s3://models/router/3", digest="sha256:cc"))
    ended = decide(third).status.canary
    assert ended is not None and (ended.phase, ended.outcome, ended.revision) == ("Ending", "Withdrawn", "sha256:bb")
    later = after(third, plan(third, NOW))
    begun = plan(later, NOW + timedelta(seconds=15)).status.canary
    assert begun is not None and begun.revision == "sha256:cc"


def test_going_back_to_what_serves_ends_it() -> None:
    back = with_next(analysing(), behind_gateway().resolved_model.source)
    found = decide(back)
    assert found.status.canary is not None and found.status.canary.outcome == "Withdrawn"
    assert "Deployment/router" not in found.decision.writes


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
