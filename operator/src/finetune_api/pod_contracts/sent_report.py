"""The whole report of an evaluation, which does not fit into a termination message.

The Pod sends it to the operator until that has stored it in the status, and then ends with its digest in the
termination message. Only a report with that digest counts, and only once the Pod has succeeded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pydantic import ValidationError

from finetune_api.base import REPORT, ApiModel
from finetune_api.evaluation import SENT_REPORT_BYTES
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.termination_message import without_last_slice

STATUS_BYTES = 256 * 1024
"""Of everything that a report adds to a status, so that etcd takes it and the operator can hold many of them."""
SENT_REPORT_PATH = "/report"
"""Below the URL for progress."""


class SentReportAnswer(ApiModel):
    """The answer of the operator to a Pod that sends its report."""

    stored: bool
    """Whether the status has it. Otherwise the Pod sends it again."""


def write_report(report: EvaluationReport) -> str:
    """The report as it is sent."""
    return report.model_dump_json(by_alias=True, exclude_none=True)


def read_report(content: str | bytes) -> EvaluationReport:
    """The report in what was sent; fields of newer senders are left out. Raises ValueError."""
    try:
        report = EvaluationReport.model_validate_json(content, extra="ignore", context=REPORT)
    except ValidationError as error:
        raise ValueError(f"not the report of an evaluation: {error.error_count()} errors") from error
    if len(content) > SENT_REPORT_BYTES or bytes_in_status(report) > STATUS_BYTES:
        raise ValueError("the report is too large")
    return report


def digest_of(content: str) -> str:
    """By which the termination message names what was sent."""
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def bounded(report: EvaluationReport) -> EvaluationReport:
    """The report without as many of the last slices as a status has no room for."""
    size = bytes_in_status(report)
    while size > STATUS_BYTES and report.slices:
        size -= _bytes(report.slices[-1:])
        report = without_last_slice(report)
    return report


def bytes_in_status(report: EvaluationReport) -> int:
    """How many bytes of JSON the report adds to a status."""
    lists: list[Iterable[ApiModel]] = [
        report.scores,
        report.slices,
        report.gated_slices or [],
        report.errors,
        report.usage,
        report.outputs,
        report.calibrations,
        report.safety or [],
    ]
    return sum(_bytes(items) for items in lists) + sum(len(warning.encode()) for warning in report.warnings)


def _bytes(items: Iterable[ApiModel]) -> int:
    return sum(len(item.model_dump_json(by_alias=True, exclude_none=True).encode()) + 1 for item in items)
