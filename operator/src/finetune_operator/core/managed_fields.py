"""Whether other managers have changed an applied object, and how to revert their changes. Pure.

The API server records which manager owns each field (metadata.managedFields, FieldsV1). A field that we applied and
that another client changed or removed is no longer ours. We compare ownership, not values: the API server normalizes
quantities and webhooks rewrite our requests, so values differ without drift, and applying them again changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.core.digest import DIGEST_ANNOTATION, annotated, digest
from finetune_operator.kube.resources import CONDITIONS_MANAGER, FIELD_MANAGER, Object

STATUS_MANAGERS = (FIELD_MANAGER, CONDITIONS_MANAGER)
_Path = tuple[str, ...]
GENERATION = " generation "
"""In the id of a change, between its second and the generation of the object."""
_SPEC = "f:spec"
_TEMPLATE_METADATA = (_SPEC, "f:template", "f:metadata")
"""`kubectl rollout restart` and the like write here."""


@dataclass(frozen=True)
class ForeignChange:
    """Who set a field of ours; None: it was removed, and whoever did that left no name.

    `id` tells it from the manager's next one, and stays the same until we have put it right, however often the object
    is looked at. It has the second in which the API server recorded it, and where there is one the generation, since a
    writer, we, and the writer again may take less than a second.
    """

    manager: str | None
    id: str


def with_digest(body: Object) -> Object:
    """The object with the digest of what is applied, so that an unchanged one is not applied again."""
    return annotated(body, digest(body, 16))


def is_applied(desired: Object, observed: Object | None) -> bool:
    """Whether the observed object is what `with_digest` made of the same content, with all of it still ours."""
    if observed is None:
        return False
    annotations = observed["metadata"].get("annotations", {})
    if annotations.get(DIGEST_ANNOTATION) != desired["metadata"]["annotations"][DIGEST_ANNOTATION]:
        return False
    fields = _applied_fields(observed)
    return fields is not None and not any(_lost(fields, _content(desired)))


def is_new(desired: Object, observed: Object) -> bool:
    """Whether something else was applied last. What was taken over has no digest, and is the same content."""
    applied = observed["metadata"].get("annotations", {}).get(DIGEST_ANNOTATION)
    return applied not in (None, desired["metadata"]["annotations"][DIGEST_ANNOTATION])


def drifted(desired: Object, observed: Object) -> dict[str, ForeignChange]:
    """What others changed in an applied object and is to be reverted: each field, and who set it.

    Fields are written like `spec.template.spec.containers[server].image`.
    """
    ours, theirs = _applied_fields(observed) or {}, _owners(observed)
    is_new_content, removal = is_new(desired, observed), _removal(observed)
    found: dict[str, ForeignChange] = {}
    for path in _lost(ours, _content(desired)):
        change = next((change for other, change in theirs.items() if other[: len(path)] == path), removal)
        # A field that this content is the first to have has no owner yet; take_over removes the digest itself.
        if path[-1] != f"f:{DIGEST_ANNOTATION}" and not (change.manager is None and is_new_content):
            found[_field_path(path)] = change
    found |= {_field_path(path): theirs[path] for path in _foreign(observed)}
    return {field: found[field] for field in sorted(found) if not any(_is_within(other, field) for other in found)}


def has_only_our_status(observed: Object) -> bool:
    """Whether an apply of the whole status leaves nothing else of it: no other manager owns a stored field."""
    entries = [one for one in observed["metadata"].get("managedFields", []) if one.get("subresource") == "status"]
    ours = all(one["operation"] == "Apply" and one["manager"] in STATUS_MANAGERS for one in entries)
    return ours and bool(entries or not observed.get("status"))


def take_over(observed: Object) -> Object | None:
    """A merge patch that makes ours what other hands set in the object's spec, so that the next apply removes it.

    It comes before that apply: a port, a volume or an env of ours that was changed would else stand beside the
    foreign one, and the API server refuses two ports of one name, or two sources of one volume.
    As kubectl's own move to server-side apply does (client-go, util/csaupgrade). What defaults and webhooks added is
    without owner, and stays; so do labels and annotations of a Pod template. None when there is nothing to take over.
    """
    entries, foreign = observed["metadata"].get("managedFields", []), _foreign(observed)
    if not foreign:
        return None
    kept = []
    for entry in entries if _our_entry(observed) is not None else (*entries, _new_entry(observed)):
        paths = set(_paths(entry.get("fieldsV1", {})))
        if _is_ours(entry):
            paths |= foreign
        elif entry.get("subresource") != "status":
            paths -= foreign
        if paths:
            kept.append({**entry, "fieldsV1": _tree(paths)})
    meta = {name: observed["metadata"][name] for name in ("name", "namespace", "resourceVersion")}
    # Without its digest it is applied, also when the operator dies in between.
    changes = {"managedFields": kept, "annotations": {DIGEST_ANNOTATION: None}}
    return {"apiVersion": observed["apiVersion"], "kind": observed["kind"], "metadata": {**meta, **changes}}


def is_disowned(observed: Object) -> bool:
    """Whether no field has an owner: a write of `managedFields: [{}]` leaves an object so."""
    return all(entry.get("subresource") == "status" for entry in observed["metadata"].get("managedFields", []))


def reclaimed(desired: Object) -> Object:
    """What is applied to an object that is disowned, before all of it: so that every field has an owner again.

    With the first apply the API server gives all that is there to the manager "before-first-apply", and what is foreign
    can be taken over. At once, the object might be refused with it: a changed port, say, has the name of ours.
    """
    identity = {name: value for name, value in desired["metadata"].items() if name != "annotations"}
    return {"apiVersion": desired["apiVersion"], "kind": desired["kind"], "metadata": identity}


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return (entry.get("manager"), entry.get("operation")) == (FIELD_MANAGER, "Apply") and "subresource" not in entry


def _new_entry(observed: Object) -> Mapping[str, Any]:
    """An entry of ours for an object that has lost it."""
    whose = {"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": observed["apiVersion"]}
    return {**whose, "fieldsType": "FieldsV1", "fieldsV1": {}}


def _our_entry(observed: Object) -> Mapping[str, Any] | None:
    """Our entry in managedFields; None if it is gone (a write of `managedFields: [{}]` removes all entries)."""
    return next((entry for entry in observed["metadata"].get("managedFields", []) if _is_ours(entry)), None)


def _applied_fields(observed: Object) -> Mapping[str, Any] | None:
    entry = _our_entry(observed)
    return None if entry is None else entry.get("fieldsV1", {})


def _removal(observed: Object) -> ForeignChange:
    """Whoever removes a field leaves no trace, but the time of our entry changes each time that we restore it."""
    entry, meta = _our_entry(observed), observed["metadata"]
    if entry is None:
        return ForeignChange(None, f"version {meta.get('resourceVersion')}")
    return ForeignChange(None, f"after {entry.get('time')}{_generation(observed)}")


def _owners(observed: Object) -> dict[_Path, ForeignChange]:
    """Who else set fields of the object, except in its status."""
    return {
        path: _setting(observed, entry)
        for entry in observed["metadata"].get("managedFields", [])
        if not _is_ours(entry) and entry.get("subresource") != "status"
        for path in _paths(entry.get("fieldsV1", {}))
    }


def _setting(observed: Object, entry: Mapping[str, Any]) -> ForeignChange:
    """What the entry of another manager stands for. That of a subresource may have no time."""
    manager, time = str(entry.get("manager")), entry.get("time")
    moment = f"{time}{_generation(observed)}" if time else _removal(observed).id
    return ForeignChange(manager, f"{manager} {moment}")


def _generation(observed: Object) -> str:
    """The API server counts the changes of a Deployment's spec; a Service and a ConfigMap have no such number."""
    generation = observed["metadata"].get("generation")
    return "" if generation is None else f"{GENERATION}{generation}"


