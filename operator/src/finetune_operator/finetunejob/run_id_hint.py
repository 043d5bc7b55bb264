"""What only a new spec.runId can change."""

from __future__ import annotations

from dataclasses import replace

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import Readiness, sentence

_RUN_ID_HINT = "Changing the spec requires a new runId."
_OF_THE_SPEC = frozenset(
    {
        Reason.CLASS_NOT_FOUND,
        Reason.DATASET_NOT_FOUND,
        Reason.INVALID_SPEC,
        Reason.LIMIT_EXCEEDED,
        Reason.MODEL_INVALID,
        Reason.MODEL_NOT_FOUND,
        Reason.SOURCE_NOT_ALLOWED,
    }
)
"""Reasons that a change of the spec may fix, which the API server rejects within a run."""


def with_run_id_hint(readiness: Readiness) -> Readiness:
    """Add to the message that a change of the spec requires a new runId, if such a change may help."""
    if readiness.reason not in _OF_THE_SPEC or _RUN_ID_HINT in readiness.message:
        return readiness
    return replace(readiness, message=f"{sentence(readiness.message)} {_RUN_ID_HINT}")
