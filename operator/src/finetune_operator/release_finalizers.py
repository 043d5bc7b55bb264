"""Removes the operator's finalizers for good: without an operator they would block deleting CRDs and namespaces."""

from __future__ import annotations

from finetune_operator.finetunejob.deletion.plan import FINALIZER
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import FINE_TUNE_JOBS


async def release_finalizers(kube: Kube) -> list[str]:
    """Take the storage finalizer from every FineTuneJob; returns their namespace/name. Objects in the storage stay.

    An operator that runs puts them back: it must be gone. Raises ApiError.
    """
    released = []
    for job in await kube.list(FINE_TUNE_JOBS):
        metadata = job["metadata"]
        if FINALIZER in metadata.get("finalizers", ()):
            await kube.remove_finalizer(job, FINALIZER)
            released.append(f"{metadata['namespace']}/{metadata['name']}")
    return released
