"""What holds for every observed Evaluation and ModelDeployment."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan as plan_evaluation
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan as plan_deployment
from tests.unit.operator import deployment_states
from tests.unit.operator.deployment_states import (
    GATED,
    deployment_spec,
    observed_deployment,
    rolled_out,
    verdict,
)
from tests.unit.operator.properties.drawn_states import (
    after,
    assert_settles,
    conditions,
    maybe,
    models,
    observed_evaluations,
    platforms,
    pods_named,
    record,
    small,
)
from tests.unit.operator.states import (
    NOW,
)

# ModelDeployment.


gates = st.sampled_from(
    [
        None,
        verdict(None),
        verdict(True),
        verdict(False),
        verdict(True, digest="sha256:bb"),
        progressing(Reason.WAITING_FOR_GATE),
    ]
)
replica_counts = st.fixed_dictionaries(
    {}, optional={name: small for name in ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas")}
)
deployment_statuses = record(
    ModelDeploymentStatus,
    phase=maybe(st.sampled_from(["Waiting", "RollingOut", "Available", "Blocked"])),
    conditions=conditions,
    replicas=small,
    ready_replicas=small,
)


@st.composite
def observed_deployments(draw: st.DrawFn) -> ObservedModelDeployment:
    """Any status upon what an earlier model's rollout, or none, left."""
    gate = draw(gates)
    gated = GATED if gate is not None else {}
    fresh = observed_deployment(
        draw(deployment_statuses),
        spec=deployment_spec(replicas=draw(st.integers(0, 9)), **gated),
        model=draw(models),
        class_=draw(platforms),
        gate=gate,
        pods=draw(pods_named(["router"])),
    )
    if draw(st.booleans()):
        return fresh
    earlier = observed_deployment(spec=deployment_spec(replicas=draw(st.integers(0, 9))), model=draw(models))
    serving = deployment_states.after(earlier, plan_deployment(earlier, NOW))
    deployment = serving.deployment and rolled_out(serving.deployment, **draw(replica_counts))
    config_maps = [item["metadata"]["name"] for item in serving.config_maps]
    pods = tuple(
        replace(one, run_config=draw(st.sampled_from(["", *config_maps])), ready=draw(st.booleans()))
        for one in fresh.pods
    )
    return replace(fresh, deployment=deployment, service=serving.service, config_maps=serving.config_maps, pods=pods)


# The properties.


@settings(max_examples=100)
@given(observed_evaluations)
def test_plans_of_an_evaluation_settle(observed: ObservedEvaluation) -> None:
    assert_settles(observed, plan_evaluation, after)


@settings(max_examples=100)
@given(observed_deployments())
def test_plans_of_a_modeldeployment_settle(observed: ObservedModelDeployment) -> None:
    assert_settles(observed, plan_deployment, deployment_states.after)


@settings(max_examples=50)
@given(observed_deployments())
def test_nothing_is_served_that_its_evaluation_did_not_pass(observed: ObservedModelDeployment) -> None:
    gated = replace(observed, spec=deployment_spec(**GATED), gate=verdict(False))
    assert plan_deployment(gated, NOW).apply == ()
