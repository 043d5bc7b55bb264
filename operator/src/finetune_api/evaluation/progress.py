"""How far an evaluation is: outputs that are there, and outputs that are graded."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import MOST_EXAMPLES, ApiModel, Line, Timestamp
from finetune_api.graders import ShortName
from finetune_api.kubernetes_types import keyed_by


class CandidateProgress(ApiModel):
    """How far one model is."""

    candidate: ShortName = Field(description="Name of the candidate, or `baseline`.")
    outputs: int = Field(0, ge=0, le=MOST_EXAMPLES, description="Number of outputs generated so far.")
    graded: int = Field(0, ge=0, le=MOST_EXAMPLES, description="Number of outputs that every grader has graded.")
    total: int = Field(ge=0, le=MOST_EXAMPLES, description="Number of outputs in all.")


class EvaluationProgress(ApiModel):
    """Most recent progress report of the Pod."""

    percent: int = Field(
        description="Work that is done, in percent. Where a grader asks a model, outputs count half, and grading them "
        "the other half; otherwise grading counts one percent."
    )
    candidates: list[CandidateProgress] = Field(
        default=[], json_schema_extra=keyed_by("candidate"), description="How far each model is."
    )
    estimated_remaining_seconds: int | None = Field(
        None, description="Estimated seconds until the end, at the speed of this try."
    )
    estimated_remaining: Line | None = Field(
        None, description="The same in human-readable form, such as 42m. Absent once the run is over."
    )
    last_updated_time: Timestamp
