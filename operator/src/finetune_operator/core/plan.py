"""Plans as data, and how they are made: mutators and deciders in order.

Each kind's plan.py lists its policies in order. A mutator records what has happened. A decider may decide what to do;
the first that does ends the list. The phase follows from the reason of the conditions, by one table for each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.conditions import EventNote, Readiness, conditions, failed_end, is_known, transition_events
from finetune_operator.kube.resources import Object, Resource

ENDED_UNSUCCESSFULLY = frozenset({"Failed", "Cancelled"})
"""The phases of runs that ended without what was asked for: the condition Failed is True."""
Status = TypeVar("Status", bound=KindStatus)
ObservedT = TypeVar("ObservedT", bound="Observed")
Phase = TypeVar("Phase", bound=str)


@dataclass(frozen=True)
class Child:
    """An existing object that we made, to be deleted."""

    resource: Resource
    namespace: str
    name: str
    uid: str | None
    """None if the name alone identifies it, because it contains the parent's UID (ownership.child_name)."""
    dependents_first: bool = False
    """Foreground deletion: its dependents are deleted although a finalizer keeps it."""
    then: tuple[Child, ...] = ()
    """Deleted after it; kept if its deletion is refused, since it may still need them."""


@dataclass(frozen=True)
class Plan(Generic[Status]):
    """The writes of one reconciliation, in this order: create, merge, apply, delete, events, status, create_recorded.

    `create`: objects that never change (an attempt's); existing ones are kept. If one is refused, none of the rest is
    created, unless `creates_each`: they don't need each other. `create_recorded`: the same, each by itself, of what
    must be in the status before it exists. `merge`: objects that several parents write to (a budget's ledger); only the
    given fields are set. `apply`: objects that follow the spec.
    """

    status: Status
    create: tuple[Object, ...] = ()
    apply: tuple[Object, ...] = ()
    merge: tuple[Object, ...] = ()
    delete: tuple[Child, ...] = ()
    events: tuple[EventNote, ...] = ()
    requeue_at: datetime | None = None
    if_refused: Status | None = None
    """The status, without conditions about it, if the API server refuses what is created; None: the one before."""
    create_recorded: tuple[Object, ...] = ()
    """If the API server refuses one, the next plan has it in `create`, and so reports that."""
    creates_each: bool = False
    status_due: datetime | None = None
    """Until then the status may be kept in memory (held_statuses.py), unless there is an Event; None: write it now."""


@dataclass(frozen=True)
class LeftBehind:
    """An Event about what a deleted object leaves in the storage, recorded on its class, which outlives both."""

    class_name: str
    note: EventNote


@dataclass(frozen=True)
class DeletionPlan(Generic[Status]):
    """The writes for an object that is being deleted; `release`: whether our finalizer is removed after them."""

    plan: Plan[Status]
    release: bool = False
    left_behind: LeftBehind | None = None


class Observed(Protocol):
    """The fields that the observed state of every kind has."""

    @property
    def generation(self) -> int: ...

    @property
    def status(self) -> KindStatus: ...


@dataclass(frozen=True)
class Decision(Generic[Status]):
    """What to do, the object's readiness until it is done, and its status."""

    status: Status
    readiness: Readiness | None
    """None: the conditions stay as they are."""
    create: Sequence[Object] = ()
    apply: Sequence[Object] = ()
    merge: Sequence[Object] = ()
    delete: Sequence[Child] = ()
    events: Sequence[EventNote] = ()
    """Recorded before the Event about the conditions."""
    requeue_at: datetime | None = None
    meanwhile: Reason | None = None
    """If the reason is a diagnosis: the reason that sets the phase instead (Phases); None: the status says it."""
    keeps_phase: bool = False
    """Whether the phase stays, whatever the reason."""
    passed: Readiness | None = None
    """The condition Passed."""
    if_refused: Status | None = None
    """As in Plan, but for its phase, which is that of the readiness."""
    create_recorded: Sequence[Object] = ()
    """As in Plan."""
    creates_each: bool = False
    """As in Plan."""
    status_due: datetime | None = None
    """As in Plan."""


@dataclass(frozen=True)
class Mutator(Generic[ObservedT, Status]):
    """Changes the plan, and never ends the list.

    Before the decision it may change only the status and `merge`, since the decision has the other fields.
    """

    run: Callable[[ObservedT, Plan[Status], datetime], Plan[Status]]


@dataclass(frozen=True)
class Decider(Generic[ObservedT, Status]):
    """Ends the list with a decision; None leaves it to the policies that follow."""

    run: Callable[[ObservedT, Status, datetime], Decision[Status] | None]


@dataclass(frozen=True)
class Phases(Generic[Phase]):
    """The phase for each reason, of one kind.

    `of_reason`: the phases of the reasons that are not diagnoses. While Stalled is True, any reason counts as a
    diagnosis, since a Pod may report one of the same name; the exception is a run cancelled by spec.cancel. `stays`:
    the reasons that keep the phase. `failed`: the phase while Failed is True for another reason. `stalled`: the phase
    while Stalled is True; None: that of `meanwhile`.
    """

    of_reason: Mapping[Reason, Phase]
    stays: frozenset[Reason] = frozenset()
    failed: Phase | None = None
    stalled: Phase | None = None

    def of(self, readiness: Readiness, meanwhile: Reason, before: Phase) -> Phase:
        """The phase of this readiness.

        `meanwhile`: the reason, one of `of_reason`, to use in place of a diagnosis; `before`: the current phase.
        """
        if readiness.cancelled:
            return self.of_reason[Reason.CANCELLED]
        if readiness.failed and self.failed is not None:
            return self.failed
        if readiness.stalled and self.stalled is not None:
            return self.stalled
        if readiness.reason in self.stays:
            return before
        is_diagnosis = readiness.stalled or readiness.reason not in self.of_reason
        return self.of_reason[meanwhile if is_diagnosis else readiness.reason]