def _foreign(observed: Object) -> set[_Path]:
    """What others set in the spec and we did not, except labels and annotations of a Pod template."""
    ours = set(_paths(_applied_fields(observed) or {}))
    return {
        path
        for path in _owners(observed)
        if path[0] == _SPEC and path[: len(_TEMPLATE_METADATA)] != _TEMPLATE_METADATA and path not in ours
    }


def _content(desired: Object) -> Object:
    """The parts of an applied object that managedFields covers."""
    meta = {name: value for name, value in desired["metadata"].items() if name not in ("name", "namespace")}
    return {**{name: value for name, value in desired.items() if name not in ("apiVersion", "kind")}, "metadata": meta}


def _lost(tree: Mapping[str, Any], value: Any, path: _Path = ()) -> Iterator[_Path]:
    """The parts of an applied value that are not in a FieldsV1 tree; of an atomic one the tree has no members."""
    if not tree or set(tree) == {"."}:
        if _has_named_items(value):
            yield path or (_SPEC,)
    elif isinstance(value, dict):
        for name, item in value.items():
            key = f"f:{name}"
            if key in tree:
                yield from _lost(tree[key], item, (*path, key))
            elif not _is_empty(item):
                yield (*path, key)
    elif isinstance(value, list):
        for item in value:
            found = [list(_lost(sub, item, (*path, key))) for key, sub in tree.items() if _is_key_of(key, item)]
            yield from min(found, key=len, default=[(*path, _key_of(item))])


