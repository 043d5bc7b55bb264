"""Our own writes are in the cache before the watch delivers them; the outcome of a failed write is unknown."""

from __future__ import annotations

import pytest

from finetune_operator.kube.cache import ECHO_SECONDS, Cache
from finetune_operator.kube.resources import JOBS
from tests.unit.operator.kube.cached_jobs import (
    OURS,
    OWNER_LABEL,
    SELECTORS,
    Clock,
    job,
    listed,
    names,
    relist,
    version_of,
)


def test_events_of_our_own_write_and_of_the_version_it_replaced_are_recognized() -> None:
    cache = listed(job("a", 3), version=5)
    cache.record_write(JOBS, job("a", 8))
    assert cache.apply_event(JOBS, "MODIFIED", job("a", 7)), "the write had its version"
    assert cache.apply_event(JOBS, "MODIFIED", job("a", 8))
    assert not cache.apply_event(JOBS, "MODIFIED", job("a", 9)), "somebody else's, also one in our name"
    cache.record_write(JOBS, job("a", 10))
    assert not cache.apply_event(JOBS, "DELETED", job("a", 11))
    cache.apply_event(JOBS, "ADDED", job("a", 13, uid="new"))
    cache.record_write(JOBS, job("a", 14, uid="new"))
    assert not cache.apply_event(JOBS, "MODIFIED", job("a", 12)), "its predecessor's"


@pytest.mark.parametrize("how", ["by its name", "among siblings", "in a list", "by the watch"])
def test_a_foreign_write_is_not_taken_for_ours_after_a_live_read(how: str) -> None:
    """A live read may come before the watch, which still has to deliver the change to the handlers."""
    cache = listed(job("a", 3), version=5)
    if how == "by its name":
        cache.record_get(JOBS, ("team-a", "a"), job("a", 8), None, None)
    elif how == "among siblings":
        cache.record_list(JOBS, "parent", OURS, [job("a", 8)], "8", None)
    elif how == "in a list":
        cache.record_read(JOBS, job("a", 8))
    else:
        cache.apply_event(JOBS, "MODIFIED", job("a", 8))
    assert not cache.apply_event(JOBS, "MODIFIED", job("a", 8))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_list_still_delivers_an_object_stored_by_a_live_read(is_first: bool) -> None:
    """It was read while another object was reconciled; its own reconciliation still has to be triggered."""
    cache = Cache(SELECTORS, OWNER_LABEL, Clock()) if is_first else listed(version=5)
    cache.record_get(JOBS, ("team-a", "a"), job("a", 8), None, None)
    assert relist(cache, job("a", 8), version=9) == [("MODIFIED", "a")]
    assert relist(cache, job("a", 8), version=10) == [], "once"


@pytest.mark.parametrize("how", ["watched", "written"])
def test_a_list_does_not_deliver_a_delivered_or_own_version_again(how: str) -> None:
    cache = listed(version=5)
    if how == "watched":
        cache.record_get(JOBS, ("team-a", "a"), job("a", 8), None, None)
        cache.apply_event(JOBS, "ADDED", job("a", 8))
    else:
        cache.record_write(JOBS, job("a", 8))
    assert relist(cache, job("a", 8), version=9) == []


def test_our_own_write_is_served_before_the_watch_delivers_it() -> None:
    cache = listed(version=5)
    cache.record_write(JOBS, job("a", 8))
    assert (version_of(cache), names(cache)) == (8, ["a"])
    cache.record_deletion(JOBS, "team-a", "a", "uid-of-a")
    assert names(cache) == []


def test_a_write_response_after_the_delivered_deletion_is_ignored() -> None:
    cache = listed(job("a", 3), version=5)
    cache.apply_event(JOBS, "DELETED", job("a", 9))
    cache.record_write(JOBS, job("a", 8))
    assert names(cache) == []


def test_an_unknown_outcome_is_settled_by_one_live_read() -> None:
    cache = listed(job("a", 3), version=5)
    cache.mark_unknown(JOBS, "team-a", "a", "parent")
    assert (version_of(cache), names(cache)) == (None, None)
    outcome = cache.unknown_outcome(JOBS, "parent")
    cache.record_list(JOBS, "parent", OURS, [job("a", 8)], "8", outcome)
    assert names(cache) == ["a"]
    cache.record_get(JOBS, ("team-a", "a"), job("a", 8), cache.unknown_outcome(JOBS, ("team-a", "a")), None)
    assert version_of(cache) == 8


def test_an_unknown_outcome_of_an_object_covers_the_children_of_its_owner() -> None:
    cache = listed(job("a", 3), version=5)
    cache.mark_unknown(JOBS, "team-a", "a")
    assert names(cache) is None


