"""The work queue against a model of client-go's: one worker a key, nothing lost, nothing twice, the earliest delay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from finetune_operator.runtime.workqueue import BASE_DELAY_SECONDS, LOW_PRIORITY_SHARE, MAX_DELAY_SECONDS, WorkQueue

KEYS = st.sampled_from("abc")
DELAYS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock only `advance` moves, so that delays are exact and take no time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let timers fire in their order until the clock stands `seconds` later."""
        due, end = sorted(timer.when() for timer in self._scheduled if not timer.cancelled()), self._now + seconds  # type: ignore[attr-defined]
        for moment in [*(when for when in due if when <= end), end]:
            self._now = max(self._now, moment)
            self.run_until_complete(asyncio.sleep(0))
            self.run_until_complete(asyncio.sleep(0))


class QueueMachine(RuleBasedStateMachine):
    """Adds, delays, workers that take keys and finish them, and time that passes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.queue: WorkQueue[str] = WorkQueue()
        # The model.
        self.wanted: set[str] = set()
        self.low: set[str] = set()
        self.working: set[str] = set()
        self.later: dict[str, float] = {}

    def teardown(self) -> None:
        self.loop.close()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def inside() -> Any:
            return function(*arguments)

        return self.loop.run_until_complete(inside())

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.call(self.queue.add, key)
        self.wanted.add(key)
        self.low.discard(key)

    @rule(key=KEYS)
    def add_low_priority(self, key: str) -> None:
        self.call(self.queue.add_low_priority, key)
        if key not in self.wanted:
            self.wanted.add(key)
            self.low.add(key)

    @rule(key=KEYS, delay=DELAYS)
    def add_after(self, key: str, delay: float) -> None:
        self.call(self.queue.add_after, key, delay)
        if delay <= 0:
            self.wanted.add(key)
            self.low.discard(key)
        else:
            due = self.loop.time() + delay
            self.later[key] = min(due, self.later.get(key, due))

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.loop.advance(seconds)
        for key in [key for key, due in self.later.items() if due <= self.loop.time()]:
            del self.later[key]
            self.wanted.add(key)
            self.low.discard(key)

    @rule()
    def take(self) -> None:
        ready = self.wanted - self.working
        if not ready:
            return
        taken = self.loop.run_until_complete(asyncio.wait_for(self.queue.get(), 1))
        assert taken is not None
        key = taken[0]
        assert key in ready, "a key that nobody asked for, or that another worker has"
        assert key not in self.low or ready <= self.low, "fewer keys than a share are handed out here"
        self.wanted.discard(key)
        self.low.discard(key)
        self.working.add(key)

    @rule(key=KEYS)
    def finish(self, key: str) -> None:
        if key in self.working:
            self.call(self.queue.done, key)
            self.working.discard(key)

    @invariant()
    def ready_is_what_is_wanted_and_not_worked_on(self) -> None:
        assert len(self.queue) == len(self.wanted - self.working - self.low)
        assert set(self.queue.waiting()) == self.wanted - self.working


TestWorkQueue = QueueMachine.TestCase
TestWorkQueue.settings = settings(max_examples=150, stateful_step_count=30)


@pytest.mark.parametrize("delays", [(1, 3), (3, 1), (1, 1), (2, 1, 3)])
def test_of_several_delays_the_earliest_counts_and_the_key_comes_once(delays: tuple[float, ...]) -> None:
    loop, queue = VirtualTimeLoop(), WorkQueue[str]()

    async def add() -> None:
        for delay in delays:
            queue.add_after("a", delay)

    loop.run_until_complete(add())
    waiting = []
    for _ in range(5):
        loop.advance(0.5)
        waiting.append(len(queue))
    loop.run_until_complete(queue.get())
    queue.done("a")
    loop.advance(10)
    loop.close()
    assert waiting == [0, 1, 1, 1, 1]
    assert len(queue) == 0


async def test_keys_come_in_the_order_in_which_they_were_asked_for() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "banana":
        queue.add(key)
    assert [(await queue.get())[0] for _ in range(3)] == ["b", "a", "n"]


async def test_low_priority_comes_last_but_now_and_then_and_is_raised_by_who_asks_for_more() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("low-1", "low-2", "low-3"):
        queue.add_low_priority(key)
    queue.add("low-3")
    for number in range(2 * LOW_PRIORITY_SHARE):
        queue.add(f"{number}")
    taken = [(await queue.get() or pytest.fail("shut down"))[0] for _ in range(2 * LOW_PRIORITY_SHARE + 3)]
    assert taken[0] == "low-3"
    assert taken.index("low-1") == LOW_PRIORITY_SHARE
    assert taken.index("low-2") == 2 * LOW_PRIORITY_SHARE + 1
    queue.add_low_priority("low-1")
    assert len(queue) == 0, "it is being worked on"
    queue.done("low-1")
    assert list(queue.waiting()) == ["low-1"]


async def test_every_waiting_worker_gets_a_key() -> None:
    queue: WorkQueue[int] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(5)]
    await asyncio.sleep(0)
    for key in range(5):
        queue.add(key)
    taken = await asyncio.wait_for(asyncio.gather(*workers), 5)
    assert {key for key, _ in taken} == set(range(5))


async def test_a_worker_that_is_cancelled_takes_no_key_with_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    waiting.cancel()
    queue.add("a")
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await asyncio.wait_for(queue.get(), 5))[0] == "a"


async def test_failures_come_back_ever_more_slowly_until_the_key_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.runtime.workqueue.random.uniform", lambda low, high: (low + high) / 2)
    queue: WorkQueue[str] = WorkQueue()
    assert [queue.add_rate_limited("a") for _ in range(4)] == [BASE_DELAY_SECONDS * 2**n for n in range(4)]
    assert queue.add_rate_limited("b") == BASE_DELAY_SECONDS
    for _ in range(40):
        longest = queue.add_rate_limited("a")
    assert longest == MAX_DELAY_SECONDS
    queue.forget("a")
    assert queue.add_rate_limited("a") == BASE_DELAY_SECONDS


async def test_delays_are_jittered() -> None:
    queue: WorkQueue[int] = WorkQueue()
    delays = {queue.add_rate_limited(key) for key in range(50)}
    assert len(delays) > 25
    assert all(0.8 * BASE_DELAY_SECONDS <= delay <= 1.2 * BASE_DELAY_SECONDS for delay in delays)


async def test_the_longest_wait_is_that_of_the_first_key_and_ends_with_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert queue.oldest_wait_seconds() == 0
    queue.add("a")
    await asyncio.sleep(0.02)
    queue.add("b")
    assert queue.oldest_wait_seconds() >= 0.02
    _, waited = await queue.get()
    assert waited >= 0.02
    assert queue.oldest_wait_seconds() < waited


async def test_after_the_shutdown_workers_end_and_nothing_is_taken_or_handed_out() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("in work")
    assert await queue.get() is not None
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add_after("later", 0.01)
    queue.shut_down()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [None, None, None]
    queue.add("new")
    queue.add_after("new", 0.01)
    queue.add_rate_limited("new")
    queue.add("in work")
    queue.done("in work")
    await asyncio.sleep(0.05)
    assert await queue.get() is None
    assert len(queue) == 0
    assert queue.oldest_wait_seconds() == 0


async def test_what_waits_can_be_seen() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "ab":
        queue.add(key)
    assert list(queue.waiting()) == ["a", "b"]


async def test_a_key_that_is_not_accepted_is_dropped_however_it_comes() -> None:
    queue = WorkQueue[str](lambda key: key == "a")
    for key in "ab":
        queue.add(key)
        queue.add_unless_processing(key)
        queue.add_low_priority(key)
        queue.add_after(key, 0.0)
        queue.add_after(key, 0.001)
        queue.add_rate_limited(key)
    await asyncio.sleep(0.05)
    assert list(queue.waiting()) == ["a"]
