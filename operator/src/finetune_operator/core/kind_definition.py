"""What the runtime knows of a kind: what to watch, what its specs refer to, how it is observed and planned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from finetune_api.lifecycle import KindStatus
from finetune_operator.core.held_statuses import HeldStatuses
from finetune_operator.core.plan import DeletionPlan, Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object, Resource

Body = Mapping[str, Any]
"""An object as a watch delivers it."""
Observe = Callable[[Reader, Object], Awaitable[Any]]
"""Everything that the plan looks at. Raises ValidationError when the spec does not parse, ApiError."""


@dataclass(frozen=True)
class OwnedResource:
    """Children of this type wake their parent when they change."""

    resource: Resource
    role: str | None = None
    """Only children with this role (finetune.dev/role); None: all."""


@dataclass(frozen=True)
class Finalizer:
    """What an object holds outside the cluster, and how it is cleaned up when the object is deleted."""

    name: str
    is_needed: Callable[[Any], bool | None]
    """Decided by what was observed of the object; None: unknown for now, so the finalizer stays as it is."""
    observe: Observe
    plan: Callable[[Any, datetime], DeletionPlan[Any]]


class StatusMetrics(Protocol):
    """Metrics that follow from the statuses of objects."""

    def written(self, key: ObjectKey, before: KindStatus, after: KindStatus) -> None:
        """A reconciliation of the object succeeded: its status was `before` and is `after`."""

    def gone(self, key: ObjectKey) -> None:
        """The object does not exist."""

    def collect(self) -> Iterable[Any]:
        """The families, as Prometheus' Collector."""


def _never_finished(status: Any) -> bool:
    return False


def _refers_to_nothing(body: Body) -> frozenset[ObjectKey]:
    return frozenset()


def _never(observed: Any, plan: Plan[Any]) -> bool:
    return False


def _no_aliases(body: Body) -> frozenset[ObjectKey]:
    return frozenset()


def _all_of_it(body: Body) -> Hashable | None:
    return None


@dataclass(frozen=True)
class Kind:
    """One kind of our group.

    `references` are the objects that a spec refers to: a change of one enqueues the object. `aliases` are further keys
    by which others may refer to an object. `read_by_others` is what they read of it: their wake-ups are spared while it
    stays the same; None wakes them at every change.
    """

    resource: Resource
    status: type[KindStatus]
    observe: Observe
    plan: Callable[[Any, datetime], Plan[Any]]
    owns: tuple[OwnedResource, ...] = ()
    rests_on_absence: Callable[[Any, Plan[Any]], bool] = _never
    """Whether a plan would be wrong if a child existed of which no watch has told: it is made from a live look then."""
    references: Callable[[Body], frozenset[ObjectKey]] = _refers_to_nothing
    aliases: Callable[[Body], frozenset[ObjectKey]] = _no_aliases
    read_by_others: Callable[[Body], Hashable | None] = _all_of_it
    finalizer: Finalizer | None = None
    is_finished: Callable[[Any], bool] = _never_finished
    """Whether an object with this status needs nothing until it changes, so that the cache may drop it.

    It keeps one whose owner is of our kinds and has no completionTime yet, since the owner reads it.
    """
    metrics: tuple[StatusMetrics, ...] = ()
    held: HeldStatuses = field(default_factory=HeldStatuses)
    """Of this kind's objects, in this process."""

    @property
    def name(self) -> str:
        return self.resource.kind
