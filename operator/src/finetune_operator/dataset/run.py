"""What the runs of a Dataset are, for the policies in retried_run/."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_api.pod_contracts.outcome import DatasetReport
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.allowed_class import class_or_refusal
from finetune_operator.dataset.objects import build_job_name, objects_of, output_uri
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.pinned_revision import revision_to_read
from finetune_operator.dataset.run_identity import is_same_run, new_run, run_key
from finetune_operator.dataset.try_result import try_result
from finetune_operator.retried_run.run import RetriedRun


def _missing(observed: ObservedDataset) -> Readiness | None:
    prompts = revision_to_read(observed)
    return prompts if isinstance(prompts, Readiness) else None


RUN = RetriedRun[ObservedDataset, DatasetStatus](
    working=Reason.BUILDING,
    waiting=Reason.QUEUED,
    work="Building",
    outcome="a revision",
    run_again="Change spec.runId to build again.",
    is_same_run=is_same_run,
    new_run=new_run,
    class_or_refusal=class_or_refusal,
    missing=_missing,
    report=DatasetReport,
    job_name=lambda observed, status, number: build_job_name(observed.owner, run_key(status), number),
    storage_uri=lambda observed, status, class_: output_uri(observed.owner, run_key(status), class_),
    objects=objects_of,
    try_result=try_result,
)
