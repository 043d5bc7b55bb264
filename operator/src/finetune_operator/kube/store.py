"""The objects of one watched resource, as the cache holds them. Pure; cache.py states the rules."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

from finetune_operator.kube.resources import Object
from finetune_operator.kube.selectors import Selector

Key = tuple[str, str]
"""Namespace (empty: none) and name."""
MAX_TOMBSTONES = 20_000
FOREVER = 2**64
NEVER = float("-inf")


@dataclass
class Entry:
    """One object, or what is kept of it."""

    __slots__ = ("body", "is_delivered", "is_ours", "owner", "uid", "version")
    uid: str
    version: int
    owner: str | None
    body: Object | None
    is_ours: bool
    """The operator wrote this version."""
    is_delivered: bool
    """The handlers know this version, from a watch or a list; a live read does not call them."""


@dataclass(eq=False)
class Unknown:
    """A write with an unknown outcome; by identity, since there may be another one later."""

    refreshed: set[frozenset[tuple[str, str]]] = field(default_factory=set)
    """Labels with which the owner's children have been listed live since: these are known."""


@dataclass
class Counts:
    """How often the API server was read, for metrics: by plural, and live reads by their cause too."""

    lists: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)
    live_reads: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass
class Store:
    """The objects of one watched resource."""

    selector: Selector
    entries: dict[Key, Entry] = field(default_factory=dict)
    by_owner: dict[str, set[Key]] = field(default_factory=dict)
    tombstones: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """UID and version of recently deleted objects."""
    undelivered: dict[Key, Entry] = field(default_factory=dict)
    """Objects that our own requests found deleted, until an event or the next list delivers the deletion."""
    unknown: dict[Key | str, Unknown] = field(default_factory=dict)
    """The last write with an unknown outcome, by object and by owner."""
    is_listed: bool = False
    is_connected: bool = False
    last_heard: float = NEVER
    newest: int = 0
    """The highest version seen so far."""
    reached: int = 0
    """The version up to which the watch or a list has told everything."""
    echoes: deque[tuple[int, float]] = field(default_factory=deque)
    """Own writes that neither has told of yet: their versions, and when they were answered."""
    listing: set[Key] = field(default_factory=set)
    unknown_before_list: dict[Key | str, Unknown] = field(default_factory=dict)
    newest_before_list: int = 0
    """For the list in progress: its keys so far, and `unknown` and `newest` as they were when it was requested."""


def key_of(body: Object) -> Key:
    """The object's key."""
    meta = body["metadata"]
    return meta.get("namespace", ""), meta["name"]


def version_of(text: str | None) -> int:
    """A resourceVersion as a number."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else FOREVER


def is_version(entry: Entry, body: Object) -> bool:
    """Whether the entry is this object in this version."""
    meta = body["metadata"]
    return entry.uid == meta.get("uid", "") and entry.version == version_of(meta.get("resourceVersion"))


def note_version(store: Store, version: int) -> None:
    """Note a version that was seen."""
    if version != FOREVER:
        store.newest = max(store.newest, version)


def note_reached(store: Store, version: int) -> None:
    """Note that everything up to this version has been told."""
    if version != FOREVER:
        store.reached = max(store.reached, version)
    while store.echoes and store.echoes[0][0] <= store.reached:
        store.echoes.popleft()


def note_own_write(store: Store, version: int, now: float) -> None:
    """Note that the watch has to tell of this version of our own."""
    if store.reached < version != FOREVER:
        store.echoes.append((version, now))


def note_deletion(store: Store, uid: str, version: int) -> None:
    """Note that the object with this UID was deleted at this version."""
    store.tombstones[uid] = max(version, store.tombstones.get(uid, -1))
    store.tombstones.move_to_end(uid)
    if len(store.tombstones) > MAX_TOMBSTONES:
        store.tombstones.popitem(last=False)


def clear_unknown(store: Store, key_or_owner: Key | str, outcome: object | None) -> None:
    """The outcome is known now, unless there has been another such write since."""
    if outcome is not None and store.unknown.get(key_or_owner) is outcome:
        del store.unknown[key_or_owner]
