"""How children are named, labelled, owned and found again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.base import API_VERSION
from finetune_api.kinds import FINE_TUNE_CLASS, FINE_TUNE_SWEEP
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.resources import Object

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "finetune-operator"
OWNER_UID_LABEL = "finetune.dev/owner-uid"
ROLE_LABEL = "finetune.dev/role"
NAME_LABEL = "finetune.dev/name"
"""The parent's name, cut to a label's length, for `kubectl logs -l`. No decision depends on it."""
OWNER_ANNOTATION = "finetune.dev/owner"

# "-train-" + 8 characters of hash + "-1023", the last index's Pod, still fit a DNS label of 63.
_NAME_PREFIX_LENGTH = 40
_HASH_LENGTH = 8
_LABEL_LENGTH = 63
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True)
class Owner:
    """The parent of a child."""

    kind: str
    namespace: str
    name: str
    uid: str
    sweep: str | None = None
    """The FineTuneSweep that made it, for one of its trials."""

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.kind, self.namespace, self.name)


def owner_of(parent: Object) -> Owner:
    """The parent as an owner."""
    metadata, by = parent["metadata"], controller(parent)
    sweep = by.name if by is not None and by.kind == FINE_TUNE_SWEEP.name else None
    return Owner(parent["kind"], metadata["namespace"], metadata["name"], metadata["uid"], sweep)


def child_name(owner: Owner, role: str, *identity: object) -> str:
    """The name of a child, `<owner>-<role>-<hash>`: the same for the same identity, and different for any other."""
    text = json.dumps([owner.uid, role, *map(str, identity)])
    # The name of a Service begins with a letter; that of a parent may begin with a digit.
    letter = "j" if owner.name[0].isdigit() else ""
    end = f"-{role}-{hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]}"
    # A role with a number in it ("evaluation-100") leaves less than the others do.
    longest = min(_NAME_PREFIX_LENGTH, _LABEL_LENGTH - len(end))
    return (letter + owner.name)[:longest].replace(".", "-").rstrip("-") + end


def labels(owner: Owner, role: str) -> dict[str, str]:
    """The labels of a child and of its Pods. Never the parent's own (GitOps tools track by those)."""
    name = owner.name[:_LABEL_LENGTH].rstrip("-.")
    return {MANAGED_BY_LABEL: MANAGED_BY, OWNER_UID_LABEL: owner.uid, ROLE_LABEL: role, NAME_LABEL: name}


def owner_selector(owner_uid: str) -> dict[str, str]:
    """Labels that select every child of a parent, and of no other parent of the same name."""
    return {MANAGED_BY_LABEL: MANAGED_BY, OWNER_UID_LABEL: owner_uid}


def metadata(owner: Owner, name: str, role: str) -> dict[str, Any]:
    """Object metadata of a child, with a controller ownerReference."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labels(owner, role),
        "annotations": {OWNER_ANNOTATION: f"{owner.kind}/{owner.name}"},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def controlled_by_class(name: str, uid: str) -> list[dict[str, Any]]:
    """The ownerReferences of a child that outlives its parent: its controller is the class, which outlives both."""
    kind = FINE_TUNE_CLASS.name
    return [{"apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid, "controller": True}]


def owner_key(child: Mapping[str, Any], kinds: Collection[str]) -> ObjectKey | None:
    """The parent, of one of these kinds, that a child (or a child's Pod) names: the object to reconcile. None if it
    names none.

    An annotation may say anything: an object without a controller, or one that another of our objects controls, is
    not a child. Whether it really is this parent's child is decided by UID when the parent is reconciled.
    """
    meta = child.get("metadata", {})
    kind, _, name = (meta.get("annotations") or {}).get(OWNER_ANNOTATION, "").partition("/")
    by = controller(child)
    if by is None or kind not in kinds or not _OBJECT_NAME.fullmatch(name):
        return None
    if by.kind in kinds and (by.kind, by.name) != (kind, name):
        return None
    return ObjectKey(kind, meta.get("namespace", ""), name)


@dataclass(frozen=True)
class Controller:
    """The controller ownerReference of an object."""

    kind: str
    name: str
    uid: str


def controller(child: Mapping[str, Any]) -> Controller | None:
    """The controller of an object; None for one that was made by hand."""
    for reference in child.get("metadata", {}).get("ownerReferences") or ():
        if reference.get("controller"):
            return Controller(reference.get("kind", ""), reference.get("name", ""), reference.get("uid", ""))
    return None


def is_controlled_by(child: Object, owner_uid: str) -> bool:
    """Whether this parent is the object's controller."""
    by = controller(child)
    return by is not None and by.uid == owner_uid
