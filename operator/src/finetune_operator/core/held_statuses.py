"""Statuses that are kept in memory for a moment, because the next one may follow at once and spare a write.

A held status counts as the stored one for this process. It is lost with the process, which is the same as a crash
between the writes of a plan and its status: the plan is made again, and what it creates exists already.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.resources import Object


@dataclass(frozen=True)
class _Held:
    uid: str
    stored: Object
    """The stored status, in whose place `status` counts."""
    status: Object


class HeldStatuses:
    """The held statuses of one kind's objects."""

    def __init__(self) -> None:
        self._held: dict[ObjectKey, _Held] = {}

    def over(self, key: ObjectKey, parent: Object) -> Object:
        """The object with its held status, unless it is another object by now, or another client wrote its status."""
        held = self._held.get(key)
        if held is None:
            return parent
        if held.uid != parent["metadata"]["uid"] or held.stored != parent.get("status", {}):
            del self._held[key]
            return parent
        return {**parent, "status": held.status}

    def hold(self, key: ObjectKey, parent: Object, status: Object) -> None:
        """Let this status count for the object, as it is stored."""
        self._held[key] = _Held(parent["metadata"]["uid"], parent.get("status", {}), status)

    def drop(self, key: ObjectKey) -> None:
        """The status has been written, or the object is gone."""
        self._held.pop(key, None)
