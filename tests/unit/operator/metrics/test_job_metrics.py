"""Metrics of jobs: what is counted follows each change, and what has ended vanishes."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from finetune_api.conditions import Condition
from finetune_api.finetunejob import AttemptOutcome, CheckpointStatus, EndedAttempt, FineTuneJobStatus, Progress, Usage
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.references import ObjectKey
from finetune_operator.metrics.job_metrics import JobMetrics
from finetune_operator.metrics.object_metrics import ObjectMetrics

NOW = datetime.now(UTC).replace(microsecond=0)
KEY = ObjectKey("FineTuneJob", "team-a", "router")
TRAINING = FineTuneJobStatus(
    phase="Training",
    progress=Progress(
        step=30,
        total_steps=100,
        percent=30,
        loss=1.5,
        tokens_per_second=800.0,
        last_updated_time=NOW - timedelta(seconds=5),
    ),
    checkpoints=[
        CheckpointStatus(step=10, uri="s3://m/10", committed_time=NOW - timedelta(seconds=600)),
        CheckpointStatus(step=20, uri="s3://m/20", committed_time=NOW - timedelta(seconds=60)),
    ],
)
QUEUED = FineTuneJobStatus(phase="Queued")
DONE = TRAINING.model_copy(update={"phase": "Succeeded"})


class ObjectView:
    """Metrics as Prometheus sees them."""

    def __init__(self) -> None:
        self.jobs, self.objects = JobMetrics(), ObjectMetrics()
        self._registry = CollectorRegistry()
        self._registry.register(self.jobs)
        self._registry.register(self.objects)

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(sample.labels.values()): sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if sample.name == f"finetune_{name}"
        }

    def names_of_jobs(self) -> set[str]:
        return {
            sample.name for family in self._registry.collect() for sample in family.samples if "name" in sample.labels
        }


def stalled(reason: str, status: str = "True") -> KindStatus:
    condition = {"type": "Stalled", "status": status, "reason": reason, "message": "", "observedGeneration": 1}
    return KindStatus(conditions=[Condition.from_wire({**condition, "lastTransitionTime": "2026-11-22T12:00:00Z"})])


def test_a_jobs_phase_is_counted_once_and_moves_with_it() -> None:
    seen = ObjectView()
    for before, after in [(FineTuneJobStatus(), QUEUED), (QUEUED, QUEUED), (QUEUED, TRAINING), (TRAINING, TRAINING)]:
        seen.jobs.written(KEY, before, after)
    seen.jobs.written(KEY._replace(name="other"), QUEUED, TRAINING)
    seen.jobs.written(KEY._replace(namespace="team-b"), QUEUED, QUEUED)
    assert seen.samples("jobs") == {("team-a", "Training"): 2, ("team-b", "Queued"): 1}
    seen.jobs.gone(KEY)
    seen.jobs.gone(KEY)
    assert seen.samples("jobs") == {("team-a", "Training"): 1, ("team-b", "Queued"): 1}


def test_a_job_that_trains_shows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", NOW.timestamp)
    seen = ObjectView()
    seen.jobs.written(KEY, QUEUED, TRAINING)
    job = ("team-a", "router")
    expected = {"job_step": 30, "job_total_steps": 100, "job_loss": 1.5, "job_tokens_per_second": 800}
    assert {name: seen.samples(name) for name in expected} == {name: {job: value} for name, value in expected.items()}
    assert seen.samples("job_eval_loss") == {}
    assert seen.samples("job_progress_age_seconds") == {job: 5}
    assert seen.samples("job_checkpoint_age_seconds") == {job: 60}


@pytest.mark.parametrize("after", [DONE, DONE.model_copy(update={"phase": "Suspended"}), None])
def test_nothing_of_a_single_job_stays_when_it_ends_or_goes(after: FineTuneJobStatus | None) -> None:
    seen = ObjectView()
    seen.jobs.written(KEY, QUEUED, TRAINING)
    if after is None:
        seen.jobs.gone(KEY)
    else:
        seen.jobs.written(KEY, TRAINING, after)
    assert seen.names_of_jobs() == set()


def test_a_job_that_reports_nothing_shows_nothing() -> None:
    seen = ObjectView()
    seen.jobs.written(
        KEY, QUEUED, FineTuneJobStatus(phase="Training", checkpoints=[CheckpointStatus(step=1, uri="s3")])
    )
    assert seen.names_of_jobs() == set()


def ended(number: int, outcome: AttemptOutcome, reason: str | None) -> EndedAttempt:
    return EndedAttempt(number=number, outcome=outcome, reason=reason, start_time=NOW, end_time=NOW)


def test_each_attempt_is_counted_once_by_outcome_and_reason() -> None:
    seen = ObjectView()
    first, second, third = ended(1, "Failed", "OutOfMemory"), ended(2, "Disrupted", None), ended(3, "Succeeded", None)
    statuses = [FineTuneJobStatus(ended_attempts=attempts) for attempts in ([first], [first], [first, second], [third])]
    # The operator starts with what is there already.
    seen.jobs.written(KEY, statuses[0], statuses[0])
    for before, after in itertools.pairwise(statuses):
        seen.jobs.written(KEY, before, after)
    seen.jobs.written(KEY, FineTuneJobStatus(), FineTuneJobStatus(ended_attempts=[first]))
    expected = {("Disrupted", ""): 1, ("Succeeded", ""): 1, ("Failed", "OutOfMemory"): 1}
    assert seen.samples("job_attempts_ended_total") == expected


def used(seconds: int, month: str = "2026-11", class_name: str = "gpu") -> FineTuneJobStatus:
    usage = Usage(month=month, class_name=class_name, accelerator_seconds=seconds, counted_time=NOW)
    return FineTuneJobStatus(usage=usage)


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        (FineTuneJobStatus(), FineTuneJobStatus(), {}),
        (used(500), used(500), {}),
        (FineTuneJobStatus(), used(40), {("team-a",): 40}),
        (used(500), used(740), {("team-a",): 240}),
        (used(500), used(40, month="2026-12"), {("team-a",): 40}),
        (used(500), used(9000, class_name="small"), {}),
    ],
)
def test_accelerator_seconds_are_what_is_new(
    before: FineTuneJobStatus, after: FineTuneJobStatus, counted: dict[tuple[str, ...], float]
) -> None:
    seen = ObjectView()
    seen.jobs.written(KEY, before, after)
    assert seen.samples("accelerator_seconds_total") == counted


def test_the_objects_of_a_kind_are_those_that_were_seen_and_are_not_gone() -> None:
    seen = ObjectView()
    other, elsewhere = KEY._replace(name="other"), KEY._replace(namespace="team-b")
    for key in (KEY, other, elsewhere):
        seen.objects.written(key, QUEUED, TRAINING)
    seen.objects.gone(KEY)
    seen.objects.gone(KEY)
    assert seen.objects.objects("FineTuneJob") == {other, elsewhere}
    assert seen.objects.objects("Evaluation") == set()


def test_stalled_objects_of_every_kind_by_their_reason() -> None:
    seen = ObjectView()
    evaluation = ObjectKey("Evaluation", "team-a", "judge")
    seen.objects.written(evaluation, KindStatus(), stalled("ClassNotFound"))
    assert seen.samples("stalled_objects") == {("Evaluation", "team-a", "ClassNotFound"): 1}
    seen.objects.written(evaluation, stalled("ClassNotFound"), stalled("Progressing", "False"))
    assert seen.samples("stalled_objects") == {}


def test_a_scrape_does_not_grow_with_finished_jobs() -> None:
    seen = ObjectView()
    for number in range(2000):
        seen.jobs.written(KEY._replace(name=f"job-{number}"), TRAINING, DONE)
    assert sum(len(family.samples) for family in seen.jobs.collect()) == 1
