"""Prometheus metrics of jobs, from what reconciliations found.

Objects are counted when they change, so that a scrape costs as much as there are running jobs, and not finished ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.finetunejob import FineTuneJobStatus, Usage
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.object_metrics import PhaseCounts
from finetune_operator.metrics.operator_metrics import declare

_JOB = ("namespace", "name")
_JOBS = declare("finetune_jobs", "gauge", "FineTuneJobs by phase.", ["namespace", "phase"])
_ATTEMPTS = declare(
    "finetune_job_attempts_ended_total",
    "counter",
    "Attempts that have ended, by outcome and reason (empty if there is none).",
    ["outcome", "reason"],
)
_ACCELERATOR_SECONDS = declare(
    "finetune_accelerator_seconds_total",
    "counter",
    "Accelerator seconds used by training Pods, updated once a minute while they run.",
    ["namespace"],
)
_STEP = declare("finetune_job_step", "gauge", "Current step of a training job.", _JOB)
_TOTAL_STEPS = declare("finetune_job_total_steps", "gauge", "Total number of steps of a training job's run.", _JOB)
_LOSS = declare("finetune_job_loss", "gauge", "Most recent training loss of a training job.", _JOB)
_EVAL_LOSS = declare("finetune_job_eval_loss", "gauge", "Most recent validation loss of a training job.", _JOB)
_REWARD = declare(
    "finetune_job_reward", "gauge", "Most recent mean reward of a training job by reinforcement, on its prompts.", _JOB
)
_VALID_REWARD = declare(
    "finetune_job_valid_reward", "gauge", "Most recent mean reward of such a job on its validation set.", _JOB
)
_TOKENS = declare(
    "finetune_job_tokens_per_second", "gauge", "Throughput of a training job, in tokens per second.", _JOB
)
_REMAINING = declare(
    "finetune_job_estimated_remaining_seconds", "gauge", "Estimated time until a training job ends, in seconds.", _JOB
)
_PROGRESS_AGE = declare(
    "finetune_job_progress_age_seconds", "gauge", "Time since a training job last reported progress, in seconds.", _JOB
)
_CHECKPOINT_AGE = declare(
    "finetune_job_checkpoint_age_seconds",
    "gauge",
    "Time since a training job committed its newest checkpoint, in seconds: the work that a crash would lose now.",
    _JOB,
)
_OF_PROGRESS = (
    (_STEP, "step"),
    (_TOTAL_STEPS, "total_steps"),
    (_LOSS, "loss"),
    (_EVAL_LOSS, "eval_loss"),
    (_REWARD, "reward"),
    (_VALID_REWARD, "valid_reward"),
    (_TOKENS, "tokens_per_second"),
    (_REMAINING, "estimated_remaining_seconds"),
)


class JobMetrics(Collector):
    """Counts of the jobs by phase and of their attempts, and the newest status of each job that trains."""

    def __init__(self) -> None:
        self._phases = PhaseCounts(_JOBS)
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._accelerator_seconds: Counter[str] = Counter()
        self._training: dict[ObjectKey, FineTuneJobStatus] = {}

    def written(self, key: ObjectKey, before: KindStatus, after: KindStatus) -> None:
        """A reconciliation of the job succeeded: its status was `before` and is `after`."""
        assert isinstance(before, FineTuneJobStatus)
        assert isinstance(after, FineTuneJobStatus)
        self.gone(key)
        self._phases.written(key, after.phase)
        self._count_transition(key, before, after)

    def gone(self, key: ObjectKey) -> None:
        """The job does not exist any more."""
        self._training.pop(key, None)
        self._phases.gone(key)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every family."""
        yield self._phases.gauge()
        attempts = _ATTEMPTS.counter()
        for labels, count in self._attempts.items():
            attempts.add_metric(labels, count)
        yield attempts
        seconds = _ACCELERATOR_SECONDS.counter()
        for namespace, count in self._accelerator_seconds.items():
            seconds.add_metric([namespace], count)
        yield seconds
        yield from self._of_training_jobs()

    def _of_training_jobs(self) -> Iterator[GaugeMetricFamily]:
        for declared, field in _OF_PROGRESS:
            gauge = declared.gauge()
            for key, status in self._training.items():
                value = getattr(status.progress, field, None)
                if value is not None:
                    gauge.add_metric([key.namespace, key.name], value)
            yield gauge
        now = time.time()
        progress_age, checkpoint_age = _PROGRESS_AGE.gauge(), _CHECKPOINT_AGE.gauge()
        for key, status in self._training.items():
            if status.progress is not None:
                moment = status.progress.last_updated_time.timestamp()
                progress_age.add_metric([key.namespace, key.name], max(0.0, now - moment))
            committed = status.checkpoints[-1].committed_time if status.checkpoints else None
            if committed is not None:
                checkpoint_age.add_metric([key.namespace, key.name], max(0.0, now - committed.timestamp()))
        yield progress_age
        yield checkpoint_age

    def _count_transition(self, key: ObjectKey, before: FineTuneJobStatus, after: FineTuneJobStatus) -> None:
        if after.phase == "Training":
            self._training[key] = after
        ended = {(one.number, one.start_time) for one in before.ended_attempts}
        for one in after.ended_attempts:
            if (one.number, one.start_time) not in ended:
                self._attempts[one.outcome, one.reason or ""] += 1
        used = _accelerator_seconds(before.usage, after.usage)
        if used > 0:
            self._accelerator_seconds[key.namespace] += used


def _accelerator_seconds(before: Usage | None, after: Usage | None) -> int:
    """What was counted between two statuses; what a job used of another class before is in no status any more."""
    if after is None:
        return 0
    if before is None or (before.class_name == after.class_name and before.month != after.month):
        return after.accelerator_seconds
    if before.class_name != after.class_name:
        return 0
    return after.accelerator_seconds - before.accelerator_seconds
