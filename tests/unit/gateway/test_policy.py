"""What the gateway decides."""

from __future__ import annotations

import asyncio

import pytest

from finetune_gateway.errors import RefusedError
from finetune_gateway.metrics import MOST_REVISIONS, GatewayMetrics, kept_end
from finetune_gateway.policy import Limits, RetryBudget, Server, choose, may_retry
from finetune_gateway.pool import SUSPECT_SECONDS, Pool
from finetune_gateway.routes import route_of

LIMITS = Limits(in_flight=2, queue=2, queue_seconds=600)
A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


def test_the_least_busy_server_that_has_room_gets_a_request() -> None:
    assert choose([Server(A, 1), Server(B, 0)], LIMITS) == B
    assert choose([Server(A, 1), Server(B, 2)], LIMITS) == A
    assert choose([Server(A, 2), Server(B, 2)], LIMITS) is None
    assert choose([Server(A, 0), Server(B, 1)], LIMITS, tried=[A]) == B


def test_a_server_that_refused_a_connection_is_asked_last_for_a_while() -> None:
    assert choose([Server(A, 0, suspect=True), Server(B, 1)], LIMITS) == B
    assert choose([Server(A, 0, suspect=True), Server(B, 2)], LIMITS) == A


def test_a_tenth_of_all_requests_may_be_sent_again_and_each_twice() -> None:
    budget = RetryBudget()
    assert may_retry([A], budget)
    assert may_retry([A, B], budget)
    assert not may_retry([A, B, "third"], budget)
    for _ in range(10):
        budget = budget.after_retry()
    assert not may_retry([A], budget), "all that there is at first is used up"
    for _ in range(11):
        budget = budget.after_request()
    assert may_retry([A], budget)
    assert not may_retry([A], budget.after_retry())


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/completions", "/v1/completions"),
        ("GET", "/v1/models", "/v1/models"),
        ("GET", "/v1/models/team/router", "/v1/models"),
        ("GET", "/v1/chat/completions", None),
        ("DELETE", "/v1/models/router", None),
        ("GET", "/v1/models/../../metrics", None),
        ("GET", "/metrics", None),
        ("GET", "/health", None),
        ("POST", "/v1/load_lora_adapter", None),
        ("POST", "/invocations", None),
        ("POST", "/tokenize", None),
        ("POST", "/v1/chat/completions/", None),
    ],
)
def test_only_the_routes_of_users_are_let_through(method: str, path: str, route: str | None) -> None:
    assert route_of(method, path) == route


async def until_waiting(pool: Pool, number: int) -> None:
    while pool.waiting != number:  # noqa: ASYNC110 (it has no event)
        await asyncio.sleep(0)


async def test_who_comes_first_is_served_first_and_who_finds_no_place_to_wait_is_refused() -> None:
    pool = Pool(LIMITS)
    pool.update([A])
    assert [await pool.acquire(), await pool.acquire()] == [A, A]
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await until_waiting(pool, 2)
    with pytest.raises(RefusedError) as refused:
        await pool.acquire()
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    pool.release(A)
    assert await first == A
    assert not second.done()
    pool.update([A, B])
    assert await second == B
    assert (pool.in_flight, pool.waiting) == (3, 0)


async def test_who_leaves_while_waiting_gives_its_place_back() -> None:
    pool = Pool(LIMITS)
    pool.update([A])
    await pool.acquire()
    await pool.acquire()
    leaving, staying = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await until_waiting(pool, 2)
    pool.release(A)  # `leaving` is given the place, and told to end before it has noticed
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await staying == A
    assert pool.in_flight == 2


@pytest.mark.parametrize(("servers", "status"), [([A], 429), ([], 503)])
async def test_who_waits_too_long_is_told_what_for(servers: list[str], status: int) -> None:
    pool = Pool(Limits(in_flight=1, queue=1, queue_seconds=0.01))
    pool.update(servers)
    if servers:
        await pool.acquire()
    with pytest.raises(RefusedError) as refused:
        await pool.acquire()
    assert refused.value.status == status
    assert pool.waiting == 0


async def test_who_finds_no_place_to_wait_while_no_server_is_ready_is_told_so() -> None:
    with pytest.raises(RefusedError) as refused:
        await Pool(Limits(in_flight=1, queue=0, queue_seconds=600)).acquire()
    assert (refused.value.status, refused.value.code) == (503, "no_server_ready")


async def test_a_server_that_is_gone_gets_nothing_new_and_completes_what_it_has() -> None:
    pool = Pool(LIMITS)
    pool.update([A, B])
    assert [await pool.acquire(), await pool.acquire()] == [A, B]
    pool.update([B])
    assert await pool.acquire() == B
    assert pool.in_flight == 3
    pool.release(A)
    assert pool.in_flight == 2


async def test_a_suspicion_passes() -> None:
    now = 0.0
    pool = Pool(LIMITS, lambda: now)
    pool.update([A, B])
    pool.suspect(A)
    assert await pool.acquire() == B
    now = SUSPECT_SECONDS + 1
    assert await pool.acquire() == A


def test_the_tokens_of_an_answer_are_those_of_its_usage_and_never_of_its_text() -> None:
    metrics = GatewayMetrics(Pool(LIMITS))
    text = rb'{"content": "they say \"completion_tokens\": 99", "usage": {"completion_tokens": 7}}'
    metrics.generated("sha256:aa", kept_end(b"x" * 5000, text))
    metrics.generated("sha256:aa", text[:40])
    assert 'finetune_gateway_output_tokens_total{revision="sha256:aa"} 7.0' in metrics.exposition().decode()


def test_servers_that_invent_revisions_do_not_fill_the_memory() -> None:
    metrics = GatewayMetrics(Pool(LIMITS))
    for number in range(MOST_REVISIONS + 50):
        metrics.ended(f"sha256:{number}", "/v1/completions", 200, 0.1)
    assert metrics.exposition().decode().count("finetune_gateway_requests_total{") == MOST_REVISIONS + 1
    assert 'revision="other"' in metrics.exposition().decode()
