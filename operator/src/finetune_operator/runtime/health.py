"""The kubelet's probes: whether the operator is alive, and whether it is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiohttp import web

from finetune_operator.runtime.leader_election import RENEW_DEADLINE_SECONDS, Election

STUCK_AFTER_SECONDS = 180.0

Problems = Callable[[], Iterable[str]]


def application(alive: Problems, ready: Problems) -> web.Application:
    """/healthz and /readyz: 200, or 503 with the problems, one per line."""
    app = web.Application()
    for path, problems in (("/healthz", alive), ("/readyz", ready)):
        app.router.add_get(path, _probe(problems))
    return app


def stuck(longest_reconcile_seconds: float, oldest_wait_seconds: float) -> list[str]:
    """Workers that hang, or keys that no worker takes."""
    problems = []
    if longest_reconcile_seconds > STUCK_AFTER_SECONDS:
        problems.append(f"a worker has been reconciling one object for {longest_reconcile_seconds:.0f} s")
    if oldest_wait_seconds > STUCK_AFTER_SECONDS:
        problems.append(f"an object has waited for a worker for {oldest_wait_seconds:.0f} s")
    return problems


def silent(seconds: Mapping[str, float]) -> list[str]:
    """Resources about which the API server has been silent for too long: a new process may reach it."""
    return [
        f"no response from the API server about {plural} for {silence:.0f} s"
        for plural, silence in seconds.items()
        if silence > STUCK_AFTER_SECONDS
    ]


def unanswered(election: Election) -> list[str]:
    """A standby replica that can't read the Lease could not take over."""
    silent = election.silent_seconds()
    if silent > RENEW_DEADLINE_SECONDS:
        return [f"the API server has not said for {silent:.0f} s who leads"]
    return []


def _probe(problems: Problems) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        found = list(problems())
        text = "".join(f"{line}\n" for line in found or ["ok"])
        # A connection that stays open would keep the process from ending for seconds.
        return web.Response(status=503 if found else 200, text=text, headers={"Connection": "close"})

    return answer
