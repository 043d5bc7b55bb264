"""status.promptsRevision: the revision of another Dataset that a run reads, whatever becomes of that."""

from __future__ import annotations

from finetune_api.dataset_reference import PinnedRevision
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.run_identity import is_same_run


def revision_to_read(observed: ObservedDataset) -> PinnedRevision | Readiness | None:
    """The prompts' revision that the run has pinned; before it begins, the one that their Dataset has. None without
    datasetRef."""
    if observed.prompts is None:
        return None
    recorded = observed.status.prompts_revision if is_same_run(observed) else None
    return recorded or observed.prompts
