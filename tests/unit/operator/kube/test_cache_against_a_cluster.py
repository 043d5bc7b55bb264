"""Nothing in the cache goes back, and no child is missed: against a random cluster."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from finetune_operator.kube.resources import JOBS, Object
from tests.unit.operator.kube.cached_jobs import OURS, OWNER_LABEL, job, listed

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
        self.delivered = 0
        self.pages: list[Object] | None = None
        self.is_beside = False
        self.snapshot = (0, 0)
        self.cache = listed(version=10)
        self.newest: dict[str, int] = {}
        self.dead: set[str] = set()
        """UIDs of objects that we know to be deleted."""

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
            self.cache.mark_unknown(JOBS, "team-a", name, "parent")
            return
        made = self.change(name, self.new(name, OURS))
        assert made is not None
        if answered:
            self.cache.record_write(JOBS, made)
            self.newest[made["metadata"]["uid"]] = self.version
        else:
            self.cache.mark_unknown(JOBS, "team-a", name, "parent")

    @rule(name=NAMES, answered=st.booleans())
    def we_change(self, name: str, answered: bool) -> None:
        if name not in self.there:
            return
        meta = self.there[name]["metadata"]
        made = self.change(name, job(name, 0, uid=meta["uid"], labels=meta["labels"]))
        assert made is not None
        if answered:
            self.cache.record_write(JOBS, made)
            self.newest[meta["uid"]] = self.version
        else:
            self.cache.mark_unknown(JOBS, "team-a", name, meta["labels"].get(OWNER_LABEL))

    @rule(name=NAMES, answered=st.booleans())
    def we_delete(self, name: str, answered: bool) -> None:
        if name not in self.there:
            return
        meta = self.there[name]["metadata"]
        self.change(name, None)
        if answered:
            self.cache.record_deletion(JOBS, "team-a", name, meta["uid"])
            self.dead.add(meta["uid"])
        else:
            self.cache.mark_unknown(JOBS, "team-a", name, meta["labels"].get(OWNER_LABEL))

    @rule(name=NAMES)
    def we_read(self, name: str) -> None:
        key = ("team-a", name)
        outcome, before = self.cache.unknown_outcome(JOBS, key), self.cache.entry(JOBS, *key)
        self.cache.record_get(JOBS, key, self.there.get(name), outcome, before)

    @rule()
    def we_list_the_children(self) -> None:
        outcome = self.cache.unknown_outcome(JOBS, "parent")
        items = [one for one in self.there.values() if one["metadata"]["labels"] == OURS]
        self.cache.record_list(JOBS, "parent", OURS, items, str(self.version), outcome)

    # The watch.

    @precondition(lambda self: (self.pages is None or self.is_beside) and self.delivered < len(self.history))
    @rule()
    def the_watch_delivers(self) -> None:
        before, after, version = self.history[self.delivered]
        self.delivered += 1
        was, is_now = (one is not None and bool(one["metadata"]["labels"]) for one in (before, after))
        if is_now:
            assert after is not None
            self.cache.apply_event(JOBS, "MODIFIED" if was else "ADDED", after)
        elif was:
            assert before is not None
            last = {**before, "metadata": {**before["metadata"], "resourceVersion": str(version)}}
            self.cache.apply_event(JOBS, "DELETED", last)
            if after is None:
                self.dead.add(before["metadata"]["uid"])

    @precondition(lambda self: self.pages is None)
    @rule(is_beside=st.booleans())
    def a_list_begins(self, is_beside: bool) -> None:
        """A list after an expired watch, or the periodic one beside a running watch."""
        self.is_beside = is_beside
        self.pages = [one for one in self.there.values() if one["metadata"]["labels"]]
        self.snapshot = (self.version, len(self.history))
        self.cache.begin_list(JOBS)
        self.cache.restart_list(JOBS)

    @precondition(lambda self: self.pages is not None)
    @rule()
    def a_list_goes_on(self) -> None:
        assert self.pages is not None
        if self.pages:
            self.cache.add_listed(JOBS, self.pages.pop())
            return
        self.pages = None
        version, delivered = self.snapshot
        self.delivered = self.delivered if self.is_beside else delivered
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
        """No existing child of ours is missing: it would be created again, or reported as lost."""
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
        """Once every event is delivered and every unknown outcome is read, the cache equals the cluster."""
        if not hasattr(self, "there"):
            return
        while self.pages is not None:
            self.a_list_goes_on()
        while self.delivered < len(self.history):
            self.the_watch_delivers()
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
