"""The objects that the operator's watches deliver, so that most reads need no request. Pure; no I/O.

Specification:

1. **An object never goes back to an older version.** Events, responses to our own writes and live reads arrive in any
   order. One with a lower resourceVersion than the stored object, or than the deletion of its UID, is ignored.
   (The resourceVersions of one resource are increasing numbers, KEP-5504; one that is not a number counts as newest.)
2. **It contains our own writes.** The API server's response to a write is stored like an event, so that a reader sees
   the write before the watch delivers it. After a write with an unknown outcome (an error, a conflict, no response),
   the object and the children of its owner are not served until a live read or a complete list has refreshed them; a
   live list of those with some more labels refreshes only these.
3. **A miss means "ask the API server".** None is returned while the watch is down or has been silent for too long,
   while it owes an event about one of our own writes for too long, after a write with an unknown outcome, for an object
   that is not stored (it may exist without our label), and for a finished object. (Events come in the order of their
   versions: a later one, or a bookmark, tells as much.) The cache never claims that an object does not exist; it only
   knows the children of an owner, once everything has been listed.
4. **A complete list is authoritative.** An object that is stored but not in the list is gone, unless it is newer than
   the list; so deletions that no watch delivered are reported when the next list is complete. A list that is older
   than what was known when it was requested means that etcd was restored from a backup: RestoredError.
5. **Of a finished object only key, UID and version are kept**, a few hundred bytes, and the same of its children. Its
   next event stores the whole object again.

Objects are shared: callers must not modify them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from finetune_operator.kube.resources import Object, Resource
from finetune_operator.kube.selectors import Selector, has_labels, matches
from finetune_operator.kube.store import (
    FOREVER,
    NEVER,
    Counts,
    Entry,
    Key,
    Store,
    Unknown,
    clear_unknown,
    is_version,
    key_of,
    note_deletion,
    note_own_write,
    note_reached,
    note_version,
    version_of,
)

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
DISCONNECTED_SECONDS = 10.0
"""How long the cache is served after the last sign of life from the API server, while the watch is disconnected."""
CONNECTED_SECONDS = 90.0
"""The same while the watch is connected: bookmarks arrive every minute."""
ECHO_SECONDS = 10.0
"""The same while the watch owes an event about our own write: it may be open and stuck."""


class RestoredError(Exception):
    """The API server has gone back in time. The whole cache is invalid: the process has to restart."""


@dataclass(frozen=True)
class Change:
    """A change to an object that is to be delivered to the handlers."""

    type: EventType
    body: Object


class Cache:
    """Objects of the watched resources, by name and by owner (a label with its UID)."""

    def __init__(
        self, selectors: Mapping[Resource, Selector], owner_label: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stores = {resource: Store(selector) for resource, selector in selectors.items()}
        self._owner_label, self._clock = owner_label, clock
        self.counts = Counts()

    # Called by the informers.

    def begin_list(self, resource: Resource) -> None:
        """A list is about to be requested."""
        store = self._stores[resource]
        store.listing, store.unknown_before_list, store.newest_before_list = set(), dict(store.unknown), store.newest

    def restart_list(self, resource: Resource) -> None:
        """The first page of a list has arrived. Pages that arrived before it are discarded."""
        self._stores[resource].listing = set()

    def add_listed(self, resource: Resource, body: Object) -> Change | None:
        """Store an object of the list; returns the change to deliver, also if a live read stored it before."""
        store, key = self._stores[resource], key_of(body)
        store.listing.add(key)
        if not store.is_listed:
            self.heard_from(resource)  # A later list counts as a sign of life only once it is complete.
        new, entry = self._put(store, body), store.entries.get(key)
        if new is None and entry is not None and not entry.is_delivered and is_version(entry, body):
            new = Change("MODIFIED", body)
        if new is not None and entry is not None:
            entry.is_delivered = True
        return new

    def end_list(self, resource: Resource, version: str) -> list[Change]:
        """The list is complete and has this version; returns the deletions. Raises RestoredError."""
        store, until = self._stores[resource], version_of(version)
        if until < store.newest_before_list:
            versions = f"at resourceVersion {version}, but {store.newest_before_list} was seen before"
            raise RestoredError(f"{resource.plural} were listed {versions}: etcd was restored from a backup.")
        note_version(store, until)
        note_reached(store, until)
        self.counts.lists[resource.plural] += 1
        known = (store.entries | store.undelivered).items()
        vanished = [(key, entry) for key, entry in known if key not in store.listing and entry.version <= until]
        for key_or_owner, token in store.unknown_before_list.items():
            clear_unknown(store, key_or_owner, token)
        store.listing, store.unknown_before_list, store.is_listed = set(), {}, True
        self.heard_from(resource)
        return [self._remove(resource, store, key, entry, until) for key, entry in vanished]

    def apply_event(self, resource: Resource, type: EventType, body: Object) -> bool:
        """Store an event of the watch; returns whether it is our own write, or the version that this write replaced."""
        store, key, version = self._stores[resource], key_of(body), version_of(body["metadata"].get("resourceVersion"))
        entry, uid = store.entries.get(key), body["metadata"].get("uid", "")
        if type != "DELETED":
            is_ours = entry is not None and entry.is_ours and entry.uid == uid and version <= entry.version
            self._put(store, body)
            if (entry := store.entries.get(key)) is not None and is_version(entry, body):
                entry.is_delivered = True
            return is_ours
        note_deletion(store, uid, version)
        entry = entry or store.undelivered.get(key)
        if entry is not None and entry.uid == uid and entry.version <= version:
            self._drop(store, key, entry)
        return False

    def reached(self, resource: Resource, version: str) -> None:
        """Note that the watch has told everything up to this version: of an event, or of a bookmark."""
        note_reached(self._stores[resource], version_of(version))

    def heard_from(self, resource: Resource) -> None:
        """Note a sign of life: a response of the API server about this resource, or the start of its informer."""
        self._stores[resource].last_heard = self._clock()

    def set_connected(self, resource: Resource, is_open: bool) -> None:
        """Note whether the watch is open."""
        self._stores[resource].is_connected = is_open

    def silent_seconds(self, resource: Resource) -> float:
        """Seconds since the last sign of life about this resource; 0 before the first one."""
        last_heard = self._stores[resource].last_heard
        return 0.0 if last_heard == NEVER else self._clock() - last_heard

    def ages(self) -> dict[str, tuple[float, float]]:
        """By plural: the seconds of silence, and for how long the watch has owed the event of a write of our own."""
        now = self._clock()
        return {
            one.plural: (self.silent_seconds(one), now - store.echoes[0][1] if store.echoes else 0.0)
            for one, store in self._stores.items()
        }

    # Called by the client.

    def record_write(self, resource: Resource, answer: Object, replaced: str | None = None) -> None:
        """Store the API server's response to a write; `replaced`: the version without which it would be refused."""
        store, meta = self._stores.get(resource), answer.get("metadata", {})
        if store is None or "uid" not in meta:
            return
        if meta.get("deletionGracePeriodSeconds") == 0 and not meta.get("finalizers"):
            # Its last finalizer was removed: the object is gone, and there is no newer version of it.
            self.record_deletion(resource, meta.get("namespace"), meta["name"], meta["uid"])
            return
        # The watch may have been faster. A write that changes nothing is answered with the version before it.
        is_ours = self._put(store, answer) is not None or replaced not in (None, meta.get("resourceVersion"))
        if is_ours and (entry := store.entries.get(key_of(answer))) is not None and is_version(entry, answer):
            entry.is_ours = entry.is_delivered = True
            note_own_write(store, entry.version, self._clock())

    def record_read(self, resource: Resource, answer: Object) -> None:
        """Store an object of a live list."""
        store = self._stores.get(resource)
        if store is not None and "uid" in answer.get("metadata", {}):
            self._put(store, answer)

    def record_deletion(self, resource: Resource, namespace: str | None, name: str, uid: str) -> None:
        """Note that the API server has deleted this object."""
        store, key = self._stores.get(resource), (namespace or "", name)
        if store is None:
            return
        note_deletion(store, uid, FOREVER)
        if (entry := store.entries.get(key)) is not None and entry.uid == uid:
            self._drop_undelivered(store, key, entry)

    def mark_unknown(self, resource: Resource, namespace: str | None, name: str, owner: str | None = None) -> None:
        """Note a write with an unknown outcome to this object, which has or may have this owner."""
        store, key = self._stores.get(resource), (namespace or "", name)
        if store is None:
            return
        entry = store.entries.get(key)
        for key_or_owner in (key, owner, entry.owner if entry is not None else None):
            if key_or_owner is not None:
                store.unknown[key_or_owner] = Unknown()

    def unknown_outcome(self, resource: Resource, key_or_owner: Key | str) -> object | None:
        """The token of an unknown outcome, to be passed to `record_get` or `record_list` after the live read."""
        store = self._stores.get(resource)
        return None if store is None else store.unknown.get(key_or_owner)

    def record_get(
        self, resource: Resource, key: Key, body: Object | None, outcome: object | None, before: object
    ) -> None:
        """Store the result of a live read of one object; `before` is its `entry` when the read was requested."""
        store = self._stores.get(resource)
        if store is None:
            return
        if body is not None:
            self._put(store, body)
        elif (entry := store.entries.get(key)) is not None and entry is before:
            self._drop_undelivered(store, key, entry)
        clear_unknown(store, key, outcome)

    def record_list(
        self,
        resource: Resource,
        owner: str,
        labels: Mapping[str, str],
        items: Iterable[Object],
        version: str,
        outcome: object | None,
    ) -> None:
        """Store a live list of an owner's children with these labels, and the list's version."""
        store = self._stores.get(resource)
        if store is None:
            return
        listed = set()
        for item in items:
            self._put(store, item)
            listed.add(key_of(item))
        for key in [key for key in store.by_owner.get(owner, ()) if key not in listed]:
            entry = store.entries[key]
            if entry.version <= version_of(version) and entry.body is not None and has_labels(entry.body, labels):
                self._drop_undelivered(store, key, entry)
        wanted = {**store.selector, self._owner_label: frozenset({owner})}
        if all(wanted.get(name) == frozenset({value}) for name, value in labels.items()):
            clear_unknown(store, owner, outcome)
        elif isinstance(outcome, Unknown):
            outcome.refreshed.add(frozenset(labels.items()))

    # Reading.

    def owner_uid(self, labels: Mapping[str, str] | None) -> str | None:
        """The UID of the owner in these labels."""
        return (labels or {}).get(self._owner_label)

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None means that the API server has to be asked."""
        store, key = self._stores.get(resource), (namespace or "", name)
        if store is None or not self._is_fresh(store) or key in store.unknown:
            return None
        return None if (entry := store.entries.get(key)) is None else entry.body

    def entry(self, resource: Resource, namespace: str | None, name: str) -> object | None:
        """What is stored for a key, to be compared by identity: see `record_get`."""
        store = self._stores.get(resource)
        return None if store is None else store.entries.get((namespace or "", name))

    def owned(self, resource: Resource, namespace: str | None, labels: Mapping[str, str]) -> list[Object] | None:
        """The objects with these labels, among them the owner's; None means that the API server has to be asked."""
        store, owner = self._stores.get(resource), self.owner_uid(labels)
        if store is None or owner is None or not self._is_fresh(store, whole=True):
            return None
        if (unknown := store.unknown.get(owner)) is not None and frozenset(labels.items()) not in unknown.refreshed:
            return None
        if namespace is None or any(labels.get(name) not in values for name, values in store.selector.items()):
            return None  # The labels may select objects that are not watched, or children in several namespaces.
        entries = [store.entries[key] for key in sorted(store.by_owner.get(owner, ())) if key[0] == namespace]
        if any(entry.body is None for entry in entries):
            return None
        return [entry.body for entry in entries if entry.body is not None and has_labels(entry.body, labels)]

    def all(self, resource: Resource) -> list[Object] | None:
        """All objects of a resource watched without a selector; None means that the API server has to be asked."""
        store = self._stores.get(resource)
        if store is None or store.selector or store.unknown or not self._is_fresh(store, whole=True):
            return None
        bodies = [entry.body for _, entry in sorted(store.entries.items())]
        return None if None in bodies else [body for body in bodies if body is not None]

    def why_missed(self, resource: Resource, key_or_owner: Key | str | None) -> str:
        """Why the API server has to be asked, for metrics."""
        store = self._stores.get(resource)
        if store is None:
            return "unwatched"
        if not self._is_fresh(store):
            return "stale"
        return "unknown" if key_or_owner in store.unknown else "missing"

    def unfinished(self, resource: Resource) -> Iterator[Key]:
        """The keys of all objects not marked as finished."""
        return iter([key for key, entry in self._stores[resource].entries.items() if entry.body is not None])

    def mark_finished(self, resource: Resource, namespace: str | None, name: str, version: str) -> None:
        """Keep only key, UID and version of this object and its children, unless its version has changed."""
        store = self._stores.get(resource)
        entry = store.entries.get((namespace or "", name)) if store is not None else None
        if entry is None or entry.version != version_of(version):
            return
        entry.body = None
        for children in self._stores.values():
            for key in children.by_owner.get(entry.uid, ()):
                children.entries[key].body = None

    def is_finished(self, resource: Resource, namespace: str | None, name: str) -> bool:
        """Whether the object was marked as finished and has not changed since."""
        store = self._stores.get(resource)
        entry = store.entries.get((namespace or "", name)) if store is not None else None
        return entry is not None and entry.body is None

    def _is_fresh(self, store: Store, *, whole: bool = False) -> bool:
        if whole and not store.is_listed:
            return False
        if store.echoes and self._clock() - store.echoes[0][1] >= ECHO_SECONDS:
            return False
        return self._clock() - store.last_heard < (CONNECTED_SECONDS if store.is_connected else DISCONNECTED_SECONDS)

    def _put(self, store: Store, body: Object) -> Change | None:
        """Store an object if it matches the selector and is not outdated; returns the change, if any."""
        meta, key = body["metadata"], key_of(body)
        uid, version = meta.get("uid", ""), version_of(meta.get("resourceVersion"))
        note_version(store, version)
        entry = store.entries.get(key)
        is_older = version <= store.tombstones.get(uid, -1) or (entry is not None and version < entry.version)
        is_known = entry is not None and entry.uid == uid
        is_same = is_known and entry is not None and version == entry.version != FOREVER
        if is_older or is_same:
            return None
        store.undelivered.pop(key, None)
        if entry is not None:
            self._drop(store, key, entry)
        if not matches(body, store.selector):
            # It lost its labels: the watch reports that as a deletion.
            note_deletion(store, uid, version)
            return None
        owner = self.owner_uid(meta.get("labels"))
        store.entries[key] = Entry(uid, version, owner, body, is_ours=False, is_delivered=False)
        if owner is not None:
            store.by_owner.setdefault(owner, set()).add(key)
        return Change("MODIFIED" if is_known else "ADDED", body)

    def _drop_undelivered(self, store: Store, key: Key, entry: Entry) -> None:
        note_deletion(store, entry.uid, entry.version)
        self._drop(store, key, entry)
        store.undelivered[key] = entry

    def _drop(self, store: Store, key: Key, entry: Entry) -> None:
        if store.undelivered.pop(key, None) is not None:
            return
        del store.entries[key]
        if entry.owner is not None:
            siblings = store.by_owner[entry.owner]
            siblings.discard(key)
            if not siblings:
                del store.by_owner[entry.owner]

    def _remove(self, resource: Resource, store: Store, key: Key, entry: Entry, version: int) -> Change:
        note_deletion(store, entry.uid, version)
        self._drop(store, key, entry)
        namespace, name = key
        identity = {"name": name, "uid": entry.uid, **({"namespace": namespace} if namespace else {})}
        known: Object = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": identity}
        return Change("DELETED", entry.body or known)
