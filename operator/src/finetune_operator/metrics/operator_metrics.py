"""Prometheus metrics of the operator itself; its neighbours have those of the objects.

Every metric is declared once, with `declare`, which docs/reference/metrics.md is generated from.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.store import Counts

MetricType = Literal["counter", "gauge", "histogram"]
_QUICK_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Declared:
    """A metric as its reference page shows it."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    help: str

    def gauge(self) -> GaugeMetricFamily:
        """An empty family of gauges, to be filled while metrics are collected."""
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        """An empty family of counters, to be filled while metrics are collected."""
        return CounterMetricFamily(self.name, self.help, labels=self.labels)


DECLARED: list[Declared] = []


def declare(name: str, type: MetricType, help: str, labels: Sequence[str] = ()) -> Declared:
    """Declare a metric."""
    DECLARED.append(Declared(name, type, tuple(labels), help))
    return DECLARED[-1]


def _counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter:
    declare(name, "counter", help, labels)
    return Counter(name, help, labels)


def _histogram(name: str, help: str, labels: Sequence[str] = ()) -> Histogram:
    declare(name, "histogram", help, labels)
    return Histogram(name, help, labels, buckets=_QUICK_SECONDS)


QUEUE_LATENCY = _histogram(
    "finetune_operator_queue_latency_seconds", "Time that an object waited for a free worker, in seconds.", ["kind"]
)
QUEUE_RETRIES = _counter(
    "finetune_operator_queue_retries_total", "Number of times an object was requeued after a failure.", ["kind"]
)
RECONCILE_SECONDS = _histogram(
    "finetune_operator_reconcile_seconds", "Duration of a reconciliation, in seconds.", ["kind"]
)
RECONCILIATIONS = _counter(
    "finetune_operator_reconciliations_total",
    "Reconciliations by result: ok, error (an API server error or timeout; retried) or bug.",
    ["kind", "result"],
)
RECONCILE_ERRORS = _counter(
    "finetune_operator_reconcile_errors_total",
    "Failed reconciliations by cause: HTTP status code from the API server (0: no response), timeout, or bug.",
    ["kind", "code"],
)
API_REQUESTS = _counter(
    "finetune_operator_api_requests_total",
    "Requests to the API server, except watches, by HTTP status code (0: no response).",
    ["verb", "resource", "code"],
)
API_SECONDS = _histogram(
    "finetune_operator_api_request_seconds", "Duration of a request to the API server, in seconds.", ["verb"]
)
_DEPTH = declare("finetune_operator_queue_depth", "gauge", "Objects waiting for a free worker.", ["kind"])
_OLDEST = declare(
    "finetune_operator_queue_oldest_seconds",
    "gauge",
    "Time that the first object in the queue has been waiting, in seconds.",
)
_LONGEST = declare(
    "finetune_operator_longest_running_reconcile_seconds",
    "gauge",
    "Duration of the longest running reconciliation, in seconds.",
)
_LAST_SUCCESS = declare(
    "finetune_operator_last_successful_reconcile_timestamp_seconds",
    "gauge",
    "Unix time of the last reconciliation without an error, by kind.",
    ["kind"],
)
_CACHE_AGE = declare(
    "finetune_operator_cache_age_seconds",
    "gauge",
    "Time since the API server's last sign of life about a resource that is watched, in seconds.",
    ["resource"],
)
_CACHE_OVERDUE = declare(
    "finetune_operator_cache_overdue_seconds",
    "gauge",
    "How long a watch has owed the event of the operator's own write, in seconds; from 10 on, it is not trusted.",
    ["resource"],
)
_LISTS = declare(
    "finetune_operator_cache_lists_total", "counter", "Complete lists of a watched resource.", ["resource"]
)
_EXPIRED = declare(
    "finetune_operator_cache_expired_watches_total",
    "counter",
    "Watches that ended with 410, so that everything was listed again.",
    ["resource"],
)
_LIVE_READS = declare(
    "finetune_operator_cache_live_reads_total",
    "counter",
    "Reads that the cache did not answer, by cause: missing (not stored, or finished), stale (the watch is late), "
    "unknown (after a write without a clear outcome), unwatched, or asked (it had to be as it is now).",
    ["resource", "cause"],
)
_LEADER = declare("finetune_operator_leader", "gauge", "1 for the leader, 0 for a standby replica.")
_BUILD = declare("finetune_operator_build_info", "gauge", "Always 1; the version is in the label.", ["version"])

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class CacheState(Protocol):
    """What the cache of kube/cache.py tells of itself."""

    @property
    def counts(self) -> Counts: ...

    def ages(self) -> dict[str, tuple[float, float]]: ...


