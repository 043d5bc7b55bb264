"""The running operator: its servers, the election, and under leadership watches, workers, resync and progress."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import structlog
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector

from finetune_operator.core.kind_definition import Kind, StatusMetrics
from finetune_operator.core.ownership import OWNER_UID_LABEL
from finetune_operator.core.references import ObjectKey
from finetune_operator.environment import Environment
from finetune_operator.kube.cache import Cache
from finetune_operator.kube.client import Kube
from finetune_operator.kube.connection import connected_with_cache
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import EVALUATIONS, RESOURCES
from finetune_operator.metrics import operator_metrics
from finetune_operator.metrics.object_metrics import ObjectMetrics
from finetune_operator.progress import server as progress_server
from finetune_operator.progress.endpoint import ProgressEndpoint
from finetune_operator.progress.tokens import TokenAuthenticator
from finetune_operator.registered_kinds import KINDS
from finetune_operator.runtime import health, watches
from finetune_operator.runtime.http_server import serving
from finetune_operator.runtime.leader_election import Election
from finetune_operator.runtime.ledger_cleanup import remove_old_ledgers
from finetune_operator.runtime.worker import Heartbeats, work
from finetune_operator.runtime.workqueue import WorkQueue
from finetune_operator.settings import Settings

CERTIFICATE_SECONDS = 3600.0
"""The certificate and its CA are read again this often: renewed ones take effect at most this much later."""
DRAIN_SECONDS = 20.0
"""How long running reconciliations may take to finish when the operator is asked to stop."""
LEDGER_SECONDS = 6 * 3600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the tasks of the process share."""

    settings: Settings
    stop: asyncio.Event
    kube: Kube
    cache: Cache
    election: Election | None
    kinds: tuple[Kind, ...]
    environment: Environment
    objects: ObjectMetrics
    queue: WorkQueue[ObjectKey]
    """Takes the shard's objects only."""
    heartbeats: Heartbeats = field(default_factory=Heartbeats)
    watching: asyncio.Event = field(default_factory=asyncio.Event)
    """Every resource has been listed, and is watched."""


async def run(
    settings: Settings, stop: asyncio.Event | None = None, kinds: Sequence[Callable[[Environment], Kind]] = KINDS
) -> None:
    """Run until SIGTERM, SIGINT or `stop`, or until a part fails (the process then ends, and is started again).

    `kinds` are what is watched and reconciled.

    Raises (in a group) LeadershipLostError when another operator may lead.
    """
    stop = stop or asyncio.Event()
    watches.stop_at_signals(stop)
    environment = Environment(settings.trainer_image, settings.gateway_image, settings.namespace)
    objects = ObjectMetrics()
    made = [kind(environment) for kind in kinds]
    counted = tuple(replace(kind, metrics=(objects, *kind.metrics)) for kind in made)
    watched = watches.selectors(counted)
    cache, on_response = Cache(watched, OWNER_UID_LABEL), operator_metrics.request_answered
    async with connected_with_cache(
        settings.kubeconfig, cache, settings.request_timeout_seconds, on_response, {*RESOURCES, *watched}
    ) as kube:
        election = None
        if settings.leader_election:
            election = Election(kube, settings.namespace, settings.shard, settings.identity)
        queue = WorkQueue[ObjectKey](lambda key: settings.shard.owns(key.namespace))
        parts = Parts(settings, stop, kube, cache, election, counted, environment, objects, queue)
        probes = health.application(partial(_alive, parts), partial(_ready, parts))
        of_kinds = [metrics for kind in made for metrics in kind.metrics]
        with _registered(objects, *of_kinds, _collector(parts)):
            async with (
                # If Pods could take all connections, the kubelet's probes would fail and it would restart the process.
                serving(probes, settings.health_port, most_connections=None),
                serving(operator_metrics.application(REGISTRY), settings.metrics_port),
            ):
                if election is None:
                    await _lead(parts)
                elif await _before_stop(election.acquire(), stop):
                    try:
                        await _lead(parts)
                    finally:
                        await election.release()


def progress_endpoint(settings: Settings) -> ProgressEndpoint | None:
    """What Pods need to report, if this operator can be reached by them."""
    if settings.progress_url is None:
        return None
    assert settings.tls_directory is not None
    return ProgressEndpoint(settings.progress_url, (settings.tls_directory / "ca.crt").read_text())


async def _lead(parts: Parts) -> None:
    """Watch and work until the operator is asked to stop, and then finish what is in progress."""
    settings, queue, kube = parts.settings, parts.queue, parts.kube
    kinds = {kind.name: kind for kind in parts.kinds}
    # The CA may have changed while another operator led.
    parts.environment.progress_endpoint = progress_endpoint(settings)
    async with asyncio.TaskGroup() as tasks:
        workers = [
            tasks.create_task(
                work(number, queue, kube, kinds, parts.heartbeats, partial(_leads, parts)), name=f"worker-{number}"
            )
            for number in range(settings.workers)
        ]
        others = [_resync(parts), _stop_taking(parts)]
        if settings.shard.index == 0:
            others.append(_tidy_ledgers(parts))
        if parts.election is not None:
            others.append(parts.election.hold())
        if settings.progress_url is not None:
            others.append(_serve_progress(parts))
        background = [tasks.create_task(other) for other in others]
        reads = settings.shard.reads
        informers = watches.informers(kube, parts.cache, queue, parts.kinds, settings.resync_seconds, reads)
        await watches.watch(informers, parts.stop, parts.watching, tasks, settings.request_timeout_seconds)
        parts.stop.set()
        queue.shut_down()
        _, late = await asyncio.wait(workers, timeout=DRAIN_SECONDS)
        for task in (*late, *background):
            task.cancel()


