"""Kopf's watches. Their handlers only enqueue: every decision is taken later, on what is read live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kopf

from finetune_api.base import GROUP, VERSION
from finetune_api.crd import EVALUATION, FINE_TUNE_CLASS, FINE_TUNE_JOB, MODEL_DEPLOYMENT
from finetune_api.finetuneclass import DEFAULT_CLASS_ANNOTATION
from finetune_operator.children import MANAGED_BY_SELECTOR, owner_key
from finetune_operator.kube import PAGE_SIZE, REQUEST_TIMEOUT_SECONDS
from finetune_operator.references import DEFAULT_CLASS_NAME, ObjectKey, References
from finetune_operator.workqueue import WorkQueue

PARENTS = (FINE_TUNE_CLASS, FINE_TUNE_JOB, EVALUATION, MODEL_DEPLOYMENT)
CHILDREN = (("batch", "v1", "jobs"), ("", "v1", "pods"), ("apps", "v1", "deployments"))


def register(registry: kopf.OperatorRegistry, queue: WorkQueue[ObjectKey], references: References) -> None:
    """Watch our kinds, and the children that carry our label."""

    def parent_event(body: Mapping[str, Any], type: str | None, **_: Any) -> None:
        metadata = body["metadata"]
        key = ObjectKey(body["kind"], metadata.get("namespace", ""), metadata["name"])
        references.update(key, frozenset() if type == "DELETED" else referenced(body))
        queue.add(key)
        for referrer in references.referrers(key):
            queue.add(referrer)
        if key.kind == FINE_TUNE_CLASS.name and _may_be_default(body, type):
            for referrer in references.referrers(ObjectKey(FINE_TUNE_CLASS.name, "", DEFAULT_CLASS_NAME)):
                queue.add(referrer)

    def child_event(body: Mapping[str, Any], **_: Any) -> None:
        key = owner_key(body)
        if key is not None:
            queue.add(key)

    for kind in PARENTS:
        kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=f"enqueue-{kind.plural}")(parent_event)
    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, registry=registry, id=f"enqueue-{plural}")(child_event)


def settings() -> kopf.OperatorSettings:
    """Kopf's settings: no writes, no peering, server-side filters, no scanning of CRDs and namespaces."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.scanning.disabled = True
    configured.watching.chunk_size = PAGE_SIZE
    configured.networking.request_timeout = REQUEST_TIMEOUT_SECONDS
    for child in CHILDREN:
        configured.watching.label_selectors[child] = MANAGED_BY_SELECTOR
    return configured


def referenced(body: Mapping[str, Any]) -> frozenset[ObjectKey]:
    """The objects that one of our objects names in its spec."""
    kind, namespace, spec = body["kind"], body["metadata"].get("namespace", ""), body.get("spec", {})
    if kind == FINE_TUNE_CLASS.name:
        return frozenset()
    found = {ObjectKey(FINE_TUNE_CLASS.name, "", spec.get("className") or DEFAULT_CLASS_NAME)}
    models = [spec.get("model"), (spec.get("baseline") or {}).get("model")]
    models += [candidate.get("model") for candidate in spec.get("candidates") or []]
    for model in models:
        reference = (model or {}).get("fineTuneJobRef")
        if reference:
            found.add(ObjectKey(FINE_TUNE_JOB.name, namespace, reference["name"]))
    gate = (spec.get("gate") or {}).get("evaluationRef")
    if gate:
        found.add(ObjectKey(EVALUATION.name, namespace, gate["name"]))
    return frozenset(found)


def _may_be_default(body: Mapping[str, Any], type: str | None) -> bool:
    """A class that stops being the default matters too, and is seen only by its going or its change."""
    annotations = body["metadata"].get("annotations") or {}
    return type in ("DELETED", "MODIFIED") or annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"
