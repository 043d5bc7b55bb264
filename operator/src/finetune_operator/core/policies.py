"""How a plan is made, policy by policy: one page of each kind (plan.py) lists them in order.

A mutator writes down what has happened. A decider may say what is to be done; the first that does ends the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Child, Observed, Plan, Status, planned, unchanged
from finetune_operator.kube.resources import Object

Seen = TypeVar("Seen", bound=Observed)


@dataclass(frozen=True)
class Decision(Generic[Status]):
    """What is to be done, where the object stands meanwhile, and the status that goes with it."""

    status: Status
    readiness: Readiness | None
    """None: the conditions stay as they are."""
    create: Sequence[Object] = ()
    delete: Sequence[Child] = ()
    requeue_at: datetime | None = None
    meanwhile: Reason | None = None
    """What the object does, if the reason is a diagnosis (core/phases.py); None: that follows from the status."""
    keeps_phase: bool = False
    """Nothing is decided of the run: it stays where it is, whatever the reason."""
    passed: Readiness | None = None
    """The condition Passed."""


@dataclass(frozen=True)
class Mutator(Generic[Seen, Status]):
    """Changes the plan, its status most of all, and never ends the list."""

    run: Callable[[Seen, Plan[Status], datetime], Plan[Status]]


@dataclass(frozen=True)
class Decider(Generic[Seen, Status]):
    """Ends the list with a decision; None leaves it to the policies that follow."""

    run: Callable[[Seen, Status, datetime], Decision[Status] | None]


def decided(
    policies: Sequence[Mutator[Seen, Status] | Decider[Seen, Status]],
    observed: Seen,
    status: Status,
    phase_of: Callable[[Decision[Status], Readiness], str],
    now: datetime,
) -> Plan[Status]:
    """The plan with the writes, the phase and the conditions of the first decision; `status`: the observed one."""
    plan = Plan(status)
    for policy in policies:
        if isinstance(policy, Mutator):
            plan = policy.run(observed, plan, now)
        elif (decision := policy.run(observed, plan.status, now)) is not None:
            return _carried_out(observed, plan, decision, phase_of, now)
    raise AssertionError("the last policy always decides")


def _carried_out(
    observed: Observed,
    plan: Plan[Status],
    decision: Decision[Status],
    phase_of: Callable[[Decision[Status], Readiness], str],
    now: datetime,
) -> Plan[Status]:
    status, readiness = decision.status, decision.readiness
    if readiness is None:
        done = unchanged(observed, status, delete=decision.delete, requeue_at=decision.requeue_at)
    else:
        done = planned(
            observed,
            status,
            phase_of(decision, readiness),
            readiness,
            now,
            passed=decision.passed,
            create=decision.create,
            delete=decision.delete,
            requeue_at=decision.requeue_at,
        )
    return replace(done, merge=plan.merge)