async def _stop_taking(parts: Parts) -> None:
    """Workers stop at once; the watches take a few seconds more."""
    await parts.stop.wait()
    parts.queue.shut_down()


async def _resync(parts: Parts) -> None:
    """Reconcile every unfinished object once per interval, spread over it, in case a change was missed.

    What the watches have missed is delivered by the next list, at the same interval (kube/informer.py).
    """
    interval, loop = parts.settings.resync_seconds, asyncio.get_running_loop()
    resources = {kind.name: kind.resource for kind in parts.kinds}
    await asyncio.sleep(interval)
    while True:
        began = loop.time()
        keys = [
            ObjectKey(kind, *key) for kind, resource in resources.items() for key in parts.cache.unfinished(resource)
        ]
        random.shuffle(keys)
        for number, key in enumerate(keys):
            await asyncio.sleep(began + interval * number / len(keys) - loop.time())
            # It may have finished meanwhile; reconciling it would read it and its children from the API server.
            if not parts.cache.is_finished(resources[key.kind], key.namespace, key.name):
                parts.queue.add_unless_processing(key)
        await asyncio.sleep(began + interval - loop.time())


async def _tidy_ledgers(parts: Parts) -> None:
    while True:
        try:
            await remove_old_ledgers(parts.kube, parts.settings.namespace, datetime.now(UTC))
        except ApiError as error:
            log.warning("old ledgers of budgets not removed", error=str(error))
        await asyncio.sleep(LEDGER_SECONDS)


async def _serve_progress(parts: Parts) -> None:
    settings = parts.settings
    assert settings.tls_directory is not None
    app = progress_server.application(
        TokenAuthenticator(parts.kube),
        parts.environment.progress,
        parts.environment.sent_reports,
        parts.queue.add_after,
        partial(parts.kube.get, EVALUATIONS),
        parts.environment.traffic,
    )
    tls = progress_server.server_tls(settings.tls_directory)
    async with serving(app, settings.progress_port, tls):
        log.info("progress endpoint", port=settings.progress_port)
        while not parts.stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(parts.stop.wait(), CERTIFICATE_SECONDS)
            _renew_certificate(parts, tls)


def _renew_certificate(parts: Parts, tls: ssl.SSLContext) -> None:
    """Serve the certificate that is mounted now, and let new attempts trust its CA.

    Files that can't be read change nothing: a faulty renewal must not end an operator whose certificate is still valid.
    """
    folder = parts.settings.tls_directory
    assert folder is not None
    try:
        progress_server.server_tls(folder)  # a key of another certificate would spoil the context that serves
        progress_server.load_certificate(tls, folder)
        parts.environment.progress_endpoint = progress_endpoint(parts.settings)
    except (OSError, ValueError) as error:
        log.error("the certificate was not renewed", folder=str(folder), error=str(error))


def _leads(parts: Parts) -> bool:
    return parts.election is None or parts.election.leads


def _alive(parts: Parts) -> list[str]:
    """Problems that only a restart solves."""
    problems = health.stuck(parts.heartbeats.longest_seconds(), parts.queue.oldest_wait_seconds())
    if not parts.stop.is_set():
        resources = watches.selectors(parts.kinds)
        problems += health.silent({one.plural: parts.cache.silent_seconds(one) for one in resources})
    return problems


def _ready(parts: Parts) -> list[str]:
    """What keeps a leader from working, or a standby replica from taking over."""
    if parts.stop.is_set():
        return ["told to stop"]
    if parts.election is not None and not _leads(parts):
        return health.unanswered(parts.election)
    return [] if parts.watching.is_set() else ["the watches have not started"]


def _collector(parts: Parts) -> Collector:
    return operator_metrics.OperatorCollector(
        kinds=[kind.name for kind in parts.kinds],
        waiting=parts.queue.waiting,
        oldest_seconds=parts.queue.oldest_wait_seconds,
        longest_seconds=parts.heartbeats.longest_seconds,
        leads=partial(_leads, parts),
        last_success=parts.heartbeats.last_success,
        cache=parts.cache,
    )


@contextlib.contextmanager
def _registered(*collectors: Collector | StatusMetrics) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for collector in collectors:
            REGISTRY.register(cast(Collector, collector))
            stack.callback(REGISTRY.unregister, cast(Collector, collector))
        yield


async def _before_stop(wanted: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Whether the coroutine finished before the operator was asked to stop."""
    waiting = [asyncio.create_task(wanted), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not waiting[0].done():
            return False
        waiting[0].result()
        return True
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
