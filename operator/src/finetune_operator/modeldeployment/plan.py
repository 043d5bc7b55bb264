"""What to do next for a ModelDeployment: every policy, in order, and the phase for each reason.

The first policy that decides ends the list. Each keeps up what serves already (serving/keep_serving.py): it corrects
the objects, records what others changed, sees how far the rollout is, and keeps the history. Only the next revision
waits.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Mutator, Phases, Plan, decided
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.policies.canary import (
    follow_canary,
    hold_rolled_back,
    promote_canary,
    record_canary_events,
    replace_broken,
    run_canary,
    serve_without_canary,
    wait_for_gateway,
    wait_for_stable,
    wake_for_canary,
    withdraw_canary,
)
from finetune_operator.modeldeployment.policies.class_limits import refuse_replicas, refuse_source, wait_for_class
from finetune_operator.modeldeployment.policies.gate import wait_for_gate
from finetune_operator.modeldeployment.policies.model import wait_for_model
from finetune_operator.modeldeployment.policies.name import refuse_taken_name
from finetune_operator.modeldeployment.policies.rollback import return_to_earlier, roll_back
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision

POLICIES: tuple[
    Mutator[ObservedModelDeployment, ModelDeploymentStatus] | Decider[ObservedModelDeployment, ModelDeploymentStatus],
    ...,
] = (
    Mutator(follow_canary),  # what is known of the canary
    Decider(refuse_taken_name),  # somebody else's Deployment or Service has the name
    Decider(wait_for_class),  # no class
    Decider(refuse_replicas),  # more replicas than the class allows, before anything serves
    Decider(roll_back),  # an earlier revision is to serve, whatever spec.model is
    Decider(refuse_source),  # a model that the class does not allow
    Decider(wait_for_model),  # the job that makes the model has no result yet
    Decider(wait_for_gate),  # its evaluation has not passed this model
    # Nothing but a canary holds the next revision back.
    Mutator(withdraw_canary),  # it is of another model, or can't be compared any more
    Decider(serve_without_canary),  # none is asked for, or the model serves already
    Decider(hold_rolled_back),  # it was rolled back
    Decider(return_to_earlier),  # it served until a short while ago
    Decider(wait_for_gateway),  # nothing can split the requests
    Decider(replace_broken),  # what serves has not answered for long: there is nothing to compare with
    Decider(wait_for_stable),  # what serves does not answer
    Decider(promote_canary),  # it has passed, and its Pods are gone
    Decider(run_canary),  # always decides
)
PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Waiting",
        Reason.WAITING_FOR_GATE: "Waiting",
        Reason.QUEUED: "RollingOut",
        Reason.ROLLING_OUT: "RollingOut",
        Reason.GATEWAY_UNAVAILABLE: "RollingOut",
        Reason.CANARY_RUNNING: "Canary",
        Reason.WAITING_FOR_APPROVAL: "Canary",
        Reason.AVAILABLE: "Available",
    },
    stalled="Blocked",
)
"""A diagnosis that stalls nothing (an autoscaler that asks for too much) leaves the phase to the rollout's reason."""


def plan(observed: ObservedModelDeployment, now: datetime) -> Plan[ModelDeploymentStatus]:
    """The writes that bring the deployment one step further, and keep up what serves already."""
    return decided(
        POLICIES,
        observed,
        observed.status,
        _phase,
        now,
        always=(Mutator(wake_for_canary), Mutator(record_canary_events)),
    )


def _phase(decision: DeploymentDecision, readiness: Readiness) -> Phase:
    return PHASES.of(readiness, decision.meanwhile or Reason.ROLLING_OUT, "Waiting")
