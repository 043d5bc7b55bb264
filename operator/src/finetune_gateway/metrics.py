"""What a gateway counts, for Prometheus, by the revision that answered. No text of a request or answer is in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sized

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from finetune_gateway.pool import Pool

BROKEN = 502
"""Of an answer that broke off after it had begun."""
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
MOST_REVISIONS = 16
OTHER = "other"
_TAIL_BYTES = 2048
_USAGE = re.compile(rb'"completion_tokens":\s*(\d{1,9})')


class GatewayMetrics:
    """The metrics of one gateway, with the sums of its pools."""

    def __init__(self, *pools: Pool) -> None:
        self._registry = CollectorRegistry()
        self._revisions: set[str] = set()
        name = "finetune_gateway"
        self._requests = Counter(
            f"{name}_requests",
            "Requests by the revision that answered (empty: the gateway itself), route and HTTP status code; 499: the "
            "client left, 502: the answer broke off.",
            ["revision", "route", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            f"{name}_request_seconds",
            "Duration of a request until its answer is complete, with the time in the queue.",
            ["revision", "route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            f"{name}_time_to_first_token_seconds",
            "Time from a request until the first event of its stream.",
            ["revision"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            f"{name}_output_tokens",
            "Generated tokens, of answers that have their usage.",
            ["revision"],
            registry=self._registry,
        )
        self.retries = Counter(
            f"{name}_retries", "Requests that were sent to one more server.", ["cause"], registry=self._registry
        )
        for gauge, text, value in (
            ("requests_in_flight", "Requests at servers.", lambda: sum(pool.in_flight for pool in pools)),
            (
                "requests_queued",
                "Requests that wait for a place at a server.",
                lambda: sum(pool.waiting for pool in pools),
            ),
            ("servers", "Servers that are ready.", lambda: sum(pool.servers for pool in pools)),
        ):
            Gauge(f"{name}_{gauge}", text, registry=self._registry).set_function(value)

        self.malformed = Counter(
            f"{name}_malformed_requests", "Requests of clients that are no HTTP.", registry=self._registry
        )
        self._cut = Counter(
            f"{name}_connections_cut",
            "Connections of clients without a whole request that were cut.",
            ["cause"],
            registry=self._registry,
        )

    def count_connections(self, connections: Sized) -> None:
        """Those of clients, of the port of the API."""
        gauge = Gauge("finetune_gateway_connections", "Connections of clients.", registry=self._registry)
        gauge.set_function(lambda: len(connections))

    def show_share(self, share: Callable[[], float]) -> None:
        """That of a canary, as this gateway has heard of it last."""
        gauge = Gauge(
            "finetune_gateway_canary_share_ratio",
            "Share of the requests that go to the canary, from 0 (there is none) to 1.",
            registry=self._registry,
        )
        gauge.set_function(share)

    def cut(self, cause: str) -> None:
        """A client's connection was cut."""
        self._cut.labels(cause).inc()

    def exposition(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)

    def ended(self, revision: str, route: str, status: int, seconds: float) -> None:
        """A request has its answer, or none."""
        label = self._label(revision)
        self._requests.labels(label, route, str(status)).inc()
        self._seconds.labels(label, route).observe(seconds)

    def first_event(self, revision: str, seconds: float) -> None:
        """The first event of a stream came."""
        self._first.labels(self._label(revision)).observe(seconds)

    def generated(self, revision: str, end: bytes) -> int | None:
        """An answer is complete: its tokens, if it says so. `end`: of its body, as far as it is kept."""
        found = _USAGE.findall(end)
        if not found:
            return None
        self._tokens.labels(self._label(revision)).inc(int(found[-1]))
        return int(found[-1])

    def _label(self, revision: str) -> str:
        """A server names its revision itself: of wrong ones there are not many in the metrics."""
        if revision not in self._revisions and len(self._revisions) >= MOST_REVISIONS:
            return OTHER
        self._revisions.add(revision)
        return revision


def kept_end(before: bytes, chunk: bytes) -> bytes:
    """What is kept of a body, to find its usage in it."""
    return (before + chunk)[-_TAIL_BYTES:]
