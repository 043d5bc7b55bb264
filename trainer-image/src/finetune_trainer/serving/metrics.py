"""What a server counts, for Prometheus. No text of a request or answer is in it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune_trainer.serving.engine.orders import End, Piece
from finetune_trainer.serving.transport.bodies import CLIENT_LEFT

ROUTES = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Those that are counted."""
_ENDED_AS = "finetune_serving_ended_as"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SECONDS_PER_TOKEN = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2)


class ServingMetrics:
    """The metrics of one server. `running`, `waiting`: how many outputs are, now."""

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        name = "finetune_serving"
        self.requests = Counter(
            f"{name}_requests",
            "Requests by route and HTTP status code; that of the error if a stream broke; 499: the client left.",
            ["route", "code"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            f"{name}_request_seconds",
            "Duration of a request until its answer is complete.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            f"{name}_time_to_first_token_seconds",
            "Time from a request until the first text of its answer.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._per_token = Histogram(
            f"{name}_time_per_output_token_seconds",
            "Mean time between the tokens of an output, after the first one.",
            buckets=SECONDS_PER_TOKEN,
            registry=self._registry,
        )
        self._prompt_tokens = Counter(f"{name}_prompt_tokens", "Tokens of prompts.", registry=self._registry)
        self._output_tokens = Counter(f"{name}_output_tokens", "Generated tokens.", registry=self._registry)
        for state, value in (("running", running), ("waiting", waiting)):
            gauge = Gauge(f"{name}_outputs_{state}", f"Outputs that are {state}.", registry=self._registry)
            gauge.set_function(value)

    def exposition(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)

    async def watched(
        self, pieces: AsyncIterator[tuple[int, Piece]], prompt_tokens: int, started: float
    ) -> AsyncIterator[tuple[int, Piece]]:
        """The pieces of a request's outputs as they come; `started`: the monotonic time at which the request came."""
        self._prompt_tokens.inc(prompt_tokens)
        first: dict[int, float] = {}
        async for output, piece in pieces:
            now = time.monotonic()
            if not first:
                self._first.observe(now - started)
            first.setdefault(output, now)
            if isinstance(piece, End):
                self._output_tokens.inc(piece.tokens)
                if piece.tokens > 1:
                    self._per_token.observe((now - first[output]) / (piece.tokens - 1))
            yield output, piece


def count_as(scope: Scope, status: int) -> None:
    """Count the request with a status, although its answer began with 200: its stream broke."""
    scope.setdefault("state", {})[_ENDED_AS] = status


class CountRequests:
    """ASGI middleware: counts requests of the counted routes once their answers are complete, by how they ended."""

    def __init__(self, app: ASGIApp, metrics: ServingMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in ROUTES:
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        left = complete = False

        async def received() -> Message:
            nonlocal left
            message = await receive()
            left = left or (message["type"] == "http.disconnect" and not complete)
            return message

        async def sent(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                complete = True
            await send(message)

        try:
            await self._app(scope, received, sent)
        finally:
            route: Any = scope["path"]
            status = CLIENT_LEFT if left else scope.get("state", {}).get(_ENDED_AS, status)
            self._metrics.requests.labels(route, str(int(status))).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)
