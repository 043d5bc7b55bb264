"""status.sentReport: the report that the Pod sent before it ended, where that is larger than a termination message."""

from __future__ import annotations

from contextlib import suppress

from finetune_api.conditions import Reason
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.sent_report import digest_of, read_report
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.pods.observed import JobView


def whole_report(
    observed: ObservedEvaluation, job: JobView, said: EvaluationReport
) -> EvaluationReport | FailureStatus:
    """What the Pod sent before it ended, if its termination message names that; otherwise what this one says.

    A failure if it says nothing but the digest of a report that is not there any more.
    """
    for sent in (observed.status.sent_report, observed.arrived_report):
        if sent is not None and (sent.job_name, digest_of(sent.content)) == (job.name, said.sent_digest):
            with suppress(ValueError):
                return _lost_unless_scored(read_report(sent.content))
    return _lost_unless_scored(said)


def _lost_unless_scored(report: EvaluationReport) -> EvaluationReport | FailureStatus:
    if report.sent_digest is None or report.scores:
        return report
    return FailureStatus(
        reason=Reason.REPORT_UNDELIVERED,
        message=f"The Pod has sent its report ({report.sent_digest}), but the status does not have it any more.",
        suggestion="Nothing: the next try sends it again, and does not generate or pay for anything twice.",
    )
