"""Which requests a canary gets, and what is counted of them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from finetune_gateway.canary.split import LONGEST_PARSED_BYTES, Split, group_of, session_of
from finetune_gateway.canary.traffic import MOST_COUNT, MOST_OF_SESSION, Answered, Outcome, Traffic, bucket

STEP = Split("step-1", "sha256:next", 10)


def test_a_share_of_the_requests_and_of_the_sessions_is_the_canarys() -> None:
    chance = random.Random(1)
    by_request = Counter(group_of(STEP, "", chance.random()) for _ in range(10_000))
    by_session = Counter(group_of(STEP, f"session {number}", 0.0) for number in range(10_000))
    for found in (by_request, by_session):
        assert 900 < found["canary"] < 1100
    assert group_of(Split("step-1", "sha256:next", 0), "", 0.0) == "stable"


def test_a_session_stays_where_it_is_and_only_ever_moves_to_a_canary_that_grows() -> None:
    sessions = [f"session {number}" for number in range(1000)]
    had: set[str] = set()
    for percent in (5, 25, 50, 99):
        split = Split(f"step at {percent}", "sha256:next", percent)
        now = {one for one in sessions if group_of(split, one, 0.5) == "canary"}
        assert now == {one for one in sessions if group_of(split, one, 0.9) == "canary"}, "no chance is in it"
        assert had <= now
        had = now
    other = {one for one in sessions if group_of(Split("x", "sha256:another", 99), one, 0.5) == "canary"}
    assert other != had, "the next canary has other sessions"


@pytest.mark.parametrize(
    ("headers", "body", "session"),
    [
        ({"x-session-id": "alice"}, b'{"user": "bob"}', "alice"),
        ({}, b'{"user": "bob"}', "bob"),
        ({}, b'{"user": 7}', ""),
        ({}, b'{"messages": [{"role": "user"}]}', ""),
        ({}, b'["user"]', ""),
        ({}, b'{"user": ', ""),
        ({}, b"\xff user", ""),
        ({}, b'{"user":' + b"[" * 100_000, ""),
        ({}, b'{"user": "bob", "x": "' + b"x" * LONGEST_PARSED_BYTES + b'"}', ""),
        ({}, b'{"user": "\\ud800"}', "\ud800"),
    ],
)
def test_a_session_is_what_the_client_names(headers: dict[str, str], body: bytes, session: str) -> None:
    assert session_of(headers, body) == session
    assert group_of(STEP, session, 0.5) in ("stable", "canary")


def test_a_body_without_the_field_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "finetune_gateway.canary.split.json.loads", lambda _: pytest.fail("it takes milliseconds of all requests")
    )
    assert session_of({}, b'{"messages": [{"role": "user", "content": "who"}]}') == ""


@pytest.mark.parametrize("found", [None, [], {}, {"id": 1, "salt": "", "percent": 5}, {"id": "a", "percent": True}])
def test_what_is_no_split_splits_nothing(found: object) -> None:
    assert Split.read(found) == Split()
    assert Split.read({"id": "a", "salt": "b", "percent": 700}).percent == 100


def counted(traffic: Traffic, number: int, group: str = "canary") -> None:
    for _ in range(number):
        traffic.count(traffic.split, group, Answered("answered", 0.5, 0.02, 10))  # type: ignore[arg-type]


def test_what_is_counted_while_a_batch_is_under_way_is_in_the_next_one() -> None:
    traffic = Traffic()
    traffic.follow(STEP)
    assert traffic.report()["batch"] is None
    counted(traffic, 3)
    first = traffic.report()["batch"]
    counted(traffic, 4)
    assert traffic.report()["batch"] == first, "until somebody has it, it is the same"
    traffic.acknowledged(STEP.id, 0)
    assert traffic.report()["batch"] == first
    traffic.acknowledged(STEP.id, 1)
    second = traffic.report()["batch"]
    assert (first["sequence"], first["canary"]["requests"]) == (1, 3)
    assert (second["sequence"], second["canary"]["requests"]) == (2, 4)
    assert second["canary"]["tokenSquares"] == 400


def test_another_step_is_counted_from_nothing_and_knows_nothing_of_the_one_before() -> None:
    traffic = Traffic()
    counted(traffic, 1)
    assert traffic.report()["batch"] is None, "nothing is split"
    traffic.follow(STEP)
    counted(traffic, 3)
    traffic.report()
    counted(traffic, 1)
    following = Split("step-2", STEP.salt, 50)
    traffic.follow(following)
    traffic.count(STEP, "canary", Answered("errors"))  # it came while the step before was under way
    assert traffic.report()["batch"] is None
    counted(traffic, 2)
    assert traffic.report()["batch"]["sequence"] == 1
    traffic.acknowledged(STEP.id, 1)
    assert traffic.report()["batch"] is not None, "that was the other step's"


def test_an_answer_that_failed_has_no_times() -> None:
    traffic = Traffic()
    traffic.follow(STEP)
    traffic.count(STEP, "canary", Answered("errors", 0.5, 0.02, 10))
    batch = traffic.report()["batch"]["canary"]
    assert (batch["requests"], batch["errors"], batch["answers"], batch["firstToken"]) == (1, 1, 0, {})


@pytest.mark.parametrize("outcome", ["refused", "left"])
def test_one_client_at_fault_counts_a_few_times(outcome: Outcome) -> None:
    traffic = Traffic()
    traffic.follow(STEP)
    for session in ("alice", "bob", ""):
        for _ in range(100):
            traffic.count(STEP, "canary", Answered(outcome, session=session))
    batch = traffic.report()["batch"]["canary"]
    assert batch["requests"] == batch[outcome] == 2 * MOST_OF_SESSION + 100, "who names no session is many clients"
    assert batch["errors"] == 0


def test_counts_stay_as_large_as_the_operator_takes() -> None:
    traffic = Traffic()
    traffic.follow(STEP)
    traffic.count(STEP, "canary", Answered("answered", tokens=10**9))
    assert traffic.report()["batch"]["canary"]["tokenSquares"] == MOST_COUNT


def test_a_batch_that_is_refused_holds_up_none_of_those_that_follow() -> None:
    traffic = Traffic()
    traffic.follow(STEP)
    counted(traffic, 3)
    refused = traffic.report()
    traffic.refused()
    counted(traffic, 1)
    following = traffic.report()
    assert (following["batch"]["sequence"], following["batch"]["canary"]["requests"]) == (1, 1)
    assert following["source"] != refused["source"], "the operator waits for that batch of this source"


def test_a_step_that_comes_back_is_counted_as_by_another_process() -> None:
    traffic = Traffic()
    traffic.follow(STEP)
    before = traffic.report()["source"]
    traffic.follow(Split())
    traffic.follow(STEP)
    assert traffic.report()["source"] != before, "its numbers begin anew"


def test_any_duration_has_a_bucket() -> None:
    assert bucket(0.0) == bucket(-1.0) < bucket(0.5) < bucket(0.6) < bucket(1e9)
    assert bucket(1e9) - bucket(0.0) < 200
