"""What a reconciliation decides: data, not calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from finetune_api.conditions import Condition, ConditionType, KindStatus
from finetune_operator.core.conditions import EventNote, Readiness, conditions, is_known, transition_events
from finetune_operator.core.failed_condition import failed_end
from finetune_operator.kube.resources import Object, Resource

Status = TypeVar("Status", bound=KindStatus)


@dataclass(frozen=True)
class Child:
    """An existing object that we made, to be deleted."""

    resource: Resource
    namespace: str
    name: str
    uid: str | None
    """None for a name that no other parent's child can have (ownership.child_name)."""
    dependents_first: bool = False
    """What it owns goes before it does, since a finalizer keeps it."""


@dataclass(frozen=True)
class Plan(Generic[Status]):
    """The writes of one reconciliation, in this order: create, merge, apply, delete, events, status.

    `create` is for what is written once and never changed (an attempt's objects): what exists already stays. `merge` is
    for what several parents write into (a budget's ledger): the given fields are set, all others stay.
    """

    status: Status
    create: tuple[Object, ...] = ()
    apply: tuple[Object, ...] = ()
    merge: tuple[Object, ...] = ()
    delete: tuple[Child, ...] = ()
    events: tuple[EventNote, ...] = ()
    requeue_at: datetime | None = None


@dataclass(frozen=True)
class LeftBehind:
    """What a deleted object leaves outside the cluster. Told on the class, which outlives object and namespace."""

    class_name: str
    note: EventNote


@dataclass(frozen=True)
class DeletionPlan(Generic[Status]):
    """What is done for an object that is being deleted and holds our finalizer: the writes, and then the release."""

    plan: Plan[Status]
    release: bool = False
    left_behind: LeftBehind | None = None


class Observed(Protocol):
    """What every kind observes of its parent."""

    @property
    def generation(self) -> int: ...

    @property
    def status(self) -> KindStatus: ...


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
    """A plan whose conditions, and the Event if they moved, follow from a readiness.

    `phase` None: the kind has none, or it stays. The condition Failed stands for as long as the phase says so.
    """
    before = observed.status.conditions
    current = conditions(readiness, before, generation=observed.generation, now=now, passed=passed)
    update: dict[str, object] = {"observed_generation": observed.generation}
    if phase is not None:
        update["phase"] = phase
    current = _failed_as_the_phase(current, before, status, phase or getattr(status, "phase", None), now)
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
    """The same readiness as before; only the generation that was seen may differ."""
    generation = {"observed_generation": observed.generation}
    is_over = getattr(status, "phase", None) == "Failed"
    kept = [item for item in status.conditions if is_over or item.type != ConditionType.FAILED]
    seen = [item.model_copy(update=generation) if is_known(item) else item for item in kept]
    status = status.model_copy(update={"conditions": seen, "observed_generation": observed.generation})
    return Plan(status=status, delete=tuple(delete), requeue_at=requeue_at)


def _failed_as_the_phase(
    current: Sequence[Condition], before: Sequence[Condition], status: KindStatus, phase: str | None, now: datetime
) -> list[Condition]:
    """The conditions, with Failed where the run is over for good, and only there, whatever another version wrote."""
    others = [condition for condition in current if condition.type != ConditionType.FAILED]
    if phase != "Failed":
        return others
    failed = [one for one in (*current, *before) if one.type == ConditionType.FAILED and one.status == "True"]
    if not failed:
        end = failed_end(before, getattr(status, "failure", None))
        failed = [one for one in conditions(end, [], generation=0, now=now) if one.type == ConditionType.FAILED]
    return [*others, *failed[:1]]


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    """The first of these moments, or None."""
    return min((moment for moment in moments if moment is not None), default=None)
