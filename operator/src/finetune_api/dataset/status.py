"""status of a Dataset: where its run stands, and the revision that it committed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line, Timestamp
from finetune_api.dataset.revision import Revision
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.evaluation import MOST_ASKED
from finetune_api.finetunejob import DatasetError
from finetune_api.kubernetes_types import keyed_by
from finetune_api.lifecycle import RetriedRunStatus
from finetune_api.model_usage import ModelUsage

Phase = Literal["Waiting", "Building", "Retrying", "Suspended", "Succeeded", "Failed", "Cancelled"]
MOST_ERRORS = 20
MOST_RUNS = 10


class EarlierBuild(ApiModel):
    """An earlier run of this object, whose revision stays in the storage."""

    run_id: Line = Field(description="spec.runId of that run.")
    phase: Phase = Field(description="Phase in which it ended.")
    completion_time: Timestamp
    digest: Line | None = Field(None, description="Digest of its revision.")
    uri: Line | None = Field(None, description="Folder of its revision.")


class DatasetStatus(RetriedRunStatus):
    """State of the run, and the revision that it committed."""

    phase: Phase | None = Field(None, description="Current phase of the run.")
    run_number: int | None = Field(None, description="Number of the run, counting from 1.")
    run_digest: Line | None = Field(
        None, description="Digest of the run's number and spec, which tells runs with the same runId apart."
    )
    prompts_revision: PinnedRevision | None = None
    usage: list[ModelUsage] = Field(
        default=[], max_length=MOST_ASKED, json_schema_extra=keyed_by("model"), description="What generate used."
    )
    revision: Revision | None = Field(None, description="What the run committed.")
    error_count: int = Field(0, description="All invalid lines.")
    errors: list[DatasetError] = Field(default=[], max_length=MOST_ERRORS, description="The first invalid lines.")
    history: list[EarlierBuild] = Field(default=[], max_length=MOST_RUNS, description="Earlier runs, oldest first.")
