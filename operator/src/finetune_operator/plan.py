"""What a reconciliation decides: data, not calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from finetune_api.conditions import ConditionType, KindStatus
from finetune_operator.kube import Object, Resource
from finetune_operator.status import EventNote, Standing, conditions, is_known, transition_events

Status = TypeVar("Status", bound=KindStatus)


@dataclass(frozen=True)
class Child:
    """An existing object that we made, to be deleted."""

    resource: Resource
    namespace: str
    name: str
    uid: str | None
    """None for a name that no other parent's child can have (children.child_name)."""


@dataclass(frozen=True)
class Plan(Generic[Status]):
    """The writes of one reconciliation, in this order: create, apply, merge, delete, events, status.

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
class Farewell(Generic[Status]):
    """What is done for an object that is being deleted and holds our finalizer: the plan, and then the release."""

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
    standing: Standing,
    now: datetime,
    *,
    passed: Standing | None = None,
    create: Sequence[Object] = (),
    apply: Sequence[Object] = (),
    merge: Sequence[Object] = (),
    delete: Sequence[Child] = (),
    requeue_at: datetime | None = None,
) -> Plan[Status]:
    """A plan whose conditions, and the Event if they moved, follow from a standing.

    `phase` None: the kind has none, or it stays, and so does the condition Failed of a run that is over.
    """
    before = observed.status.conditions
    current = conditions(standing, before, generation=observed.generation, now=now, passed=passed)
    update: dict[str, object] = {"conditions": current, "observed_generation": observed.generation}
    if phase is not None:
        update["phase"] = phase
    else:
        current += [condition for condition in before if condition.type == ConditionType.FAILED]
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
    """The same standing as before; only the generation that was seen may differ."""
    generation = {"observed_generation": observed.generation}
    seen = [item.model_copy(update=generation) if is_known(item) else item for item in status.conditions]
    status = status.model_copy(update={"conditions": seen, "observed_generation": observed.generation})
    return Plan(status=status, delete=tuple(delete), requeue_at=requeue_at)


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    """The first of these moments, or None."""
    return min((moment for moment in moments if moment is not None), default=None)
