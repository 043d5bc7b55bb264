"""How children are named, labelled, owned and found again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.base import API_VERSION
from finetune_api.crd import EVALUATION, FINE_TUNE_JOB, MODEL_DEPLOYMENT
from finetune_operator.kube import Object
from finetune_operator.references import ObjectKey

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "finetune-operator"
MANAGED_BY_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
OWNER_UID_LABEL = "finetune.dev/owner-uid"
ROLE_LABEL = "finetune.dev/role"
OWNER_ANNOTATION = "finetune.dev/owner"
DIGEST_ANNOTATION = "finetune.dev/applied-digest"

# "-train-" + 8 characters of hash + "-1023", the last index's Pod, still fit a DNS label of 63.
_NAME_PREFIX_LENGTH = 40
_OWNER_KINDS = frozenset({FINE_TUNE_JOB.name, EVALUATION.name, MODEL_DEPLOYMENT.name})
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True)
class Owner:
    """The parent of a child."""

    kind: str
    namespace: str
    name: str
    uid: str

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.kind, self.namespace, self.name)


def owner_of(parent: Object) -> Owner:
    """The parent as an owner."""
    metadata = parent["metadata"]
    return Owner(parent["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


def child_name(owner: Owner, role: str, *identity: object) -> str:
    """A name that the same identity always gives, and another one (nearly) never: `<owner>-<role>-<hash>`."""
    text = json.dumps([owner.uid, role, *map(str, identity)])
    # The name of a Service begins with a letter; that of a parent may begin with a digit.
    letter = "j" if owner.name[0].isdigit() else ""
    prefix = (letter + owner.name)[:_NAME_PREFIX_LENGTH].replace(".", "-").rstrip("-")
    return f"{prefix}-{role}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def labels(owner: Owner, role: str) -> dict[str, str]:
    """The labels of a child and of its Pods. Never the parent's own (GitOps tools track by those)."""
    return {MANAGED_BY_LABEL: MANAGED_BY, OWNER_UID_LABEL: owner.uid, ROLE_LABEL: role}


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


def owner_key(child: Mapping[str, Any]) -> ObjectKey | None:
    """The parent that a child (or a child's Pod) names, or None for a stranger, whose annotation may say anything."""
    meta = child.get("metadata", {})
    kind, _, name = meta.get("annotations", {}).get(OWNER_ANNOTATION, "").partition("/")
    if kind not in _OWNER_KINDS or not _OBJECT_NAME.fullmatch(name):
        return None
    return ObjectKey(kind, meta.get("namespace", ""), name)


def is_controlled_by(child: Object, owner_uid: str) -> bool:
    """Whether this parent's controller reference stands on the object."""
    references = child["metadata"].get("ownerReferences", [])
    return any(reference.get("controller") and reference["uid"] == owner_uid for reference in references)


def with_digest(body: Object) -> Object:
    """The object with the digest of what is applied, so that an unchanged one is not applied again."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    meta = body["metadata"]
    return {**body, "metadata": {**meta, "annotations": {**meta["annotations"], DIGEST_ANNOTATION: digest}}}


def is_applied(desired: Object, observed: Object | None) -> bool:
    """Whether the observed object is what `with_digest` made of the same content."""
    if observed is None:
        return False
    annotations = observed["metadata"].get("annotations", {})
    applied: bool = annotations.get(DIGEST_ANNOTATION) == desired["metadata"]["annotations"][DIGEST_ANNOTATION]
    return applied
