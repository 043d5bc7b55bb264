"""What the operator knows of the cluster without asking: the objects that its watches deliver. Pure; no I/O.

Specification:

1. **An object only gets newer.** Events, answers to our own writes and live reads all end here, in whatever order they
   arrive. What has a lower resourceVersion than what is known, or than the deletion of its UID, changes nothing.
   (Versions of one resource are numbers that grow: KEP-5504. One that is no number counts as newest.)
2. **Our own writes are in it.** The API server's answer to a write is kept like an event, so a reader sees what was
   written before the watch tells it. A write of which nobody knows whether it was done (an error, a conflict, no
   answer) leaves a *doubt* about the object and about the children of its owner, which only a live read or a whole
   list takes away.
3. **It answers, or it does not.** None means "ask the API server": while the watch is down or silent for long, where
   there is a doubt, for what is not there (it may exist without our label), and for a finished object of which only the
   version is kept. Memory alone never says that an object does not exist; only what children an owner has, once all are
   listed.
4. **A list is the truth of its moment.** What was known before and is not in it is gone, unless it is newer than the
   list. So what was deleted while nobody watched is told as deleted when the next list is complete. A list that is
   older than what was known before it was asked for means that etcd was restored from a backup: RestoredError.
5. **A finished object costs its key, UID and version**, some hundred bytes, and so does each of its children. Its next
   event brings the rest again.

Objects are shared: nobody may change what it gets.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from finetune_operator.kube.resources import Object, Resource
from finetune_operator.kube.selectors import Selector, has_labels, matches

Change = Literal["ADDED", "MODIFIED", "DELETED"]
Key = tuple[str, str]
"""Namespace (empty: none) and name."""

SILENT_SECONDS = 10.0
"""How long memory is believed after the last word of a watch that is not connected."""
QUIET_SECONDS = 90.0
"""The same of one that is connected: bookmarks come once a minute."""
_DELETIONS_KEPT = 20_000
_FOREVER = 2**64
_NEVER = float("-inf")


class RestoredError(Exception):
    """The API server has gone back in time. What is known is of no use: the process has to begin anew."""


@dataclass(frozen=True)
class Told:
    """A change to an object, to be told to whoever waits for it."""

    change: Change
    body: Object


@dataclass
class _Entry:
    __slots__ = ("body", "is_ours", "is_told", "owner", "uid", "version")
    uid: str
    version: int
    owner: str | None
    body: Object | None
    is_ours: bool
    """We wrote this version."""
    is_told: bool
    """A watch or a list brought this version, so whoever waits for it was told; a live read tells nobody."""


@dataclass
class _Store:
    """The objects of one watched resource."""

    selector: Selector
    entries: dict[Key, _Entry] = field(default_factory=dict)
    by_owner: dict[str, set[Key]] = field(default_factory=dict)
    gone: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """UID and version of what was deleted lately."""
    untold: dict[Key, _Entry] = field(default_factory=dict)
    """What our own requests found deleted: an event or the next list tells of it."""
    doubts: dict[Key | str, object] = field(default_factory=dict)
    """By object, and by owner: what was last done about it that may have failed."""
    is_listed: bool = False
    is_connected: bool = False
    heard: float = _NEVER
    newest: int = 0
    """The highest version that was seen."""
    listing: set[Key] = field(default_factory=set)
    doubts_before: dict[Key | str, object] = field(default_factory=dict)
    newest_before: int = 0
    """Of the list in progress: what it had so far, the doubts that it takes away, and `newest` before it."""


class Cache:
    """Objects of the watched resources, by name and by the UID of the owner that a label names."""

    def __init__(
        self, selectors: Mapping[Resource, Selector], owner_label: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stores = {resource: _Store(selector) for resource, selector in selectors.items()}
        self._owner_label = owner_label
        self._clock = clock

    # What the watches say.

    def begin_list(self, resource: Resource) -> None:
        """A list is about to be asked for."""
        store = self._stores[resource]
        store.listing, store.doubts_before, store.newest_before = set(), dict(store.doubts), store.newest

    def begin_pages(self, resource: Resource) -> None:
        """The first page of a list has come. If there were others already, they don't count."""
        self._stores[resource].listing = set()

    def listed(self, resource: Resource, body: Object) -> Told | None:
        """An object of the list; returns what is new of it, also where a live read knew it already."""
        store, key = self._stores[resource], _key(body)
        store.listing.add(key)
        if not store.is_listed:
            self.hears(resource)  # Later lists are believed once they are complete.
        new, entry = self._put(store, body), store.entries.get(key)
        if new is None and entry is not None and not entry.is_told and _is_version(entry, body):
            new = Told("MODIFIED", body)
        if new is not None and entry is not None:
            entry.is_told = True
        return new

    def end_list(self, resource: Resource, version: str) -> list[Told]:
        """The list is complete, and of this version; returns what is gone. Raises RestoredError."""
        store, until = self._stores[resource], _version(version)
        if until < store.newest_before:
            versions = f"at resourceVersion {version}, but {store.newest_before} was seen before"
            raise RestoredError(f"{resource.plural} were listed {versions}: etcd was restored from a backup.")
        _sees(store, until)
        known = (store.entries | store.untold).items()
        vanished = [(key, entry) for key, entry in known if key not in store.listing and entry.version <= until]
        for about, doubt in store.doubts_before.items():
            _settle(store, about, doubt)
        store.listing, store.doubts_before, store.is_listed = set(), {}, True
        self.hears(resource)
        return [self._remove(resource, store, key, entry, until) for key, entry in vanished]

    def event(self, resource: Resource, type: Change, body: Object) -> bool:
        """An event of the watch; returns whether it is of our own write, or of what we wrote that upon."""
        store, key, version = self._stores[resource], _key(body), _version(body["metadata"].get("resourceVersion"))
        entry, uid = store.entries.get(key), body["metadata"].get("uid", "")
        if type != "DELETED":
            is_ours = entry is not None and entry.is_ours and entry.uid == uid and version <= entry.version
            self._put(store, body)
            if (entry := store.entries.get(key)) is not None and _is_version(entry, body):
                entry.is_told = True
            return is_ours
        _note_deletion(store, uid, version)
        entry = entry or store.untold.get(key)
        if entry is not None and entry.uid == uid and entry.version <= version:
            self._drop(store, key, entry)
        return False

    def hears(self, resource: Resource) -> None:
        """The API server has said something about this resource; or it is about to be asked for the first time."""
        self._stores[resource].heard = self._clock()

    def connected(self, resource: Resource, is_open: bool) -> None:
        """The watch is open, or is not any more."""
        self._stores[resource].is_connected = is_open

    def silent_seconds(self, resource: Resource) -> float:
        """How long ago the API server last said something about it; 0 before it was first asked."""
        heard = self._stores[resource].heard
        return 0.0 if heard == _NEVER else self._clock() - heard

    # What our own requests say.

    def wrote(self, resource: Resource, answer: Object) -> None:
        """The API server's answer to a write."""
        store, meta = self._stores.get(resource), answer.get("metadata", {})
        if store is None or "uid" not in meta:
            return
        if meta.get("deletionGracePeriodSeconds") == 0 and not meta.get("finalizers"):
            # Its last finalizer was taken away: it is gone, without another version.
            self.deleted(resource, meta.get("namespace"), meta["name"], meta["uid"])
        elif self._put(store, answer) is not None and (entry := store.entries.get(_key(answer))) is not None:
            entry.is_ours = entry.is_told = True

    def read(self, resource: Resource, answer: Object) -> None:
        """An object that a live list has found."""
        store = self._stores.get(resource)
        if store is not None and "uid" in answer.get("metadata", {}):
            self._put(store, answer)

    def deleted(self, resource: Resource, namespace: str | None, name: str, uid: str) -> None:
        """The API server has deleted this object."""
        store, key = self._stores.get(resource), (namespace or "", name)
        if store is None:
            return
        _note_deletion(store, uid, _FOREVER)
        entry = store.entries.get(key)
        if entry is not None and entry.uid == uid:
            self._found_gone(store, key, entry)

    def doubt(self, resource: Resource, namespace: str | None, name: str, owner: str | None = None) -> None:
        """Nobody knows what became of a write to this object, which has or may have this owner."""
        store, key = self._stores.get(resource), (namespace or "", name)
        if store is None:
            return
        entry = store.entries.get(key)
        for about in (key, owner, entry.owner if entry is not None else None):
            if about is not None:
                store.doubts[about] = object()

    def doubt_about(self, resource: Resource, about: Key | str) -> object | None:
        """The doubt about an object or the children of an owner, to be given back with what a live read found."""
        store = self._stores.get(resource)
        return None if store is None else store.doubts.get(about)

    def found(self, resource: Resource, key: Key, answer: Object | None, doubt: object | None, before: object) -> None:
        """What a live read of one object found; `before`: `entry` of it when it was asked for."""
        store = self._stores.get(resource)
        if store is None:
            return
        entry = store.entries.get(key)
        if answer is not None:
            self._put(store, answer)
        elif entry is not None and entry is before:
            self._found_gone(store, key, entry)
        _settle(store, key, doubt)

    def found_owned(
        self,
        resource: Resource,
        owner: str,
        labels: Mapping[str, str],
        items: Iterable[Object],
        version: str,
        doubt: object | None,
    ) -> None:
        """What a live list of an owner's children with these labels found, and the list's version."""
        store = self._stores.get(resource)
        if store is None:
            return
        listed = set()
        for item in items:
            self._put(store, item)
            listed.add(_key(item))
        for key in [key for key in store.by_owner.get(owner, ()) if key not in listed]:
            entry = store.entries[key]
            if entry.version <= _version(version) and entry.body is not None and has_labels(entry.body, labels):
                self._found_gone(store, key, entry)
        _settle(store, owner, doubt)

    # Reading.

    def owner(self, labels: Mapping[str, str] | None) -> str | None:
        """The UID of the owner that labels name."""
        return (labels or {}).get(self._owner_label)

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None: ask the API server."""
        store, key = self._stores.get(resource), (namespace or "", name)
        if store is None or not self._is_believed(store) or key in store.doubts:
            return None
        entry = store.entries.get(key)
        return None if entry is None else entry.body

    def entry(self, resource: Resource, namespace: str | None, name: str) -> object | None:
        """What is known of an object, to be compared by identity: see `found`."""
        store = self._stores.get(resource)
        return None if store is None else store.entries.get((namespace or "", name))

    def owned(self, resource: Resource, namespace: str | None, labels: Mapping[str, str]) -> list[Object] | None:
        """The objects with these labels, one of which names their owner; None: ask the API server."""
        store, owner = self._stores.get(resource), self.owner(labels)
        if store is None or owner is None or owner in store.doubts or not self._is_believed(store, whole=True):
            return None
        if namespace is None:
            return None
        if any(labels.get(name) not in values for name, values in store.selector.items()):
            return None  # There may be others, which are not watched.
        entries = [store.entries[key] for key in sorted(store.by_owner.get(owner, ())) if key[0] == namespace]
        if any(entry.body is None for entry in entries):
            return None
        return [entry.body for entry in entries if entry.body is not None and has_labels(entry.body, labels)]

    def all(self, resource: Resource) -> list[Object] | None:
        """Every object of a resource that is watched without a selector; None: ask the API server."""
        store = self._stores.get(resource)
        if store is None or store.selector or store.doubts or not self._is_believed(store, whole=True):
            return None
        bodies = [entry.body for _, entry in sorted(store.entries.items())]
        return None if None in bodies else [body for body in bodies if body is not None]

    def unfinished(self, resource: Resource) -> Iterator[Key]:
        """The keys of the objects that are not finished."""
        return iter([key for key, entry in self._stores[resource].entries.items() if entry.body is not None])

    def finished(self, resource: Resource, namespace: str | None, name: str, version: str) -> None:
        """Nothing is to be done about the object as it is in this version: of it and its children no more is kept."""
        store = self._stores.get(resource)
        entry = store.entries.get((namespace or "", name)) if store is not None else None
        if entry is None or entry.version != _version(version):
            return
        entry.body = None
        for children in self._stores.values():
            for key in children.by_owner.get(entry.uid, ()):
                children.entries[key].body = None

    def is_finished(self, resource: Resource, namespace: str | None, name: str) -> bool:
        """Whether the object is finished, and nothing was to be done about it as it is when it was looked at."""
        store = self._stores.get(resource)
        entry = store.entries.get((namespace or "", name)) if store is not None else None
        return entry is not None and entry.body is None

    def _is_believed(self, store: _Store, *, whole: bool = False) -> bool:
        if whole and not store.is_listed:
            return False
        return self._clock() - store.heard < (QUIET_SECONDS if store.is_connected else SILENT_SECONDS)

    def _put(self, store: _Store, body: Object) -> Told | None:
        """Keep an object if it is watched, and not older than what is known; returns what is new of it."""
        meta, key = body["metadata"], _key(body)
        uid, version = meta.get("uid", ""), _version(meta.get("resourceVersion"))
        _sees(store, version)
        entry = store.entries.get(key)
        is_older = version <= store.gone.get(uid, -1) or (entry is not None and version < entry.version)
        is_known = entry is not None and entry.uid == uid
        is_same = is_known and entry is not None and version == entry.version != _FOREVER
        if is_older or is_same:
            return None
        store.untold.pop(key, None)
        if entry is not None:
            self._drop(store, key, entry)
        if not matches(body, store.selector):
            # It lost its labels. The watch calls that a deletion.
            _note_deletion(store, uid, version)
            return None
        owner = self.owner(meta.get("labels"))
        store.entries[key] = _Entry(uid, version, owner, body, is_ours=False, is_told=False)
        if owner is not None:
            store.by_owner.setdefault(owner, set()).add(key)
        return Told("MODIFIED" if is_known else "ADDED", body)

    def _found_gone(self, store: _Store, key: Key, entry: _Entry) -> None:
        _note_deletion(store, entry.uid, entry.version)
        self._drop(store, key, entry)
        store.untold[key] = entry

    def _drop(self, store: _Store, key: Key, entry: _Entry) -> None:
        if store.untold.pop(key, None) is not None:
            return
        del store.entries[key]
        if entry.owner is not None:
            siblings = store.by_owner[entry.owner]
            siblings.discard(key)
            if not siblings:
                del store.by_owner[entry.owner]

    def _remove(self, resource: Resource, store: _Store, key: Key, entry: _Entry, version: int) -> Told:
        _note_deletion(store, entry.uid, version)
        self._drop(store, key, entry)
        namespace, name = key
        identity = {"name": name, "uid": entry.uid, **({"namespace": namespace} if namespace else {})}
        known: Object = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": identity}
        return Told("DELETED", entry.body or known)


def _key(body: Object) -> Key:
    meta = body["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _is_version(entry: _Entry, body: Object) -> bool:
    """Whether what is known is the object in this version."""
    meta = body["metadata"]
    return entry.uid == meta.get("uid", "") and entry.version == _version(meta.get("resourceVersion"))


def _version(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else _FOREVER


def _sees(store: _Store, version: int) -> None:
    if version != _FOREVER:
        store.newest = max(store.newest, version)


def _note_deletion(store: _Store, uid: str, version: int) -> None:
    store.gone[uid] = max(version, store.gone.get(uid, -1))
    store.gone.move_to_end(uid)
    if len(store.gone) > _DELETIONS_KEPT:
        store.gone.popitem(last=False)


def _settle(store: _Store, about: Key | str, doubt: object | None) -> None:
    """Take a doubt away, unless there is another one by now."""
    if doubt is not None and store.doubts.get(about) is doubt:
        del store.doubts[about]
