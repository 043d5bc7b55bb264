"""What was parsed of the objects in the cache: each is parsed once, however often it is looked at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from finetune_api.base import ApiModel
from finetune_api.lifecycle import KindStatus
from finetune_operator.kube.resources import Object

Value = TypeVar("Value")
Status = TypeVar("Status", bound=KindStatus)
Spec = TypeVar("Spec", bound=ApiModel)

KEPT = 64
"""Of each type: the objects that are being looked at, and the few that all others refer to."""
SPECS_KEPT = 512
"""Of each kind: what has been created lately and is looked at again and again until it runs."""


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


class _Specs(Generic[Spec]):
    """The specs of the newest objects of one kind. Each version of an object has a copy of the same spec."""

    def __init__(self, type: type[Spec]) -> None:
        self._type = type
        self._kept: OrderedDict[tuple[str, int], tuple[Any, Spec]] = OrderedDict()

    def __call__(self, parent: Object) -> Spec:
        # A change has another generation; the API server's defaults, after an upgrade of the CRD, have not.
        stored, key = parent["spec"], (parent["metadata"].get("uid", ""), parent["metadata"].get("generation", 0))
        found = self._kept.get(key)
        if found is not None and found[0] == stored:
            self._kept.move_to_end(key)
            return found[1]
        spec = self._type.from_storage(stored)
        self._kept[key] = (stored, spec)
        if len(self._kept) > SPECS_KEPT:
            self._kept.popitem(last=False)
        return spec


_statuses: dict[type[KindStatus], Parsed[Any]] = {}
_specs: dict[type[ApiModel], _Specs[Any]] = {}


def status_of(type: type[Status], parent: Object) -> Status:
    """The object's status. Raises UnreadableStatusError."""
    parsed = _statuses.setdefault(type, Parsed(type.read))
    status: Status = parsed(parent.get("status"))
    return status


def spec_of(type: type[Spec], parent: Object) -> Spec:
    """The object's spec. Raises ValidationError."""
    spec: Spec = _specs.setdefault(type, _Specs(type))(parent)
    return spec
