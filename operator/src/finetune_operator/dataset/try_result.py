"""What came of a try: a revision, unless its Pod reports one that can't be its own."""

from __future__ import annotations

from datetime import datetime

from finetune_api.dataset import DatasetStatus
from finetune_api.pod_contracts.outcome import DatasetReport
from finetune_api.sources import is_below
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.pods.job_outcome import refused_report
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import Failed, Succeeded
from finetune_operator.retried_run.run import Result, retried_job


def try_result(observed: ObservedDataset, job: JobView, now: datetime) -> Result:
    """The result of a try. A report that is rejected is a final failure."""
    pods, status = observed.pods_of(job), observed.status
    retried = retried_job(DatasetReport, observed.spec)
    result = retried.result(job, pods, observed.warnings, now, seen=status.disruption, before=status.failure)
    if not isinstance(result, Succeeded):
        return result
    assert isinstance(result.report, DatasetReport), "RetriedJob asks for one"
    refusal = _refusal(status, result.report)
    return result if refusal is None else Failed(refused_report(pods, refusal), None, final=True)


def _refusal(status: DatasetStatus, report: DatasetReport) -> str | None:
    """Why the report is rejected. It must be in the folder of the status: the class may have changed since."""
    revision, asked = report.revision, [one.model for one in report.usage]
    places = [revision.uri, *(split.uri for split in revision.splits if split.uri is not None)]
    outside = next((uri for uri in places if not is_below(uri, status.storage_uri)), None)
    if outside is not None:
        return f"it names {outside}, which is not below {status.storage_uri}"
    names = [split.name for split in revision.splits]
    if "training" not in names or len(set(names)) < len(names) or any(one.uri is None for one in revision.splits):
        return "its splits are not those of a dataset"
    if sum(split.examples for split in revision.splits) != revision.examples:
        return "its splits do not add up to its examples"
    if len(set(asked)) < len(asked):
        return "it reports the usage of one model twice"
    generated = revision.generated
    if generated is not None and not revision.examples <= generated.kept <= generated.completions:
        return "it has more examples than were generated"
    return None