class OperatorCollector(Collector):
    """What is known only at the moment of a scrape."""

    def __init__(
        self,
        *,
        kinds: Iterable[str],
        waiting: Callable[[], Iterable[ObjectKey]],
        oldest_seconds: Callable[[], float],
        longest_seconds: Callable[[], float],
        leads: Callable[[], bool],
        last_success: dict[str, float],
        cache: CacheState,
    ) -> None:
        self._kinds = tuple(kinds)
        self._waiting = waiting
        self._oldest_seconds = oldest_seconds
        self._longest_seconds = longest_seconds
        self._leads = leads
        self._last_success = last_success
        self._cache = cache

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every family, with a sample for each kind also where there is nothing."""
        depth, depths = _DEPTH.gauge(), Count(key.kind for key in self._waiting())
        for kind in self._kinds:
            depth.add_metric([kind], depths[kind])
        yield depth
        yield _single(_OLDEST, self._oldest_seconds())
        yield _single(_LONGEST, self._longest_seconds())
        success = _LAST_SUCCESS.gauge()
        for kind, moment in self._last_success.items():
            success.add_metric([kind], moment)
        yield success
        yield from self._of_cache()
        yield _single(_LEADER, float(self._leads()))
        build = _BUILD.gauge()
        build.add_metric([_version()], 1)
        yield build

    def _of_cache(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        age, overdue = _CACHE_AGE.gauge(), _CACHE_OVERDUE.gauge()
        for plural, (silent, owed) in self._cache.ages().items():
            age.add_metric([plural], silent)
            overdue.add_metric([plural], owed)
        yield from (age, overdue)
        for declared, counts in ((_LISTS, self._cache.counts.lists), (_EXPIRED, self._cache.counts.expired)):
            family = declared.counter()
            for plural, count in counts.items():
                family.add_metric([plural], count)
            yield family
        reads = _LIVE_READS.counter()
        for labels, count in self._cache.counts.live_reads.items():
            reads.add_metric(list(labels), count)
        yield reads


def request_answered(method: str, path: str, code: int, seconds: float) -> None:
    """Count one request to the API server."""
    verb, resource = verb_and_resource(method, path)
    API_REQUESTS.labels(verb=verb, resource=resource, code=str(code)).inc()
    API_SECONDS.labels(verb=verb).observe(seconds)


def verb_and_resource(method: str, path: str) -> tuple[str, str]:
    """Kubernetes' words for a request: (`patch`, `finetunejobs/status`); the path if it is not a resource's."""
    parts = path.strip("/").split("/")
    if parts[0] not in ("api", "apis"):
        return _VERBS.get(method, "get"), path
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    verb = _VERBS.get(method) or ("get" if len(parts) > 1 else "list")
    return verb, "/".join([parts[0], *parts[2:]])


def application(registry: CollectorRegistry) -> web.Application:
    """Answers /metrics in the format that is asked for."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # A connection that stays open would keep the process from ending for seconds.
        headers = {"Content-Type": content_type, "Connection": "close"}
        return web.Response(body=encode(registry), headers=headers)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


def _single(declared: Declared, value: float) -> GaugeMetricFamily:
    family = declared.gauge()
    family.add_metric([], value)
    return family


def _version() -> str:
    try:
        return version("finetune-operator")
    except PackageNotFoundError:  # Run from its sources.
        return "unknown"
