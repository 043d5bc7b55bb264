"""A Job of one Pod, or a Pod without one, that is retried with exponential backoff until it succeeds.

Preflight, evaluation, building a dataset and deletion run as one, and share these rules:
- its Pod's report decides, since the Job controller notices the end a second later or more;
- a disruption (eviction, preemption, a deleted Pod) is not a failure and never counts;
- an image that can't be pulled for 15 minutes, and a Job or Pod that exceeds its activeDeadlineSeconds, are final;
- a Pod without a Job that should have ended long ago, on a node that does not answer, is a disruption;
- the delay is 10 s, 20 s, ... 10 min.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Condition, Reason
from finetune_api.lifecycle import Disruption, FailureStatus
from finetune_api.pod_contracts.outcome import DatasetReport, EvaluationReport, Failure, PreflightReport, TrainReport
from finetune_operator.core.backoff import retry_delay_seconds
from finetune_operator.core.conditions import Readiness, failure_message, known_reason, progressing, sentence, stalled
from finetune_operator.kube.resources import PODS
from finetune_operator.pods.job_outcome import (
    JOB_DEADLINE_EXCEEDED,
    disrupted_pod_is_gone,
    disruption_message,
    failure,
    first_disruption,
    is_disruption,
    is_retryable,
    job_finished,
    job_succeeded,
    outcome,
    sidecar_message,
)
from finetune_operator.pods.leftovers import stuck_job_message
from finetune_operator.pods.observed import JobView, PodView, is_lost
from finetune_operator.pods.start_diagnosis import (
    StartDiagnosis,
    diagnose_start,
    early_message,
    image_pull_message,
    image_pull_timed_out,
)
from finetune_operator.pods.warning_events import WarningEvent

Report = PreflightReport | DatasetReport | EvaluationReport | TrainReport


@dataclass(frozen=True)
class Running:
    """No result yet. `start`: why the Pod does not start; `message`: what else to report about it."""

    start: StartDiagnosis | None
    message: str


@dataclass(frozen=True)
class Succeeded:
    """The Pod succeeded; `report`: None if none was expected."""

    report: Report | None


@dataclass(frozen=True)
class Disrupted:
    """The infrastructure ended it. `disruption`: as in the Pod's conditions, if there is one."""

    message: str
    disruption: Disruption | None


@dataclass(frozen=True)
class Failed:
    """It failed. `report`: the Pod's own; `final`: whether it would fail again."""

    diagnosis: FailureStatus
    report: Failure | None
    final: bool


@dataclass(frozen=True)
class RetriedJob:
    """How one kind of Job is retried.

    `accepts`: whether this is a report of success of this kind; None: it reports nothing. `retry_limit`: how many
    failures are retried; None: all. `retries_every_failure`: also those that the Pod reports as not retryable, since
    their cause may be fixed meanwhile; only an invalid spec is final then.
    """

    accepts: Callable[[Report | Failure | None], bool] | None = None
    retry_limit: int | None = None
    retries_every_failure: bool = False

    def result(
        self,
        job: JobView,
        pods: Sequence[PodView],
        warnings: Iterable[WarningEvent],
        now: datetime,
        *,
        seen: Disruption | None = None,
        before: FailureStatus | None = None,
    ) -> Running | Succeeded | Disrupted | Failed:
        """The result of the Job. `seen`: a disruption that was recorded earlier; `before`: the previous failure."""
        if job.state == "Active" and not job_finished(job, pods, now):
            if job.deleting and job.foreign_finalizers:
                return Disrupted(stuck_job_message(job), None)
            if job.resource == PODS and (lost := next((pod for pod in pods if is_lost(pod, now)), None)) is not None:
                return Disrupted(f"Pod {lost.name} was deleted, and its node does not report its end.", None)
            if job.deadline is not None and now >= job.deadline:
                return Failed(failure(pods, "", JOB_DEADLINE_EXCEEDED), None, final=True)
            start = diagnose_start(job, pods, warnings, now)
            if start is not None and image_pull_timed_out(start, now):
                return Failed(FailureStatus(reason=start.reason, message=image_pull_message(start)), None, final=True)
            return Running(start, early_message(job, pods, warnings, now) + sidecar_message(pods))
        report = outcome(pods)
        if job_succeeded(job, pods, now) and (self.accepts is None or self.accepts(report)):
            return Succeeded(None if isinstance(report, Failure) else report)
        reported = report if isinstance(report, Failure) else None
        diagnosis = failure(pods, job.message, job.reason)
        if job.reason == JOB_DEADLINE_EXCEEDED:
            # The Job controller itself deletes the Pods, which looks like a disruption; another try would take as long.
            return Failed(diagnosis, reported, final=True)
        taken = seen if disrupted_pod_is_gone(seen, pods) else None
        if taken is not None or is_disruption(pods, job.parallelism):
            return Disrupted(disruption_message(pods, taken), first_disruption(pods) or taken)
        return Failed(diagnosis, reported, self._is_final(diagnosis, reported, before))

    def allows_another(self, failures: int) -> bool:
        """Whether a Job that has failed so many times is retried."""
        return self.retry_limit is None or failures <= self.retry_limit

    def next_time(self, number: int, ended: datetime) -> datetime:
        """When it is made again; `number`: how many times it was made, or failed, until it `ended`."""
        return whole_seconds(ended) + timedelta(seconds=retry_delay_seconds(number))

    def _is_final(self, diagnosis: FailureStatus, reported: Failure | None, before: FailureStatus | None) -> bool:
        if self.retries_every_failure:
            return reported is not None and not reported.retryable and diagnosis.reason == Reason.INVALID_SPEC
        return not is_retryable(diagnosis, reported, [before.reason] if before is not None else [])


