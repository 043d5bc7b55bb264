"""Plans of a ModelDeployment, and what they begin from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import stalled
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.deployment_states import (
    after,
    answering,
    observed_deployment,
    rolled_out,
)
from tests.unit.operator.states import (
    NOW,
    Decided,
    decided,
)

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
