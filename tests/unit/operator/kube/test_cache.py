"""When the cache serves an object and when it misses; how lists and watches change it."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.kube.cache import CONNECTED_SECONDS, DISCONNECTED_SECONDS, Cache, RestoredError
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, FINE_TUNE_JOBS, JOBS, PODS, SERVICES
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

# Hits and misses.


def test_children_of_an_owner_are_served_once_the_first_list_is_complete() -> None:
    cache = Cache(SELECTORS, OWNER_LABEL, Clock())
    cache.begin_list(JOBS)
    cache.add_listed(JOBS, job("a", 3))
    assert names(cache) is None, "there may be another one on the next page"
    assert version_of(cache) == 3, "what was listed was read just now"
    cache.end_list(JOBS, "5")
    assert names(cache) == ["a"]
    assert names(cache, {**OURS, OWNER_LABEL: "childless"}) == []
    assert names(cache, {**OURS, "role": "train"}) == [], "all labels that are asked for count"
    assert cache.owned(JOBS, "team-b", OURS) == []


def test_an_object_that_is_not_cached_is_a_miss() -> None:
    assert version_of(listed(job("a", 3), version=5), "b") is None


@pytest.mark.parametrize(
    ("resource", "labels"),
    [
        (SERVICES, OURS),
        (JOBS, {OWNER_LABEL: "parent"}),
        (JOBS, {"managed": "us"}),
        (PODS, OURS),
    ],
    ids=["of another role", "unmanaged", "of any owner", "not watched"],
)
def test_a_list_that_the_watch_does_not_cover_is_a_miss(resource: Any, labels: dict[str, str]) -> None:
    cache = listed(version=5)
    cache.begin_list(SERVICES)
    cache.end_list(SERVICES, "5")
    assert cache.owned(resource, "team-a", labels) is None


def test_classes_are_served_by_name_and_as_a_whole() -> None:
    cache = Cache(SELECTORS, OWNER_LABEL, Clock())
    cpu = {"metadata": {"name": "cpu", "uid": "u", "resourceVersion": "3"}}
    cache.begin_list(FINE_TUNE_CLASSES)
    cache.add_listed(FINE_TUNE_CLASSES, cpu)
    assert cache.all(FINE_TUNE_CLASSES) is None
    cache.end_list(FINE_TUNE_CLASSES, "5")
    assert cache.all(FINE_TUNE_CLASSES) == [cpu]
    assert cache.get(FINE_TUNE_CLASSES, None, "cpu") == cpu
    assert cache.all(JOBS) is None, "those without our label are not watched"


@pytest.mark.parametrize(("is_open", "seconds"), [(False, DISCONNECTED_SECONDS), (True, CONNECTED_SECONDS)])
def test_the_cache_is_stale_ten_seconds_after_a_disconnect_or_when_a_bookmark_is_overdue(
    is_open: bool, seconds: float
) -> None:
    clock = Clock()
    cache = listed(job("a", 3), version=5, clock=clock)
    cache.set_connected(JOBS, is_open)
    clock.now = seconds - 1
    assert (version_of(cache), names(cache)) == (3, ["a"])
    clock.now = seconds + 1
    assert (version_of(cache), names(cache), cache.silent_seconds(JOBS)) == (None, None, seconds + 1)
    cache.heard_from(JOBS)
    assert (version_of(cache), names(cache), cache.silent_seconds(JOBS)) == (3, ["a"], 0)


def test_a_disconnect_is_no_sign_of_life() -> None:
    clock = Clock()
    cache = listed(job("a", 3), version=5, clock=clock)
    cache.set_connected(JOBS, True)
    clock.now = DISCONNECTED_SECONDS + 1
    cache.set_connected(JOBS, False)
    assert (version_of(cache), cache.silent_seconds(JOBS)) == (None, DISCONNECTED_SECONDS + 1)


def test_an_incomplete_list_does_not_make_missing_objects_fresh() -> None:
    clock = Clock()
    cache = listed(job("a", 3), job("b", 3), version=5, clock=clock)
    clock.now = DISCONNECTED_SECONDS + 1
    cache.begin_list(JOBS)
    cache.add_listed(JOBS, job("a", 3))
    assert version_of(cache, "b") is None
    cache.add_listed(JOBS, job("b", 8))
    cache.end_list(JOBS, "9")
    assert version_of(cache, "b") == 8


def test_silence_counts_from_the_start_of_the_informer() -> None:
    clock = Clock()
    cache = Cache(SELECTORS, OWNER_LABEL, clock)
    clock.now = 1000.0
    assert cache.silent_seconds(JOBS) == 0
    cache.heard_from(JOBS)
    clock.now = 1200.0
    assert cache.silent_seconds(JOBS) == 200


# No object goes back to an older version.


@pytest.mark.parametrize("late", ["MODIFIED", "ADDED"])
def test_a_late_event_does_not_overwrite_a_newer_write(late: Any) -> None:
    cache = listed(job("a", 3), version=5)
    cache.record_write(JOBS, job("a", 8))
    cache.apply_event(JOBS, late, job("a", 6))
    assert version_of(cache) == 8
    cache.apply_event(JOBS, late, job("a", 9))
    assert version_of(cache) == 9


def test_resource_versions_are_compared_as_numbers() -> None:
    cache = listed(job("a", 9), version=9)
    cache.apply_event(JOBS, "MODIFIED", job("a", 10))
    assert version_of(cache) == 10


@pytest.mark.parametrize("how", ["by the watch", "by us", "found by a live read", "found by a live list"])
def test_a_deleted_object_does_not_come_back_with_a_late_event(how: str) -> None:
    cache = listed(job("a", 6), version=6)
    if how == "by the watch":
        cache.apply_event(JOBS, "DELETED", job("a", 7))
    elif how == "by us":
        cache.record_deletion(JOBS, "team-a", "a", "uid-of-a")
    elif how == "found by a live read":
        cache.record_get(JOBS, ("team-a", "a"), None, None, cache.entry(JOBS, "team-a", "a"))
    else:
        cache.record_list(JOBS, "parent", OURS, [], "7", None)
    cache.apply_event(JOBS, "MODIFIED", job("a", 5))
    cache.record_write(JOBS, job("a", 6))
    assert names(cache) == []


def test_the_late_deletion_of_a_predecessor_keeps_its_successor() -> None:
    cache = listed(job("a", 3, uid="old"), version=3)
    cache.record_write(JOBS, job("a", 8, uid="new"))
    cache.apply_event(JOBS, "DELETED", job("a", 7, uid="old"))
    assert version_of(cache) == 8


def test_an_object_that_loses_and_regains_our_label_is_cached_again() -> None:
    """The watch reports a deletion, and then an addition with the same UID."""
    cache = listed(job("a", 3), version=3)
    cache.apply_event(JOBS, "DELETED", job("a", 7))
    assert names(cache) == []
    cache.apply_event(JOBS, "ADDED", job("a", 9))
    assert names(cache) == ["a"]
    cache.record_write(JOBS, job("a", 10, labels={}))
    assert names(cache) == [], "an answer to a write that no longer has it"
    cache.apply_event(JOBS, "ADDED", job("a", 11, labels={**OURS, OWNER_LABEL: "another"}))
    assert (names(cache), names(cache, {**OURS, OWNER_LABEL: "another"})) == ([], ["a"])


def test_a_resource_version_that_is_not_a_number_counts_as_newest() -> None:
    cache = listed(job("a", 3), version=3)
    odd = job("a", 3)
    odd["metadata"]["resourceVersion"] = "x7"
    cache.apply_event(JOBS, "MODIFIED", odd)
    assert cache.get(JOBS, "team-a", "a") is odd


# Lists.


def test_a_list_reports_deletions_that_no_watch_delivered() -> None:
    cache = listed(job("a", 3), job("b", 4), job("c", 4), version=5)
    assert relist(cache, job("b", 4), job("c", 8), job("d", 9), version=10) == [
        ("MODIFIED", "c"),
        ("ADDED", "d"),
        ("DELETED", "a"),
    ]
    assert names(cache) == ["b", "c", "d"]


def found_gone(cache: Cache, how: str) -> None:
    """One of our own requests finds that Job a was deleted."""
    if how == "read":
        cache.record_get(JOBS, ("team-a", "a"), None, None, cache.entry(JOBS, "team-a", "a"))
    elif how == "list of its owner":
        cache.record_list(JOBS, "parent", OURS, [], "6", None)
    else:
        cache.record_deletion(JOBS, "team-a", "a", job("a", 3)["metadata"]["uid"])


HOW_IT_WAS_FOUND = pytest.mark.parametrize("how", ["read", "list of its owner", "deletion of our own"])


@HOW_IT_WAS_FOUND
def test_a_deletion_found_by_a_request_is_reported_by_the_next_list(how: str) -> None:
    """A watch that broke off never reports it, but references and metrics have to be updated."""
    cache = listed(job("a", 3), version=5)
    found_gone(cache, how)
    assert names(cache) == []
    assert relist(cache, version=7) == [("DELETED", "a")]
    assert relist(cache, version=8) == [], "once"


@HOW_IT_WAS_FOUND
def test_a_deletion_found_by_a_request_is_not_reported_by_an_older_list_or_after_the_watch(how: str) -> None:
    cache = listed(job("a", 3), version=5)
    found_gone(cache, how)
    assert relist(cache, job("a", 3), version=5) == [], "the watch from there on tells it"
    cache.apply_event(JOBS, "DELETED", job("a", 6))
    assert relist(cache, version=8) == []


@HOW_IT_WAS_FOUND
def test_an_object_recreated_after_a_deletion_found_by_a_request_is_kept(how: str) -> None:
    cache = listed(job("a", 3), version=5)
    found_gone(cache, how)
    again = job("a", 7, uid="another")
    cache.apply_event(JOBS, "ADDED", again)
    assert (version_of(cache), names(cache)) == (7, ["a"])
    assert relist(cache, again, version=8) == []
    assert names(cache) == ["a"]


def test_an_object_created_during_a_list_is_kept() -> None:
    cache = listed(version=5)
    cache.begin_list(JOBS)
    cache.record_write(JOBS, job("a", 8))
    assert cache.end_list(JOBS, "7") == []
    assert names(cache) == ["a"]


def test_a_list_that_starts_over_discards_its_earlier_pages() -> None:
    cache = listed(job("a", 3), job("b", 3), version=5)
    cache.begin_list(JOBS)
    cache.add_listed(JOBS, job("a", 3))
    cache.restart_list(JOBS)
    cache.add_listed(JOBS, job("b", 3))
    assert [one.body["metadata"]["name"] for one in cache.end_list(JOBS, "9")] == ["a"]


def test_a_list_does_not_settle_an_unknown_outcome_of_a_later_write() -> None:
    """The list may show the state before that write."""
    cache = listed(job("a", 3), version=5)
    cache.begin_list(JOBS)
    cache.mark_unknown(JOBS, "team-a", "a")
    cache.restart_list(JOBS)
    cache.add_listed(JOBS, job("a", 3))
    cache.end_list(JOBS, "5")
    assert version_of(cache) is None


def test_a_list_older_than_the_cache_means_that_etcd_was_restored() -> None:
    """Versions restart from an earlier one, so that cached objects would count as newer for ever."""
    cache = listed(job("a", 3), version=5)
    cache.apply_event(JOBS, "MODIFIED", job("a", 8))
    cache.begin_list(JOBS)
    cache.apply_event(JOBS, "MODIFIED", job("a", 10))
    assert cache.end_list(JOBS, "9") == []
    cache.begin_list(JOBS)
    with pytest.raises(RestoredError, match=r"jobs were listed at resourceVersion 9, but 10 was seen before"):
        cache.end_list(JOBS, "9")


# Finished objects.


def test_children_of_a_finished_object_are_dropped_too() -> None:
    cache = listed(job("a", 3), job("b", 3, labels={**OURS, OWNER_LABEL: "another"}), version=5)
    parent = {"metadata": {"name": "router", "namespace": "team-a", "uid": "parent", "resourceVersion": "4"}}
    cache.begin_list(FINE_TUNE_JOBS)
    cache.add_listed(FINE_TUNE_JOBS, parent)
    cache.end_list(FINE_TUNE_JOBS, "5")
    cache.mark_finished(FINE_TUNE_JOBS, "team-a", "router", "3")
    assert names(cache) == ["a"], "it has changed since"
    cache.mark_finished(FINE_TUNE_JOBS, "team-a", "router", "4")
    assert (names(cache), version_of(cache, "a"), version_of(cache, "b")) == (None, None, 3)
    cache.record_list(JOBS, "parent", OURS, [job("a", 3)], "9", None)
    assert names(cache) is None, "it is still the finished one's"
    cache.apply_event(JOBS, "MODIFIED", job("a", 7))
    assert names(cache) == ["a"]


def test_a_finished_object_is_dropped_until_it_changes() -> None:
    cache = listed(job("a", 3), job("b", 3), version=5)
    cache.mark_finished(JOBS, "team-a", "a", "2")
    assert version_of(cache) == 3, "it has changed since"
    cache.mark_finished(JOBS, "team-a", "a", "3")
    assert (version_of(cache), names(cache)) == (None, None)
    assert list(cache.unfinished(JOBS)) == [("team-a", "b")]
    assert relist(cache, job("a", 3), job("b", 3), version=6) == []
    cache.apply_event(JOBS, "MODIFIED", job("a", 7))
    assert version_of(cache) == 7
    cache.mark_finished(JOBS, "team-a", "a", "7")
    cache.begin_list(JOBS)
    (gone,) = [one for one in cache.end_list(JOBS, "9") if one.body["metadata"]["name"] == "a"]
    identity = {"name": "a", "namespace": "team-a", "uid": "uid-of-a"}
    assert (gone.type, gone.body) == ("DELETED", {"apiVersion": "batch/v1", "kind": "Job", "metadata": identity})


def test_is_finished_holds_until_the_object_changes() -> None:
    cache = listed(job("a", 3), version=5)
    assert not cache.is_finished(JOBS, "team-a", "a")
    assert not cache.is_finished(JOBS, "team-a", "b"), "it is not there"
    cache.mark_finished(JOBS, "team-a", "a", "3")
    assert cache.is_finished(JOBS, "team-a", "a")
    cache.apply_event(JOBS, "MODIFIED", job("a", 8))
    assert not cache.is_finished(JOBS, "team-a", "a")
