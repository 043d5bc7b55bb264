"""Kopf's watches. Their handlers only enqueue: every decision is taken later, on what is read live.

They are coroutines, since Kopf calls plain functions in threads, and the queue belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kopf

from finetune_api.base import GROUP, VERSION
from finetune_api.crd import EVALUATION, FINE_TUNE_CLASS, FINE_TUNE_JOB, MODEL_DEPLOYMENT
from finetune_api.finetuneclass import DEFAULT_CLASS_ANNOTATION
from finetune_operator.core.ownership import MANAGED_BY_SELECTOR, ROLE_LABEL, owner_key
from finetune_operator.core.references import DEFAULT_CLASS_NAME, ObjectKey, References
from finetune_operator.kube.client import PAGE_SIZE
from finetune_operator.kube.resources import FIELD_MANAGER
from finetune_operator.modeldeployment.objects import SERVE_ROLE
from finetune_operator.runtime.predicates import QUIET, News, news
from finetune_operator.runtime.workqueue import WorkQueue

PARENTS = (FINE_TUNE_CLASS, FINE_TUNE_JOB, EVALUATION, MODEL_DEPLOYMENT)
CHILDREN = (("batch", "v1", "jobs"), ("", "v1", "pods"), ("apps", "v1", "deployments"))
KEPT_UP = (("", "v1", "services"), ("", "v1", "configmaps"))
"""Children that matter only where a model is served: what somebody changes or deletes there is put right at once."""
WATCHED = (*(kind.plural for kind in PARENTS), *(plural for _, _, plural in (*CHILDREN, *KEPT_UP)))

CHILD_SECONDS = 0.3
"""The Job's, its Pod's and the Pod's node's events come in a burst, which is looked at once."""
END_SECONDS = 15.0
"""How long Kopf may take to end itself after an error; then it kills the process."""


def register(registry: kopf.OperatorRegistry, queue: WorkQueue[ObjectKey], references: References) -> None:
    """Watch our kinds, and the children that carry our label."""

    async def parent_event(body: Mapping[str, Any], type: str | None, **_: Any) -> None:
        metadata = body["metadata"]
        key = ObjectKey(body["kind"], metadata.get("namespace", ""), metadata["name"])
        references.update(key, frozenset() if type == "DELETED" else referenced(body))
        if not _is_echo(body, type):
            queue.add(key)
        for referrer in references.referrers(key):
            queue.add(referrer)
        if key.kind == FINE_TUNE_CLASS.name and _may_be_default(body, type):
            for referrer in references.referrers(ObjectKey(FINE_TUNE_CLASS.name, "", DEFAULT_CLASS_NAME)):
                queue.add(referrer)

    shown: dict[str, News] = {}

    async def child_event(body: Mapping[str, Any], type: str | None, **_: Any) -> None:
        key = owner_key(body)
        if key is not None and _shows_something_new(shown, body, type):
            queue.add_after(key, CHILD_SECONDS)

    for kind in PARENTS:
        kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=f"enqueue-{kind.plural}")(parent_event)
    for group, version, plural in (*CHILDREN, *KEPT_UP):
        kopf.on.event(group, version, plural, registry=registry, id=f"enqueue-{plural}")(child_event)


def settings(request_timeout_seconds: float) -> kopf.OperatorSettings:
    """Kopf's settings: no writes, no peering, server-side filters, no scanning of CRDs and namespaces."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.scanning.disabled = True
    configured.process.ultimate_exiting_timeout = END_SECONDS
    configured.persistence.diffbase_storage = _NoDiffBase()
    configured.persistence.progress_storage = _NoProgress()
    configured.watching.chunk_size = PAGE_SIZE
    configured.networking.request_timeout = request_timeout_seconds
    for child in CHILDREN:
        configured.watching.label_selectors[child] = MANAGED_BY_SELECTOR
    for child in KEPT_UP:
        configured.watching.label_selectors[child] = f"{MANAGED_BY_SELECTOR},{ROLE_LABEL}={SERVE_ROLE}"
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


def _shows_something_new(shown: dict[str, News], body: Mapping[str, Any], type: str | None) -> bool:
    """Whether a child's event is news; `shown` remembers by UID what was news before."""
    found = news(body)
    if found is None:
        return True
    uid = body["metadata"]["uid"]
    if type == "DELETED":
        shown.pop(uid, None)
        return True
    before = shown.get(uid, QUIET)
    shown[uid] = found
    return found != (QUIET if type is None else before)


def _is_echo(body: Mapping[str, Any], type: str | None) -> bool:
    """Whether a change is our own status and nothing else: what follows from it was planned when it was written."""
    metadata = body["metadata"]
    observed = (body.get("status") or {}).get("observedGeneration")
    if type != "MODIFIED" or "deletionTimestamp" in metadata or observed != metadata.get("generation"):
        return False
    times: dict[bool, str] = {}
    for entry in metadata.get("managedFields", ()):
        is_ours = (entry.get("manager"), entry.get("subresource")) == (FIELD_MANAGER, "status")
        times[is_ours] = max(times.get(is_ours, ""), entry.get("time", ""))
    # In whole seconds: within one it may be somebody else's.
    return times.get(True, "") > times.get(False, "")


def _may_be_default(body: Mapping[str, Any], type: str | None) -> bool:
    """A class that stops being the default matters too, and is seen only by its going or its change."""
    annotations = body["metadata"].get("annotations") or {}
    return type in ("DELETED", "MODIFIED") or annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"


class _NoDiffBase(kopf.DiffBaseStorage):
    """Of what Kopf's other handlers need, the essence of each object: copied several times an event, and never used."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """The same for the progress of handlers."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: Any) -> Any:
        return essence
