"""Finds a FineTuneClass: the one that is named, or the default."""

from __future__ import annotations

from finetune_api.finetuneclass import DEFAULT_CLASS_ANNOTATION
from finetune_view.fields import Object
from kubectl_finetune.cluster.kubectl import Kubectl

CLASSES = "finetuneclasses.finetune.dev"


def find_class(kubectl: Kubectl, name: str) -> Object | None:
    """The class of this name; without one, the default: the newest of those that are annotated."""
    if name:
        return kubectl.get(CLASSES, name)
    defaults = [item for item in kubectl.items(CLASSES) if _is_default(item["metadata"])]
    return max(
        defaults, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]), default=None
    )


def _is_default(metadata: Object) -> bool:
    return (metadata.get("annotations") or {}).get(DEFAULT_CLASS_ANNOTATION) == "true"