def test_a_read_does_not_settle_an_unknown_outcome_of_a_later_write() -> None:
    cache = listed(job("a", 3), version=5)
    cache.mark_unknown(JOBS, "team-a", "a")
    outcome = cache.unknown_outcome(JOBS, ("team-a", "a"))
    cache.mark_unknown(JOBS, "team-a", "a")
    cache.record_get(JOBS, ("team-a", "a"), job("a", 8), outcome, None)
    assert version_of(cache) is None


def test_a_complete_list_settles_unknown_outcomes_from_before_it() -> None:
    cache = listed(job("a", 3), job("b", 3), version=5)
    cache.mark_unknown(JOBS, "team-a", "a")
    cache.begin_list(JOBS)
    cache.mark_unknown(JOBS, "team-a", "b")
    for name in "ab":
        cache.add_listed(JOBS, job(name, 3))
    cache.end_list(JOBS, "9")
    assert (version_of(cache, "a"), version_of(cache, "b")) == (3, None)


def test_an_object_created_during_a_read_that_misses_it_is_kept() -> None:
    cache = listed(version=5)
    before = cache.entry(JOBS, "team-a", "a")
    cache.apply_event(JOBS, "ADDED", job("a", 8))
    cache.record_get(JOBS, ("team-a", "a"), None, None, before)
    assert version_of(cache) == 8


# The watch tells of our own writes: their echo.


def written(version: int = 8) -> tuple[Cache, Clock]:
    """A write was answered; the watch is open."""
    clock = Clock()
    cache = listed(job("a", 3), version=5, clock=clock)
    cache.set_connected(JOBS, True)
    cache.record_write(JOBS, job("a", version))
    return cache, clock


def test_a_watch_that_does_not_tell_of_our_own_write_is_not_trusted() -> None:
    """It is open, and stuck: whatever else has happened, it does not tell either."""
    cache, clock = written()
    clock.now = ECHO_SECONDS - 1
    assert (version_of(cache), names(cache)) == (8, ["a"])
    clock.now = ECHO_SECONDS
    assert (version_of(cache), names(cache)) == (None, None)
    assert cache.why_missed(JOBS, "parent") == "stale"
    cache.heard_from(JOBS)
    assert version_of(cache) is None, "an event of an older version says nothing about it"


@pytest.mark.parametrize("how", ["its event", "a later one", "a bookmark", "a list", "a deletion after it"])
def test_a_watch_that_has_come_to_our_own_write_is_trusted(how: str) -> None:
    cache, clock = written()
    if how == "a list":
        relist(cache, job("a", 8), version=8)
    else:
        cache.reached(JOBS, "8" if how in ("its event", "a bookmark") else "12")
    clock.now = ECHO_SECONDS + 1
    cache.heard_from(JOBS)
    assert version_of(cache) == 8


def test_of_several_writes_the_oldest_that_the_watch_owes_counts() -> None:
    cache, clock = written(8)
    clock.now = 4.0
    cache.record_write(JOBS, job("b", 9))
    cache.reached(JOBS, "8")
    clock.now = ECHO_SECONDS + 3
    assert version_of(cache) == 8
    clock.now = ECHO_SECONDS + 4
    assert version_of(cache) is None


@pytest.mark.parametrize("how", ["the watch was faster", "it changed nothing", "its labels are not watched"])
def test_a_write_of_which_no_event_will_come_is_not_waited_for(how: str) -> None:
    clock = Clock()
    cache = listed(job("a", 8), version=8, clock=clock)
    cache.set_connected(JOBS, True)
    if how == "the watch was faster":
        cache.apply_event(JOBS, "MODIFIED", job("a", 9))
        cache.reached(JOBS, "9")
        cache.record_write(JOBS, job("a", 9), replaced="8")
    elif how == "it changed nothing":
        cache.record_write(JOBS, job("a", 8), replaced="8")
    else:
        cache.record_write(JOBS, job("b", 9, labels={}))
    clock.now = ECHO_SECONDS + 1
    assert names(cache) == ["a"]


def test_a_list_of_some_children_settles_an_unknown_outcome_for_these_alone() -> None:
    """A Deployment of role canary was applied without an answer; one of role gateway is listed."""
    canary, gateway = ({**OURS, "role": role} for role in ("canary", "gateway"))
    cache = listed(version=5)
    cache.mark_unknown(JOBS, "team-a", "canary", "parent")
    outcome = cache.unknown_outcome(JOBS, "parent")
    cache.record_list(JOBS, "parent", gateway, [], "9", outcome)
    assert (names(cache, gateway), names(cache, canary), names(cache)) == ([], None, None)
    cache.record_list(JOBS, "parent", canary, [job("canary", 8, labels=canary)], "9", outcome)
    assert (names(cache, canary), names(cache)) == (["canary"], None)
    cache.mark_unknown(JOBS, "team-a", "canary", "parent")
    assert names(cache, gateway) is None, "another write"
    cache.record_list(JOBS, "parent", OURS, [], "10", cache.unknown_outcome(JOBS, "parent"))
    assert names(cache, gateway) == []
