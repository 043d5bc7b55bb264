"""What the cache answers, when it does not, and that nothing in it goes back: by case, and against a random cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from finetune_operator.kube.cache import QUIET_SECONDS, SILENT_SECONDS, Cache, RestoredError
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, FINE_TUNE_JOBS, JOBS, PODS, SERVICES, Object
from finetune_operator.kube.selectors import label_selector

OWNER_LABEL = "finetune.dev/owner-uid"
OURS = {"managed": "us", OWNER_LABEL: "parent"}
SELECTORS = {
    FINE_TUNE_CLASSES: {},
    FINE_TUNE_JOBS: {},
    JOBS: {"managed": frozenset({"us"})},
    SERVICES: {"managed": frozenset({"us"}), "role": frozenset({"serve"})},
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def job(name: str, version: int, uid: str | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": OURS if labels is None else labels,
        },
        "spec": spec,
    }


def listed(*items: Object, version: int, clock: Callable[[], float] | None = None) -> Cache:
    """A cache whose first list of Jobs is complete."""
    cache = Cache(SELECTORS, OWNER_LABEL, clock or Clock())
    relist(cache, *items, version=version)
    return cache


def relist(cache: Cache, *items: Object, version: int) -> list[tuple[str, str]]:
    """List Jobs; returns what was told of it."""
    cache.begin_list(JOBS)
    told = [cache.listed(JOBS, item) for item in items]
    gone = cache.end_list(JOBS, str(version))
    return [(one.change, one.body["metadata"]["name"]) for one in (*told, *gone) if one is not None]


def names(cache: Cache, labels: dict[str, str] = OURS) -> list[str] | None:
    found = cache.owned(JOBS, "team-a", labels)
    return None if found is None else [one["metadata"]["name"] for one in found]


def version_of(cache: Cache, name: str = "a") -> int | None:
    found = cache.get(JOBS, "team-a", name)
    return None if found is None else int(found["metadata"]["resourceVersion"])


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


# Our own writes, and doubts.


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


# Lists.


def test_what_was_deleted_while_nobody_watched_is_told_with_the_next_list() -> None:
    cache = listed(job("a", 3), job("b", 4), job("c", 4), version=5)
    assert relist(cache, job("b", 4), job("c", 8), job("d", 9), version=10) == [
        ("MODIFIED", "c"),
        ("ADDED", "d"),
        ("DELETED", "a"),
    ]
    assert names(cache) == ["b", "c", "d"]


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


def test_selectors_are_written_as_the_api_server_reads_them() -> None:
    assert label_selector({"a": frozenset({"1"}), "b": frozenset({"3", "2"})}) == "a=1,b in (2,3)"


# Against a cluster.

NAMES = st.sampled_from(["a", "b", "c"])
LABELS = st.sampled_from([OURS, {**OURS, OWNER_LABEL: "other"}, {}])
SELECTED = {"managed": "us"}


class ClusterAndCache(RuleBasedStateMachine):
    """A cluster with Jobs of three names, and a cache that hears of it late, twice, or not at all.

    Its history is a list of (before, after); the watch comes to each of its entries in order.
    """

    @initialize()
    def begin(self) -> None:
        self.version = 10
        self.uids = 0
        self.there: dict[str, Object] = {}
        self.history: list[tuple[Object | None, Object | None, int]] = []
        self.heard = 0
        self.pages: list[Object] | None = None
        self.is_beside = False
        self.snapshot = (0, 0)
        self.cache = listed(version=10)
        self.newest: dict[str, int] = {}
        self.dead: set[str] = set()
        """UIDs of what we know to be deleted."""

    def change(self, name: str, after: Object | None) -> Object | None:
        before = self.there.pop(name, None)
        self.version += 1
        if after is not None:
            after["metadata"]["resourceVersion"] = str(self.version)
            self.there[name] = after
        if before != after:
            self.history.append((before, after, self.version))
        return after

    def new(self, name: str, labels: dict[str, str]) -> Object:
        self.uids += 1
        return job(name, 0, uid=f"uid-{self.uids}", labels=labels)

    # Others.

    @rule(name=NAMES, labels=LABELS)
    def somebody_creates(self, name: str, labels: dict[str, str]) -> None:
        if name not in self.there:
            self.change(name, self.new(name, labels))

    @rule(name=NAMES, labels=LABELS)
    def somebody_changes(self, name: str, labels: dict[str, str]) -> None:
        if name in self.there:
            uid = self.there[name]["metadata"]["uid"]
            self.change(name, job(name, 0, uid=uid, labels=labels))

    @rule(name=NAMES)
    def somebody_deletes(self, name: str) -> None:
        if name in self.there:
            self.change(name, None)

    # We.

    @rule(name=NAMES, answered=st.booleans())
    def we_create(self, name: str, answered: bool) -> None:
        if name in self.there:
            self.cache.doubt(JOBS, "team-a", name, "parent")
            return
        made = self.change(name, self.new(name, OURS))
        assert made is not None
        if answered:
            self.cache.wrote(JOBS, made)
            self.newest[made["metadata"]["uid"]] = self.version
        else:
            self.cache.doubt(JOBS, "team-a", name, "parent")

    @rule(name=NAMES, answered=st.booleans())
    def we_change(self, name: str, answered: bool) -> None:
        if name not in self.there:
            return
        meta = self.there[name]["metadata"]
        made = self.change(name, job(name, 0, uid=meta["uid"], labels=meta["labels"]))
        assert made is not None
        if answered:
            self.cache.wrote(JOBS, made)
            self.newest[meta["uid"]] = self.version
        else:
            self.cache.doubt(JOBS, "team-a", name, meta["labels"].get(OWNER_LABEL))

    @rule(name=NAMES, answered=st.booleans())
    def we_delete(self, name: str, answered: bool) -> None:
        if name not in self.there:
            return
        meta = self.there[name]["metadata"]
        self.change(name, None)
        if answered:
            self.cache.deleted(JOBS, "team-a", name, meta["uid"])
            self.dead.add(meta["uid"])
        else:
            self.cache.doubt(JOBS, "team-a", name, meta["labels"].get(OWNER_LABEL))

    @rule(name=NAMES)
    def we_read(self, name: str) -> None:
        key = ("team-a", name)
        doubt, before = self.cache.doubt_about(JOBS, key), self.cache.entry(JOBS, *key)
        self.cache.found(JOBS, key, self.there.get(name), doubt, before)

    @rule()
    def we_list_the_children(self) -> None:
        doubt = self.cache.doubt_about(JOBS, "parent")
        items = [one for one in self.there.values() if one["metadata"]["labels"] == OURS]
        self.cache.found_owned(JOBS, "parent", OURS, items, str(self.version), doubt)

    # The watch.

    @precondition(lambda self: (self.pages is None or self.is_beside) and self.heard < len(self.history))
    @rule()
    def the_watch_tells(self) -> None:
        before, after, version = self.history[self.heard]
        self.heard += 1
        was, is_now = (one is not None and bool(one["metadata"]["labels"]) for one in (before, after))
        if is_now:
            assert after is not None
            self.cache.event(JOBS, "MODIFIED" if was else "ADDED", after)
        elif was:
            assert before is not None
            last = {**before, "metadata": {**before["metadata"], "resourceVersion": str(version)}}
            self.cache.event(JOBS, "DELETED", last)
            if after is None:
                self.dead.add(before["metadata"]["uid"])

    @precondition(lambda self: self.pages is None)
    @rule(is_beside=st.booleans())
    def a_list_begins(self, is_beside: bool) -> None:
        """Since the watch is too old, or beside the watch, which goes on."""
        self.is_beside = is_beside
        self.pages = [one for one in self.there.values() if one["metadata"]["labels"]]
        self.snapshot = (self.version, len(self.history))
        self.cache.begin_list(JOBS)
        self.cache.begin_pages(JOBS)

    @precondition(lambda self: self.pages is not None)
    @rule()
    def a_list_goes_on(self) -> None:
        assert self.pages is not None
        if self.pages:
            self.cache.listed(JOBS, self.pages.pop())
            return
        self.pages = None
        version, heard = self.snapshot
        self.heard = self.heard if self.is_beside else heard
        self.cache.end_list(JOBS, str(version))

    # What holds.

    @invariant()
    def nothing_goes_back_behind_what_we_wrote(self) -> None:
        for found in [*(self.cache.get(JOBS, "team-a", name) for name in "abc"), *(self.owned() or [])]:
            if found is not None:
                meta = found["metadata"]
                assert meta["uid"] not in self.dead
                version = int(meta["resourceVersion"])
                assert version >= self.newest.get(meta["uid"], 0)
                self.newest[meta["uid"]] = version

    @invariant()
    def our_children_are_all_there(self) -> None:
        """None that we made and that is there is missed: or it would be made again, or called lost."""
        found = self.owned()
        if found is None:
            return
        known = {one["metadata"]["uid"] for one in found}
        for one in self.there.values():
            meta = one["metadata"]
            history = [after for _, after, _ in self.history if after and after["metadata"]["uid"] == meta["uid"]]
            always_ours = all(after["metadata"]["labels"] == OURS for after in history)
            if always_ours and meta["uid"] in self.newest:
                assert meta["uid"] in known

    def owned(self) -> list[Object] | None:
        return self.cache.owned(JOBS, "team-a", OURS)

    def teardown(self) -> None:
        """Once all is told, and what is in doubt is asked, it is the cluster."""
        if not hasattr(self, "there"):
            return
        while self.pages is not None:
            self.a_list_goes_on()
        while self.heard < len(self.history):
            self.the_watch_tells()
        self.we_list_the_children()
        for name in "abc":
            self.we_read(name)
        expected = sorted((one for one in self.there.values() if one["metadata"]["labels"] == OURS), key=str)
        assert sorted(self.owned() or [], key=str) == expected
        for name, one in self.there.items():
            if one["metadata"]["labels"]:
                assert self.cache.get(JOBS, "team-a", name) == one


ClusterAndCache.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestClusterAndCache = ClusterAndCache.TestCase
