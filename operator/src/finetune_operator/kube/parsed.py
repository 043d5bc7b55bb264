"""What was parsed of the objects in the cache: each is parsed once, however often it is looked at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from finetune_api.conditions import KindStatus
from finetune_operator.kube.resources import Object

Value = TypeVar("Value")
Status = TypeVar("Status", bound=KindStatus)

KEPT = 64
"""Of each type: the objects that are being looked at, and the few that all others refer to."""


class Parsed(Generic[Value]):
    """Remembers the results of a function for the newest objects that it was called with.

    Objects of the cache are shared and never modified (cache.py), so the same object has the same result. It is held
    together with its result, since another object could have its identity otherwise.
    """

    def __init__(self, parse: Callable[[Any], Value]) -> None:
        self._parse = parse
        self._kept: OrderedDict[int, tuple[Any, Value]] = OrderedDict()

    def __call__(self, stored: Any) -> Value:
        """The result. Raises what the function raises, each time."""
        found = self._kept.get(id(stored))
        if found is not None:
            self._kept.move_to_end(id(stored))
            return found[1]
        value = self._parse(stored)
        if stored is not None:
            self._kept[id(stored)] = (stored, value)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return value


_statuses: dict[type[KindStatus], Parsed[Any]] = {}


def status_of(type: type[Status], parent: Object) -> Status:
    """The object's status. Raises UnreadableStatusError."""
    parsed = _statuses.setdefault(type, Parsed(type.read))
    status: Status = parsed(parent.get("status"))
    return status