PASSING = frozenset(
    {
        Reason.STORAGE_UNREACHABLE,
        Reason.HUB_UNREACHABLE,
        Reason.ENDPOINT_UNREACHABLE,
        Reason.GRADER_FAILED,
        Reason.REPORT_UNDELIVERED,
    }
)
"""Failures that usually pass by themselves; if one lasts, the run ends with it after the last try."""


def retry_readiness(
    working: Reason, diagnosis: FailureStatus | None, time: datetime | None, *, is_bounded: bool = False
) -> Readiness:
    """The readiness during a retry: the diagnosis of the previous failure; `time`: when the retry starts, if later.

    `is_bounded`: there is a last try, so a failure that may pass by itself is not Stalled before it.
    """
    if diagnosis is None:
        return progressing(working)
    next_try = f"The next try starts at {time:%H:%M:%S} UTC." if time else "The next try has started."
    return _of_failure(diagnosis, f"{failure_message(diagnosis)} {next_try}", is_bounded=is_bounded)


def waiting_to_retry(
    working: Reason, failure: FailureStatus | None, time: datetime | None, before: Iterable[Condition]
) -> Readiness:
    """The readiness before a retry: the diagnosis of the failure, or what interrupted the last try.

    `before`: the conditions so far.
    """
    if failure is not None:
        return retry_readiness(working, failure, time, is_bounded=True)
    retrying = next((item for item in before if item.reason == Reason.RETRYING), None)
    return progressing(Reason.RETRYING, retrying.message if retrying else "The last try was disrupted.")


def retry_limit_message(what: str, failures: int, limit: int, last: FailureStatus) -> str:
    """That no other try follows. `what` failed."""
    return (
        f"{what} failed {failures} times, more often than retryLimit {limit} allows. "
        f"Last failure: {last.reason}: {sentence(failure_message(last))}"
    )


def _of_failure(diagnosis: FailureStatus, message: str, *, is_bounded: bool) -> Readiness:
    reason = known_reason(diagnosis.reason)
    return progressing(reason, message) if is_bounded and reason in PASSING else stalled(reason, message)


def with_previous_failure(readiness: Readiness, before: FailureStatus | None, *, is_bounded: bool = False) -> Readiness:
    """The readiness of a blocked retry, with the failure `before` it in the message.

    Its reason stays that of the failure while it only has to wait (for a node, a quota, Pods that end).
    """
    if before is None or failure_message(before) in readiness.message:
        return readiness
    if readiness.stalled:
        reported = f"{sentence(readiness.message)} The previous try failed: {before.reason}: {failure_message(before)}"
        return replace(readiness, message=reported)
    message = f"{failure_message(before)} The next try has not started yet. {readiness.message}"
    return _of_failure(before, message, is_bounded=is_bounded)
