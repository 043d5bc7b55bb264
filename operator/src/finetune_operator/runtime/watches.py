"""What is watched, and which objects each change enqueues. Decisions are made later, from the cache as it is then.

The watches are our own (kube/informer.py). They start and end with Kopf, in which they run.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import kopf

from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.ownership import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL, owner_key
from finetune_operator.core.references import ObjectKey, References
from finetune_operator.kube.cache import Cache
from finetune_operator.kube.client import Kube
from finetune_operator.kube.informer import ChangeHandler, Informer
from finetune_operator.kube.resources import Resource
from finetune_operator.kube.selectors import Selector
from finetune_operator.runtime.predicates import ChildState, child_changed
from finetune_operator.runtime.workqueue import WorkQueue

CHILD_SECONDS = 0.3
"""Events of a Job and its Pods come in bursts; each burst is reconciled once."""
QUEUE_KEYS = 250
"""The next page of a list waits until the queue is no longer than this: read objects are processed before more are."""
CAPACITY_SECONDS, CAPACITY_POLL_SECONDS = 5.0, 0.02
END_SECONDS = 15.0
"""How long Kopf may take to shut down after an error before it kills the process."""


class _Shown(NamedTuple):
    """What others read of an object, and the keys by which they refer to it."""

    value: Hashable
    names: frozenset[ObjectKey]


def handlers(
    queue: WorkQueue[ObjectKey],
    references: References,
    kinds: Sequence[Kind],
    is_finished: Callable[[Resource, str | None, str], bool],
) -> dict[Resource, ChangeHandler]:
    """The handler of each watched resource's changes: our kinds, and the types that they own.

    A change of an object wakes what refers to it. Finished referrers come after all other work: each costs requests,
    and there may be thousands.
    """
    by_name = {kind.name: kind for kind in kinds}
    owners = frozenset(kind.name for kind in kinds if kind.owns)

    owned = owned_resources(kinds)

    shown: dict[ObjectKey, _Shown] = {}

    def wake_referrers(name: ObjectKey) -> None:
        for key in references.referrers(name):
            if is_finished(by_name[key.kind].resource, key.namespace, key.name):
                queue.add_low_priority(key)
            else:
                queue.add(key)

    def parent_event(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
        metadata = body["metadata"]
        key, kind = ObjectKey(body["kind"], metadata.get("namespace", ""), metadata["name"]), by_name[body["kind"]]
        references.update(key, frozenset() if type == "DELETED" else kind.references(body))
        owner = owner_key(body, owners) if by_name[body["kind"]].resource in owned else None
        # The plan already knew of our own write: no reconciliation is needed, unless its owner wrote the spec.
        if not is_ours or (owner is not None and not _is_observed(body)):
            queue.add(key)
        before, after = shown.get(key), _Shown(kind.read_by_others(body), frozenset({key}) | kind.aliases(body))
        if type == "DELETED":
            shown.pop(key, None)
        elif after.value is not None:
            shown[key] = after
        if type == "DELETED" or before != after:
            for name in after.names | (frozenset() if before is None else before.names):
                wake_referrers(name)
        if owner is not None:
            queue.add_after(owner, CHILD_SECONDS)

    seen: dict[str, ChildState] = {}

    def child_event(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
        key = owner_key(body, owners)
        if key is not None and child_changed(seen, body, type):
            queue.add_after(key, CHILD_SECONDS)

    return {**dict.fromkeys(owned, child_event), **{kind.resource: parent_event for kind in kinds}}


def _is_observed(body: Mapping[str, Any]) -> bool:
    """Whether the status is of the spec as it is."""
    observed: object = (body.get("status") or {}).get("observedGeneration")
    return observed is not None and observed == body["metadata"].get("generation")


def informers(
    kube: Kube,
    cache: Cache,
    queue: WorkQueue[ObjectKey],
    kinds: Sequence[Kind],
    list_seconds: float,
    reads: Callable[[str], bool],
) -> list[list[Informer]]:
    """The informers, in the order in which they list: first children and classes, then kind by kind.

    So most of what an object refers to is cached when it is reconciled (a ModelDeployment as a judge is read live).
    `reads`: of which namespaces objects are kept.
    """
    by_resource = handlers(queue, References(), kinds, cache.is_finished)

    async def wait_for_capacity() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CAPACITY_SECONDS):
                while len(queue) > QUEUE_KEYS:  # noqa: ASYNC110 - the queue has no event
                    await asyncio.sleep(CAPACITY_POLL_SECONDS)

    found = [
        Informer(kube, cache, resource, selector, by_resource[resource], list_seconds, wait_for_capacity, reads)
        for resource, selector in selectors(kinds).items()
    ]
    parents = [kind.resource for kind in kinds if kind.owns]
    first = [informer for informer in found if informer.resource not in parents]
    return [first, *([informer for informer in found if informer.resource == parent] for parent in parents)]


def owned_resources(kinds: Iterable[Kind]) -> dict[Resource, Selector]:
    """The types of objects that the kinds own, each with the labels of the children that matter."""
    roles: dict[Resource, set[str | None]] = {}
    for kind in kinds:
        for owned in kind.owns:
            roles.setdefault(owned.resource, set()).add(owned.role)
    return {resource: _selector(wanted) for resource, wanted in roles.items()}


def selectors(kinds: Sequence[Kind]) -> dict[Resource, Selector]:
    """The selector of every watched resource."""
    return {**owned_resources(kinds), **{kind.resource: {} for kind in kinds}}


def _selector(roles: set[str | None]) -> Selector:
    named = frozenset(role for role in roles if role is not None)
    managed = {MANAGED_BY_LABEL: frozenset({MANAGED_BY})}
    return {**managed, ROLE_LABEL: named} if len(named) == len(roles) else managed


async def watch(
    informers: Sequence[Sequence[Informer]],
    stop: asyncio.Event,
    watching: asyncio.Event,
    tasks: asyncio.TaskGroup,
    request_timeout_seconds: float,
) -> None:
    """Run the informers until `stop`; each group starts once the one before has listed everything.

    `watching` is set when all have. An informer never ends by itself; a bug in one fails `tasks`, and so the process.
    """
    registry = kopf.OperatorRegistry()
    running: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)

    @kopf.on.startup(registry=registry)
    async def begin(**_: Any) -> None:
        stop_at_signals(stop)  # Kopf has replaced our handlers by its own, which end the watches but not the rest.
        running.append(tasks.create_task(_start(informers, running, watching, tasks)))

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for task in running:
            task.cancel()

    await kopf.operator(
        registry=registry,
        settings=_kopf_settings(request_timeout_seconds),
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
    )


def stop_at_signals(stop: asyncio.Event) -> None:
    """Set `stop` at SIGINT and SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _start(
    informers: Sequence[Sequence[Informer]],
    running: list[asyncio.Task[None]],
    watching: asyncio.Event,
    tasks: asyncio.TaskGroup,
) -> None:
    for group in informers:
        running.extend(tasks.create_task(informer.run()) for informer in group)
        for informer in group:
            await informer.synced.wait()
    watching.set()


def _kopf_settings(request_timeout_seconds: float) -> kopf.OperatorSettings:
    """Kopf's settings: no writes, no peering, no scanning of CRDs and namespaces."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.scanning.disabled = True
    configured.process.ultimate_exiting_timeout = END_SECONDS
    configured.networking.request_timeout = request_timeout_seconds
    return configured
