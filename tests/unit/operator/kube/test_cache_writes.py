"""Our own writes are in the cache before the watch tells of them; what became of a write that failed is in doubt."""

from __future__ import annotations

import pytest

from finetune_operator.kube.cache import Cache
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


def test_our_own_write_is_known_when_the_watch_tells_it_and_so_is_what_it_was_written_upon() -> None:
    cache = listed(job("a", 3), version=5)
    cache.wrote(JOBS, job("a", 8))
    assert cache.event(JOBS, "MODIFIED", job("a", 7)), "the write had its version"
    assert cache.event(JOBS, "MODIFIED", job("a", 8))
    assert not cache.event(JOBS, "MODIFIED", job("a", 9)), "somebody else's, also one in our name"
    cache.wrote(JOBS, job("a", 10))
    assert not cache.event(JOBS, "DELETED", job("a", 11))
    cache.event(JOBS, "ADDED", job("a", 13, uid="new"))
    cache.wrote(JOBS, job("a", 14, uid="new"))
    assert not cache.event(JOBS, "MODIFIED", job("a", 12)), "its predecessor's"


@pytest.mark.parametrize("how", ["by its name", "among siblings", "in a list", "by the watch"])
def test_what_others_wrote_is_not_ours_for_having_been_read(how: str) -> None:
    """A live read may come before the watch: whom the change concerns is to be told all the same."""
    cache = listed(job("a", 3), version=5)
    if how == "by its name":
        cache.found(JOBS, ("team-a", "a"), job("a", 8), None, None)
    elif how == "among siblings":
        cache.found_owned(JOBS, "parent", OURS, [job("a", 8)], "8", None)
    elif how == "in a list":
        cache.read(JOBS, job("a", 8))
    else:
        cache.event(JOBS, "MODIFIED", job("a", 8))
    assert not cache.event(JOBS, "MODIFIED", job("a", 8))


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_live_read_has_found_is_new_in_the_list_all_the_same(is_first: bool) -> None:
    """Whoever read it had it for somebody else's sake: what is to be done about the object itself waits to be told."""
    cache = Cache(SELECTORS, OWNER_LABEL, Clock()) if is_first else listed(version=5)
    cache.found(JOBS, ("team-a", "a"), job("a", 8), None, None)
    assert relist(cache, job("a", 8), version=9) == [("MODIFIED", "a")]
    assert relist(cache, job("a", 8), version=10) == [], "once"


@pytest.mark.parametrize("how", ["watched", "written"])
def test_what_is_told_or_planned_for_is_not_told_again_by_a_list(how: str) -> None:
    cache = listed(version=5)
    if how == "watched":
        cache.found(JOBS, ("team-a", "a"), job("a", 8), None, None)
        cache.event(JOBS, "ADDED", job("a", 8))
    else:
        cache.wrote(JOBS, job("a", 8))
    assert relist(cache, job("a", 8), version=9) == []


def test_a_write_is_read_before_the_watch_tells_it() -> None:
    cache = listed(version=5)
    cache.wrote(JOBS, job("a", 8))
    assert (version_of(cache), names(cache)) == (8, ["a"])
    cache.deleted(JOBS, "team-a", "a", "uid-of-a")
    assert names(cache) == []


def test_an_answer_that_comes_after_the_deletion_was_told_makes_no_ghost() -> None:
    cache = listed(job("a", 3), version=5)
    cache.event(JOBS, "DELETED", job("a", 9))
    cache.wrote(JOBS, job("a", 8))
    assert names(cache) == []


def test_what_became_of_a_write_is_asked_once() -> None:
    cache = listed(job("a", 3), version=5)
    cache.doubt(JOBS, "team-a", "a", "parent")
    assert (version_of(cache), names(cache)) == (None, None)
    doubt = cache.doubt_about(JOBS, "parent")
    cache.found_owned(JOBS, "parent", OURS, [job("a", 8)], "8", doubt)
    assert names(cache) == ["a"]
    cache.found(JOBS, ("team-a", "a"), job("a", 8), cache.doubt_about(JOBS, ("team-a", "a")), None)
    assert version_of(cache) == 8


def test_a_doubt_about_an_object_is_one_about_its_owner_s_children() -> None:
    cache = listed(job("a", 3), version=5)
    cache.doubt(JOBS, "team-a", "a")
    assert names(cache) is None


def test_what_was_read_before_another_doubt_does_not_settle_it() -> None:
    cache = listed(job("a", 3), version=5)
    cache.doubt(JOBS, "team-a", "a")
    doubt = cache.doubt_about(JOBS, ("team-a", "a"))
    cache.doubt(JOBS, "team-a", "a")
    cache.found(JOBS, ("team-a", "a"), job("a", 8), doubt, None)
    assert version_of(cache) is None


def test_a_whole_list_settles_the_doubts_that_were_there_when_it_began() -> None:
    cache = listed(job("a", 3), job("b", 3), version=5)
    cache.doubt(JOBS, "team-a", "a")
    cache.begin_list(JOBS)
    cache.doubt(JOBS, "team-a", "b")
    for name in "ab":
        cache.listed(JOBS, job(name, 3))
    cache.end_list(JOBS, "9")
    assert (version_of(cache, "a"), version_of(cache, "b")) == (3, None)


def test_an_object_that_was_not_found_and_has_come_since_stays() -> None:
    cache = listed(version=5)
    before = cache.entry(JOBS, "team-a", "a")
    cache.event(JOBS, "ADDED", job("a", 8))
    cache.found(JOBS, ("team-a", "a"), None, None, before)
    assert version_of(cache) == 8
