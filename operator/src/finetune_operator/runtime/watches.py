"""Kopf's watches. Their handlers only add keys to the queue; every decision is taken later, on objects read live.

The handlers are coroutines: Kopf calls plain functions in threads, and the queue belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import kopf

from finetune_operator.core.kinds import Kind
from finetune_operator.core.ownership import MANAGED_BY_SELECTOR, ROLE_LABEL, owner_key
from finetune_operator.core.references import ObjectKey, References
from finetune_operator.kube.client import PAGE_SIZE
from finetune_operator.kube.resources import Resource
from finetune_operator.runtime.predicates import ChildState, child_changed, is_own_status
from finetune_operator.runtime.workqueue import WorkQueue

CHILD_SECONDS = 0.3
"""Events of a Job and its Pods come in bursts; each burst is reconciled once."""
END_SECONDS = 15.0
"""How long Kopf may take to end itself after an error; then it kills the process."""


def register(
    registry: kopf.OperatorRegistry, queue: WorkQueue[ObjectKey], references: References, kinds: Sequence[Kind]
) -> None:
    """Watch these kinds, and the objects with our label of the types that they own."""
    by_name = {kind.name: kind for kind in kinds}
    owners = frozenset(kind.name for kind in kinds if kind.owns)

    async def parent_event(body: Mapping[str, Any], type: str | None, **_: Any) -> None:
        metadata = body["metadata"]
        key, kind = ObjectKey(body["kind"], metadata.get("namespace", ""), metadata["name"]), by_name[body["kind"]]
        references.update(key, frozenset() if type == "DELETED" else kind.references(body))
        if not is_own_status(body, type):
            queue.add(key)
        for name in (key, *kind.aliases(body, type)):
            for referrer in references.referrers(name):
                queue.add(referrer)

    seen: dict[str, ChildState] = {}

    async def child_event(body: Mapping[str, Any], type: str | None, **_: Any) -> None:
        key = owner_key(body, owners)
        if key is not None and child_changed(seen, body, type):
            queue.add_after(key, CHILD_SECONDS)

    for kind in kinds:
        _on_event(registry, kind.resource)(parent_event)
    for resource in owned_resources(kinds):
        _on_event(registry, resource)(child_event)


def watched(kinds: Sequence[Kind]) -> tuple[str, ...]:
    """The plurals of everything that `register` watches."""
    return tuple(resource.plural for resource in (*(kind.resource for kind in kinds), *owned_resources(kinds)))


def owned_resources(kinds: Iterable[Kind]) -> dict[Resource, str]:
    """The types of objects that the kinds own, each with the label selector of the children that matter."""
    roles: dict[Resource, set[str | None]] = {}
    for kind in kinds:
        for owned in kind.owns:
            roles.setdefault(owned.resource, set()).add(owned.role)
    return {resource: _selector(wanted) for resource, wanted in roles.items()}


def _selector(roles: set[str | None]) -> str:
    named = sorted(role for role in roles if role is not None)
    if len(named) < len(roles):
        return MANAGED_BY_SELECTOR
    which = f"={named[0]}" if len(named) == 1 else f" in ({','.join(named)})"
    return f"{MANAGED_BY_SELECTOR},{ROLE_LABEL}{which}"


def _on_event(registry: kopf.OperatorRegistry, resource: Resource) -> Callable[[Any], Any]:
    decorator: Callable[[Any], Any] = kopf.on.event(
        *_group_version(resource), resource.plural, registry=registry, id=f"enqueue-{resource.plural}"
    )
    return decorator


def _group_version(resource: Resource) -> tuple[str, str]:
    group, _, version = resource.api_version.rpartition("/")
    return group, version


def settings(request_timeout_seconds: float, kinds: Sequence[Kind]) -> kopf.OperatorSettings:
    """Kopf's settings: no writes, no peering, server-side filters, no scanning of CRDs and namespaces."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.scanning.disabled = True
    configured.process.ultimate_exiting_timeout = END_SECONDS
    configured.persistence.diffbase_storage = _NoDiffBase()
    configured.persistence.progress_storage = _NoProgress()
    configured.watching.chunk_size = PAGE_SIZE
    configured.networking.request_timeout = request_timeout_seconds
    for resource, selector in owned_resources(kinds).items():
        configured.watching.label_selectors[(*_group_version(resource), resource.plural)] = selector
    return configured


class _NoDiffBase(kopf.DiffBaseStorage):
    """Of what Kopf's other handlers need, the essence of each object: copied several times an event, and never used."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """The same for the progress of handlers."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: Any) -> Any:
        return essence
