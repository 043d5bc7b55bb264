"""What the cache answers, and when it does not; what lists and watches tell it."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.kube.cache import QUIET_SECONDS, SILENT_SECONDS, Cache, RestoredError
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

# What it answers.


def test_an_owner_s_children_are_known_once_all_objects_were_listed() -> None:
    cache = Cache(SELECTORS, OWNER_LABEL, Clock())
    cache.begin_list(JOBS)
    cache.listed(JOBS, job("a", 3))
    assert names(cache) is None, "there may be another one on the next page"
    assert version_of(cache) == 3, "what was listed was read just now"
    cache.end_list(JOBS, "5")
    assert names(cache) == ["a"]
    assert names(cache, {**OURS, OWNER_LABEL: "childless"}) == []
    assert names(cache, {**OURS, "role": "train"}) == [], "all labels that are asked for count"
    assert cache.owned(JOBS, "team-b", OURS) == []


def test_what_is_not_there_may_be_there_without_our_label() -> None:
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
def test_what_the_watch_does_not_cover_is_asked_for(resource: Any, labels: dict[str, str]) -> None:
    cache = listed(version=5)
    cache.begin_list(SERVICES)
    cache.end_list(SERVICES, "5")
    assert cache.owned(resource, "team-a", labels) is None


def test_every_class_is_known_by_its_name_and_all_together() -> None:
    cache = Cache(SELECTORS, OWNER_LABEL, Clock())
    cpu = {"metadata": {"name": "cpu", "uid": "u", "resourceVersion": "3"}}
    cache.begin_list(FINE_TUNE_CLASSES)
    cache.listed(FINE_TUNE_CLASSES, cpu)
    assert cache.all(FINE_TUNE_CLASSES) is None
    cache.end_list(FINE_TUNE_CLASSES, "5")
    assert cache.all(FINE_TUNE_CLASSES) == [cpu]
    assert cache.get(FINE_TUNE_CLASSES, None, "cpu") == cpu
    assert cache.all(JOBS) is None, "those without our label are not watched"


@pytest.mark.parametrize(("is_open", "seconds"), [(False, SILENT_SECONDS), (True, QUIET_SECONDS)])
def test_a_watch_that_says_nothing_is_not_believed_for_long_and_an_open_one_until_a_bookmark_is_overdue(
    is_open: bool, seconds: float
) -> None:
    clock = Clock()
    cache = listed(job("a", 3), version=5, clock=clock)
    cache.connected(JOBS, is_open)
    clock.now = seconds - 1
    assert (version_of(cache), names(cache)) == (3, ["a"])
    clock.now = seconds + 1
    assert (version_of(cache), names(cache), cache.silent_seconds(JOBS)) == (None, None, seconds + 1)
    cache.hears(JOBS)
    assert (version_of(cache), names(cache), cache.silent_seconds(JOBS)) == (3, ["a"], 0)


def test_the_end_of_a_connection_is_no_word_of_the_api_server() -> None:
    clock = Clock()
    cache = listed(job("a", 3), version=5, clock=clock)
    cache.connected(JOBS, True)
    clock.now = SILENT_SECONDS + 1
    cache.connected(JOBS, False)
    assert (version_of(cache), cache.silent_seconds(JOBS)) == (None, SILENT_SECONDS + 1)


def test_half_a_list_says_nothing_of_what_is_not_in_it() -> None:
    clock = Clock()
    cache = listed(job("a", 3), job("b", 3), version=5, clock=clock)
    clock.now = SILENT_SECONDS + 1
    cache.begin_list(JOBS)
    cache.listed(JOBS, job("a", 3))
    assert version_of(cache, "b") is None
    cache.listed(JOBS, job("b", 8))
    cache.end_list(JOBS, "9")
    assert version_of(cache, "b") == 8


def test_silence_counts_from_when_it_was_first_asked() -> None:
    clock = Clock()
    cache = Cache(SELECTORS, OWNER_LABEL, clock)
    clock.now = 1000.0
    assert cache.silent_seconds(JOBS) == 0
    cache.hears(JOBS)
    clock.now = 1200.0
    assert cache.silent_seconds(JOBS) == 200


# An object only gets newer.


@pytest.mark.parametrize("late", ["MODIFIED", "ADDED"])
def test_a_late_event_does_not_undo_what_was_written_since(late: Any) -> None:
    cache = listed(job("a", 3), version=5)
    cache.wrote(JOBS, job("a", 8))
    cache.event(JOBS, late, job("a", 6))
    assert version_of(cache) == 8
    cache.event(JOBS, late, job("a", 9))
    assert version_of(cache) == 9


def test_versions_are_numbers_and_no_texts() -> None:
    cache = listed(job("a", 9), version=9)
    cache.event(JOBS, "MODIFIED", job("a", 10))
    assert version_of(cache) == 10


@pytest.mark.parametrize("how", ["told", "by us", "found by a live read", "found by a live list"])
def test_what_is_gone_does_not_come_back_with_a_late_event(how: str) -> None:
    cache = listed(job("a", 6), version=6)
    if how == "told":
        cache.event(JOBS, "DELETED", job("a", 7))
    elif how == "by us":
        cache.deleted(JOBS, "team-a", "a", "uid-of-a")
    elif how == "found by a live read":
        cache.found(JOBS, ("team-a", "a"), None, None, cache.entry(JOBS, "team-a", "a"))
    else:
        cache.found_owned(JOBS, "parent", OURS, [], "7", None)
    cache.event(JOBS, "MODIFIED", job("a", 5))
    cache.wrote(JOBS, job("a", 6))
    assert names(cache) == []


def test_the_late_deletion_of_a_predecessor_leaves_the_object_of_its_name() -> None:
    cache = listed(job("a", 3, uid="old"), version=3)
    cache.wrote(JOBS, job("a", 8, uid="new"))
    cache.event(JOBS, "DELETED", job("a", 7, uid="old"))
    assert version_of(cache) == 8


def test_an_object_that_loses_our_label_and_gets_it_back_is_known_again() -> None:
    """The watch calls that a deletion; the object has the same UID."""
    cache = listed(job("a", 3), version=3)
    cache.event(JOBS, "DELETED", job("a", 7))
    assert names(cache) == []
    cache.event(JOBS, "ADDED", job("a", 9))
    assert names(cache) == ["a"]
    cache.wrote(JOBS, job("a", 10, labels={}))
    assert names(cache) == [], "an answer to a write that no longer has it"
    cache.event(JOBS, "ADDED", job("a", 11, labels={**OURS, OWNER_LABEL: "another"}))
    assert (names(cache), names(cache, {**OURS, OWNER_LABEL: "another"})) == ([], ["a"])


def test_versions_that_are_no_numbers_count_as_newest() -> None:
    cache = listed(job("a", 3), version=3)
    odd = job("a", 3)
    odd["metadata"]["resourceVersion"] = "x7"
    cache.event(JOBS, "MODIFIED", odd)
    assert cache.get(JOBS, "team-a", "a") is odd


# Lists.


def test_the_next_list_reports_what_was_deleted_while_nobody_watched() -> None:
    cache = listed(job("a", 3), job("b", 4), job("c", 4), version=5)
    assert relist(cache, job("b", 4), job("c", 8), job("d", 9), version=10) == [
        ("MODIFIED", "c"),
        ("ADDED", "d"),
        ("DELETED", "a"),
    ]
    assert names(cache) == ["b", "c", "d"]


def found_gone(cache: Cache, how: str) -> None:
    """How a request of our own learns that Job a was deleted."""
    if how == "read":
        cache.found(JOBS, ("team-a", "a"), None, None, cache.entry(JOBS, "team-a", "a"))
    elif how == "list of its owner":
        cache.found_owned(JOBS, "parent", OURS, [], "6", None)
    else:
        cache.deleted(JOBS, "team-a", "a", job("a", 3)["metadata"]["uid"])


HOW_IT_WAS_FOUND = pytest.mark.parametrize("how", ["read", "list of its owner", "deletion of our own"])


@HOW_IT_WAS_FOUND
def test_what_we_found_deleted_before_the_watch_told_it_is_reported_by_the_next_list(how: str) -> None:
    """The watch that broke off never tells; who refers to it, and who counts it, has to know."""
    cache = listed(job("a", 3), version=5)
    found_gone(cache, how)
    assert names(cache) == []
    assert relist(cache, version=7) == [("DELETED", "a")]
    assert relist(cache, version=8) == [], "once"


@HOW_IT_WAS_FOUND
def test_what_we_found_deleted_is_not_reported_once_the_watch_tells_it_or_a_list_is_older(how: str) -> None:
    cache = listed(job("a", 3), version=5)
    found_gone(cache, how)
    assert relist(cache, job("a", 3), version=5) == [], "the watch from there on tells it"
    cache.event(JOBS, "DELETED", job("a", 6))
    assert relist(cache, version=8) == []


@HOW_IT_WAS_FOUND
def test_what_we_found_deleted_and_somebody_made_anew_is_not_gone(how: str) -> None:
    cache = listed(job("a", 3), version=5)
    found_gone(cache, how)
    again = job("a", 7, uid="another")
    cache.event(JOBS, "ADDED", again)
    assert (version_of(cache), names(cache)) == (7, ["a"])
    assert relist(cache, again, version=8) == []
    assert names(cache) == ["a"]


def test_what_was_made_during_a_list_is_not_gone() -> None:
    cache = listed(version=5)
    cache.begin_list(JOBS)
    cache.wrote(JOBS, job("a", 8))
    assert cache.end_list(JOBS, "7") == []
    assert names(cache) == ["a"]


def test_a_list_that_begins_again_forgets_what_its_first_half_had() -> None:
    cache = listed(job("a", 3), job("b", 3), version=5)
    cache.begin_list(JOBS)
    cache.listed(JOBS, job("a", 3))
    cache.begin_pages(JOBS)
    cache.listed(JOBS, job("b", 3))
    assert [one.body["metadata"]["name"] for one in cache.end_list(JOBS, "9")] == ["a"]


def test_a_doubt_that_came_after_a_list_was_asked_for_is_not_settled_by_it() -> None:
    """The list's moment may have been before that."""
    cache = listed(job("a", 3), version=5)
    cache.begin_list(JOBS)
    cache.doubt(JOBS, "team-a", "a")
    cache.begin_pages(JOBS)
    cache.listed(JOBS, job("a", 3))
    cache.end_list(JOBS, "5")
    assert version_of(cache) is None