def _has_named_items(value: Any) -> bool:
    """Whether a list of containers, volumes, ports or the like is in it: the tree of such a value always has members.

    Who may write the object may write managedFields too: `f:spec: {}` alone would stand for all of it.
    """
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    named = isinstance(value, list) and any(isinstance(item, dict) and "name" in item for item in value)
    return named or any(_has_named_items(item) for item in items)


def _is_empty(value: Any) -> bool:
    """Whether it leaves no trace in managedFields."""
    return value is None or value == []


def _key_of(item: Any) -> str:
    """The key that a list item without an owner would have in it."""
    name = item.get("name") if isinstance(item, dict) else item
    return f"v:{json.dumps(name)}"


def _is_key_of(key: str, item: Any) -> bool:
    """Whether this is the entry of a list's item; the API server's defaults may be part of the key."""
    kind, _, text = key.partition(":")
    if kind == "k" and isinstance(item, dict):
        return all(item.get(name, value) == value for name, value in json.loads(text).items())
    return kind == "v" and bool(json.loads(text) == item)


def _paths(tree: Mapping[str, Any], prefix: _Path = ()) -> Iterator[_Path]:
    """Every field of a FieldsV1 tree; a leaf is written as its own member "."."""
    for key, members in tree.items():
        if key == ".":
            yield (*prefix, ".")
        elif not members:
            yield (*prefix, key, ".")
        else:
            yield from _paths(members, (*prefix, key))


def _tree(paths: set[_Path]) -> Object:
    """The FieldsV1 tree of these fields."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for key in path:
            node = node.setdefault(key, {})
    return _folded(tree)


def _folded(tree: Object) -> Object:
    return {} if set(tree) == {"."} else {key: _folded(members) for key, members in tree.items()}


def _field_path(path: _Path) -> str:
    """A field's path as people write it."""
    joined = ""
    for key in path:
        kind, _, text = key.partition(":")
        if kind == "f":
            joined += f".{text}" if joined else text
        elif kind in ("k", "v"):
            value = json.loads(text)
            joined += f"[{'/'.join(map(str, value.values())) if isinstance(value, dict) else value}]"
    return joined


def _is_within(inner: str, outer: str) -> bool:
    return inner.startswith((f"{outer}.", f"{outer}["))
