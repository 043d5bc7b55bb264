"""Progress reports of rank 0 to the operator, in the protocol of transformers' KubeflowCallback.

A separate thread sends the newest report at most every PROGRESS_INTERVAL_SECONDS (finetune_api.pod_contracts.progress).
Training never waits for it, and never fails because of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog
import urllib3

from finetune_api.base import LONGEST_SECONDS
from finetune_api.evaluation import CandidateProgress
from finetune_api.pod_contracts.progress import (
    PROGRESS_INTERVAL_SECONDS,
    CheckpointReport,
    Metric,
    ProgressReport,
    TrainerStatus,
)
from finetune_api.pod_contracts.run import PROGRESS_CA_PATH, PROGRESS_TOKEN_PATH, ProgressTarget

POST_SECONDS = 5.0
LAST_POST_SECONDS = 6.0
CONNECT_TRIES = 5
"""Only the leader of the operator's replicas listens: after a refused connection, a retry soon reaches it."""
CONNECT_PAUSE_SECONDS = 0.1

_log = structlog.get_logger()


class ProgressReceiver(Protocol):
    """A receiver of progress reports."""

    def send(self, status: TrainerStatus, checkpoint_report: CheckpointReport | None = None) -> None:
        """Take a report. Must not block."""

    def close(self) -> None:
        """There will be no more reports."""


class ProgressSender:
    """Sends the newest report over HTTPS, in a thread."""

    def __init__(
        self,
        target: ProgressTarget,
        *,
        token: Path = Path(PROGRESS_TOKEN_PATH),
        ca: Path = Path(PROGRESS_CA_PATH),
        interval: float = PROGRESS_INTERVAL_SECONDS,
    ) -> None:
        self._url = target.url
        self._token = token
        self._interval = interval
        self._http = urllib3.PoolManager(ca_certs=str(ca) if ca.exists() else None, timeout=POST_SECONDS, retries=False)
        self._newest: ProgressReport | None = None
        self._checkpoint_report: CheckpointReport | None = None
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def send(
        self,
        status: TrainerStatus,
        checkpoint_report: CheckpointReport | None = None,
        candidates: list[CandidateProgress] | None = None,
    ) -> None:
        """Queue a report; an older one that has not been sent is dropped.

        Every report includes the newest checkpoint report, so that an operator that was down catches up.
        """
        self._checkpoint_report = checkpoint_report or self._checkpoint_report
        self._newest = ProgressReport(trainer_status=status, ledger=self._checkpoint_report, candidates=candidates)
        self._changed.set()

    def close(self) -> None:
        """Send the last report, for at most LAST_POST_SECONDS."""
        self._closing.set()
        self._changed.set()
        self._thread.join(LAST_POST_SECONDS)

    def _run(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            report, self._newest = self._newest, None
            if report is not None:
                self._post(report)
            if self._closing.is_set() and self._newest is None:
                return
            self._closing.wait(self._interval)

    def _post(self, report: ProgressReport) -> None:
        body = report.model_dump_json(by_alias=True, exclude_none=True)
        for left in reversed(range(CONNECT_TRIES)):
            try:
                # The kubelet renews the token, so it is read each time.
                authorization = f"Bearer {self._token.read_text().strip()}"
                headers = {"Authorization": authorization, "Content-Type": "application/json"}
                response = self._http.request("POST", self._url, body=body, headers=headers)
            except urllib3.exceptions.NewConnectionError as error:
                if left == 0:
                    self._note_failure(str(error))
                    return
                time.sleep(CONNECT_PAUSE_SECONDS)
            except (OSError, urllib3.exceptions.HTTPError) as error:
                self._note_failure(str(error))
                return
            else:
                self._note_answer(response.status)
                return

    def _note_answer(self, status: int) -> None:
        if status < 300:
            self._failing = False
        else:
            self._note_failure(f"answered {status}")

    def _note_failure(self, why: str) -> None:
        """Log the first failure after a success."""
        if not self._failing:
            _log.warning(f"progress can't be reported to {self._url}: {why}. The work continues.")
        self._failing = True


class Clock:
    """Measures speed since this process started training, so that a resumed attempt does not count earlier steps."""

    def __init__(self, step: int, tokens: int) -> None:
        self._first_step = step
        self._first_tokens = tokens
        self._since = time.monotonic()

    def remaining_seconds(self, step: int, total_steps: int) -> int | None:
        """The remaining time estimated from the speed so far; None before the end of the first step."""
        done = step - self._first_step
        if done <= 0:
            return None
        return round((time.monotonic() - self._since) / done * (total_steps - step))

    def tokens_per_second(self, tokens: int) -> float:
        """The mean since this process started training."""
        return (tokens - self._first_tokens) / max(time.monotonic() - self._since, 1e-9)


def to_trainer_status(metrics: Mapping[str, float], remaining_seconds: int | None) -> TrainerStatus:
    """A report. `metrics` has current_step and total_steps; the percentage is below 100 until every step is done.

    After a slow first step, many others seem to take longer than a report can say: that is no estimate.
    """
    is_known = remaining_seconds is not None and remaining_seconds <= LONGEST_SECONDS
    return TrainerStatus(
        progress_percentage=int(100 * metrics["current_step"] / max(metrics["total_steps"], 1)),
        estimated_remaining_seconds=remaining_seconds if is_known else None,
        metrics=[Metric(name=name, value=f"{value:.10g}") for name, value in metrics.items()],
        last_updated_time=datetime.now(UTC),
    )