def test_a_list_that_is_older_than_what_was_known_before_it_means_that_etcd_was_restored() -> None:
    """Versions count up from an earlier one again: what is known would be taken for newer for ever."""
    cache = listed(job("a", 3), version=5)
    cache.event(JOBS, "MODIFIED", job("a", 8))
    cache.begin_list(JOBS)
    cache.event(JOBS, "MODIFIED", job("a", 10))
    assert cache.end_list(JOBS, "9") == []
    cache.begin_list(JOBS)
    with pytest.raises(RestoredError, match=r"jobs were listed at resourceVersion 9, but 10 was seen before"):
        cache.end_list(JOBS, "9")


# Finished objects.


def test_of_a_finished_object_s_children_no_more_is_kept_either() -> None:
    cache = listed(job("a", 3), job("b", 3, labels={**OURS, OWNER_LABEL: "another"}), version=5)
    parent = {"metadata": {"name": "router", "namespace": "team-a", "uid": "parent", "resourceVersion": "4"}}
    cache.begin_list(FINE_TUNE_JOBS)
    cache.listed(FINE_TUNE_JOBS, parent)
    cache.end_list(FINE_TUNE_JOBS, "5")
    cache.finished(FINE_TUNE_JOBS, "team-a", "router", "3")
    assert names(cache) == ["a"], "it has changed since"
    cache.finished(FINE_TUNE_JOBS, "team-a", "router", "4")
    assert (names(cache), version_of(cache, "a"), version_of(cache, "b")) == (None, None, 3)
    cache.found_owned(JOBS, "parent", OURS, [job("a", 3)], "9", None)
    assert names(cache) is None, "it is still the finished one's"
    cache.event(JOBS, "MODIFIED", job("a", 7))
    assert names(cache) == ["a"]


