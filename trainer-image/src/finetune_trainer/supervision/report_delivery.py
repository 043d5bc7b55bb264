"""Sends the whole report of an evaluation to the operator, if it is too large for a termination message.

It is sent until the operator says that the status has it, so that a restart of the operator loses nothing. If the
operator can't be reached, the termination message has what fits: every score, but fewer slices and details.
"""

from __future__ import annotations

import time
from pathlib import Path

import structlog
import urllib3
from pydantic import ValidationError

from finetune_api.conditions import Reason
from finetune_api.evaluation import MOST_SCORES_IN_A_MESSAGE
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import PROGRESS_CA_PATH, PROGRESS_TOKEN_PATH, ProgressTarget
from finetune_api.pod_contracts.sent_report import SENT_REPORT_PATH, SentReportAnswer, bounded, digest_of, write_report
from finetune_api.pod_contracts.termination_message import TERMINATION_MESSAGE_BYTES
from finetune_trainer.process.failures import DiagnosedError

DELIVERY_SECONDS = 600.0
"""An operator that is upgraded or moved to another node is back long before."""
POST_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 10.0
NEVER = frozenset({400, 403, 404, 405, 413})
"""The operator, maybe an older one, will never take it."""

_log = structlog.get_logger()


def deliver(
    report: EvaluationReport,
    target: ProgressTarget | None,
    *,
    token: Path = Path(PROGRESS_TOKEN_PATH),
    ca: Path = Path(PROGRESS_CA_PATH),
    seconds: float = DELIVERY_SECONDS,
) -> EvaluationReport:
    """The report for the termination message: with the digest of the whole one, if the operator has that.

    Raises DiagnosedError (ReportUndelivered) if it is needed and the operator does not take it.
    """
    report = bounded(report)
    content = write_report(report)
    if len(content.encode()) <= TERMINATION_MESSAGE_BYTES:
        return report
    if target is not None and _Sender(target.url + SENT_REPORT_PATH, token, ca).send(content, seconds):
        return report.model_copy(update={"sent_digest": digest_of(content)})
    if len(report.scores) <= MOST_SCORES_IN_A_MESSAGE:
        return report
    raise DiagnosedError(
        Reason.REPORT_UNDELIVERED,
        f"The report has {len(report.scores)} scores, more than fit into a termination message, and the operator has "
        f"not taken it within {seconds:.0f} seconds. Everything that was generated and paid for is kept.",
        retryable=True,
        suggestion="Let the Pod reach the operator's port for progress (docs/reference/network-ports.md), or use fewer "
        "candidates or graders.",
    )


class _Sender:
    def __init__(self, url: str, token: Path, ca: Path) -> None:
        self._url = url
        self._token = token
        self._http = urllib3.PoolManager(ca_certs=str(ca) if ca.exists() else None, timeout=POST_SECONDS, retries=False)

    def send(self, content: str, seconds: float) -> bool:
        """Send until the operator has stored it; returns whether it has."""
        deadline, pause = time.monotonic() + seconds, 0.5
        while True:
            status, why = self._post(content)
            if status == 200 and not why:
                return True
            if status in NEVER or time.monotonic() + pause >= deadline:
                _log.warning(f"the whole report can't be sent to {self._url}: {why}.")
                return False
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    def _post(self, content: str) -> tuple[int | None, str]:
        """The answer's status, and why the report is not stored yet; empty if it is."""
        try:
            # The kubelet renews the token, so it is read each time.
            headers = {"Authorization": f"Bearer {self._token.read_text().strip()}", "Content-Type": "application/json"}
            answer = self._http.request("POST", self._url, body=content.encode(), headers=headers)
            if answer.status != 200:
                return answer.status, f"answered {answer.status}"
            stored = SentReportAnswer.model_validate_json(answer.data, extra="ignore").stored
        except (OSError, urllib3.exceptions.HTTPError, ValidationError) as error:
            return None, str(error)
        return answer.status, "" if stored else "the operator has not stored it yet"