def decided(
    policies: Sequence[Mutator[ObservedT, Status] | Decider[ObservedT, Status]],
    observed: ObservedT,
    status: Status,
    phase_of: Callable[[Decision[Status], Readiness], str],
    now: datetime,
    always: Sequence[Mutator[ObservedT, Status]] = (),
) -> Plan[Status]:
    """The plan with the writes, the phase and the conditions of the first decision; `status`: the observed one.

    `always`: what follows every decision.
    """
    plan = _first_decision(policies, observed, status, phase_of, now)
    for mutator in always:
        plan = mutator.run(observed, plan, now)
    return plan


def _first_decision(
    policies: Sequence[Mutator[ObservedT, Status] | Decider[ObservedT, Status]],
    observed: ObservedT,
    status: Status,
    phase_of: Callable[[Decision[Status], Readiness], str],
    now: datetime,
) -> Plan[Status]:
    plan = Plan(status)
    for policy in policies:
        if isinstance(policy, Mutator):
            before, plan = plan, policy.run(observed, plan, now)
            assert plan is before or plan == Plan(plan.status, merge=plan.merge), "the rest is the decision's"
        elif (decision := policy.run(observed, plan.status, now)) is not None:
            return _with_decision(observed, plan, decision, phase_of, now)
    raise AssertionError("the last policy always decides")


def planned(
    observed: Observed,
    status: Status,
    phase: str | None,
    readiness: Readiness,
    now: datetime,
    *,
    passed: Readiness | None = None,
    create: Sequence[Object] = (),
    apply: Sequence[Object] = (),
    merge: Sequence[Object] = (),
    delete: Sequence[Child] = (),
    requeue_at: datetime | None = None,
) -> Plan[Status]:
    """A plan whose conditions, with an Event if they changed, follow from a readiness.

    `phase` None: the kind has none, or it stays. The condition Failed is kept as long as the phase is final.
    """
    before = observed.status.conditions
    current = conditions(readiness, before, generation=observed.generation, now=now, passed=passed)
    update: dict[str, object] = {"observed_generation": observed.generation}
    if phase is not None:
        update["phase"] = phase
    current = _consistent_with_phase(current, before, status, phase or getattr(status, "phase", None), now)
    update["conditions"] = current
    return Plan(
        status=status.model_copy(update=update),
        create=tuple(create),
        apply=tuple(apply),
        merge=tuple(merge),
        delete=tuple(delete),
        events=transition_events(before, current),
        requeue_at=requeue_at,
    )


def unchanged(
    observed: Observed, status: Status, *, delete: Sequence[Child] = (), requeue_at: datetime | None = None
) -> Plan[Status]:
    """The same conditions as before, observed at the current generation."""
    generation = {"observed_generation": observed.generation}
    is_over = getattr(status, "phase", None) in ENDED_UNSUCCESSFULLY
    kept = [item for item in status.conditions if is_over or item.type != ConditionType.FAILED]
    seen = [item.model_copy(update=generation) if is_known(item) else item for item in kept]
    status = status.model_copy(update={"conditions": seen, "observed_generation": observed.generation})
    return Plan(status=status, delete=tuple(delete), requeue_at=requeue_at)


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    """The first of these moments, or None."""
    return min((moment for moment in moments if moment is not None), default=None)


def _with_decision(
    observed: Observed,
    plan: Plan[Status],
    decision: Decision[Status],
    phase_of: Callable[[Decision[Status], Readiness], str],
    now: datetime,
) -> Plan[Status]:
    status, readiness, refused = decision.status, decision.readiness, decision.if_refused
    if readiness is None:
        done = unchanged(observed, status, delete=decision.delete, requeue_at=decision.requeue_at)
    else:
        phase = phase_of(decision, readiness)
        refused = refused and refused.model_copy(update={"phase": phase})
        done = planned(
            observed,
            status,
            phase,
            readiness,
            now,
            passed=decision.passed,
            create=decision.create,
            apply=decision.apply,
            delete=decision.delete,
            requeue_at=decision.requeue_at,
        )
    merge, events = (*plan.merge, *decision.merge), (*decision.events, *done.events)
    return replace(
        done,
        merge=merge,
        events=events,
        if_refused=refused,
        create_recorded=tuple(decision.create_recorded),
        creates_each=decision.creates_each,
        status_due=decision.status_due,
    )


def _consistent_with_phase(
    current: Sequence[Condition], before: Sequence[Condition], status: KindStatus, phase: str | None, now: datetime
) -> list[Condition]:
    """The conditions, with Failed exactly if the run ended without success, whatever another version wrote."""
    others = [condition for condition in current if condition.type != ConditionType.FAILED]
    if phase not in ENDED_UNSUCCESSFULLY:
        return others
    failed = [one for one in (*current, *before) if one.type == ConditionType.FAILED and one.status == "True"]
    if not failed:
        end = failed_end(before, getattr(status, "failure", None))
        failed = [one for one in conditions(end, [], generation=0, now=now) if one.type == ConditionType.FAILED]
    return [*others, *failed[:1]]