def test_of_a_finished_object_only_the_version_is_kept_until_it_changes() -> None:
    cache = listed(job("a", 3), job("b", 3), version=5)
    cache.finished(JOBS, "team-a", "a", "2")
    assert version_of(cache) == 3, "it has changed since"
    cache.finished(JOBS, "team-a", "a", "3")
    assert (version_of(cache), names(cache)) == (None, None)
    assert list(cache.unfinished(JOBS)) == [("team-a", "b")]
    assert relist(cache, job("a", 3), job("b", 3), version=6) == []
    cache.event(JOBS, "MODIFIED", job("a", 7))
    assert version_of(cache) == 7
    cache.finished(JOBS, "team-a", "a", "7")
    cache.begin_list(JOBS)
    (gone,) = [one for one in cache.end_list(JOBS, "9") if one.body["metadata"]["name"] == "a"]
    identity = {"name": "a", "namespace": "team-a", "uid": "uid-of-a"}
    assert (gone.change, gone.body) == ("DELETED", {"apiVersion": "batch/v1", "kind": "Job", "metadata": identity})


def test_it_is_known_that_an_object_is_finished_until_it_changes() -> None:
    cache = listed(job("a", 3), version=5)
    assert not cache.is_finished(JOBS, "team-a", "a")
    assert not cache.is_finished(JOBS, "team-a", "b"), "it is not there"
    cache.finished(JOBS, "team-a", "a", "3")
    assert cache.is_finished(JOBS, "team-a", "a")
    cache.event(JOBS, "MODIFIED", job("a", 8))
    assert not cache.is_finished(JOBS, "team-a", "a")
