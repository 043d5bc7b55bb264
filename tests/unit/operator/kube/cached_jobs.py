"""A cache of Jobs, and Jobs to be in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_operator.kube.cache import Cache
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, FINE_TUNE_JOBS, JOBS, SERVICES, Object

OWNER_LABEL = "finetune.dev/owner-uid"
OURS = {"managed": "us", OWNER_LABEL: "parent"}
SELECTORS = {
    FINE_TUNE_CLASSES: {},
    FINE_TUNE_JOBS: {},
    JOBS: {"managed": frozenset({"us"})},
    SERVICES: {"managed": frozenset({"us"}), "role": frozenset({"serve"})},
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def job(name: str, version: int, uid: str | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": OURS if labels is None else labels,
        },
        "spec": spec,
    }


def listed(*items: Object, version: int, clock: Callable[[], float] | None = None) -> Cache:
    """A cache whose first list of Jobs is complete."""
    cache = Cache(SELECTORS, OWNER_LABEL, clock or Clock())
    relist(cache, *items, version=version)
    return cache


def relist(cache: Cache, *items: Object, version: int) -> list[tuple[str, str]]:
    """List Jobs; returns what was told of it."""
    cache.begin_list(JOBS)
    told = [cache.add_listed(JOBS, item) for item in items]
    gone = cache.end_list(JOBS, str(version))
    return [(one.type, one.body["metadata"]["name"]) for one in (*told, *gone) if one is not None]


def names(cache: Cache, labels: dict[str, str] = OURS) -> list[str] | None:
    found = cache.owned(JOBS, "team-a", labels)
    return None if found is None else [one["metadata"]["name"] for one in found]


def version_of(cache: Cache, name: str = "a") -> int | None:
    found = cache.get(JOBS, "team-a", name)
    return None if found is None else int(found["metadata"]["resourceVersion"])
