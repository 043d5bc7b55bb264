"""What holds for every observed FineTuneJob: no plan raises, its status can be stored, its own result needs no more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import get_args

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import (
    AttemptOutcome,
    AttemptState,
    AttemptStatus,
    CorruptCheckpoint,
    EndedAttempt,
    EndedRun,
    FineTuneJobStatus,
    Phase,
    PreflightStatus,
    Progress,
    Usage,
)
from finetune_api.lifecycle import KindStatus
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_operator.budgets.observed import ObservedBudget, PodTime
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan as plan_evaluation
from finetune_operator.finetunejob.attempt_state import running_jobs
from finetune_operator.finetunejob.objects import preflight_pod_name, train_job_name
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan as plan_job
from finetune_operator.pods.observed import is_lost
from finetune_operator.pods.warning_events import WarningEvent
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.properties.drawn_states import (
    after,
    assert_settles,
    conditions,
    failures,
    jobs_named,
    maybe,
    moments,
    observed_evaluations,
    platforms,
    pods_named,
    reasons,
    record,
    small,
)
from tests.unit.operator.states import (
    CHECKPOINT,
    MODEL,
    NOW,
    OWNER,
    RESOLVED,
    RESULT,
    job_spec,
)

# FineTuneJob.


JOB_NAMES = [
    *(preflight_pod_name(OWNER, run, number) for run in "12" for number in (1, 2)),
    *(train_job_name(OWNER, run, number) for run in "12" for number in (1, 2)),
    "job-of-nobody",
]
job_specs = st.builds(
    job_spec,
    runId=st.sampled_from(["1", "2"]),
    suspend=st.booleans(),
    cancel=st.booleans(),
    parallelism=st.fixed_dictionaries({"nodes": st.integers(1, 3)}),
    retryLimit=small,
    activeDeadlineSeconds=maybe(st.sampled_from([1, 1000, 315_360_000])),
    ttlSecondsAfterFinished=maybe(st.sampled_from([0, 1000, 315_360_000])),
)
progress_reports = record(
    Progress, step=small, total_steps=st.just(5), percent=st.just(40), loss=st.just(0.5), last_updated_time=moments
)
preflights = record(
    PreflightStatus,
    try_number=small,
    job_name=st.sampled_from(JOB_NAMES),
    succeeded=maybe(st.booleans()),
    retry_time=maybe(moments),
)
attempts = record(
    AttemptStatus,
    number=small,
    job_name=st.sampled_from(JOB_NAMES),
    class_generation=small,
    retries=small,
    disruptions=small,
    state=maybe(st.sampled_from(get_args(AttemptState))),
    start_time=moments,
    pods_start_time=maybe(moments),
    class_deadline_seconds=maybe(st.sampled_from([1, 1000, 315_360_000])),
    next_time=maybe(moments),
)
ended_attempts = record(
    EndedAttempt,
    number=small,
    outcome=st.sampled_from(get_args(AttemptOutcome)),
    reason=maybe(reasons),
    message=maybe(st.just("what happened")),
    start_time=moments,
    end_time=moments,
    step=maybe(small),
)
ended_runs = record(
    EndedRun,
    run_id=st.sampled_from(["0", "1", "2"]),
    phase=st.sampled_from(get_args(Phase)),
    reason=reasons,
    completion_time=moments,
)
usages = record(
    Usage,
    month=st.sampled_from(["2026-10", "2026-11"]),
    class_name=st.just("cpu"),
    accelerator_seconds=small,
    counted_time=moments,
)
corrupt_checkpoints = st.lists(record(CorruptCheckpoint, step=small, message=st.just("short")), max_size=20)
save_seconds = maybe(st.floats(0, 1e6))
job_statuses = record(
    FineTuneJobStatus,
    phase=maybe(st.sampled_from(get_args(Phase))),
    run_id=st.sampled_from([None, "1", "2"]),
    class_name=st.sampled_from([None, "cpu"]),
    conditions=conditions,
    suspend_time=maybe(moments),
    suspended_seconds=small,
    start_time=maybe(moments),
    completion_time=maybe(moments),
    preflight=maybe(preflights),
    model=maybe(st.just(MODEL)),
    resolved=maybe(st.just(RESOLVED)),
    attempt=maybe(attempts),
    progress=maybe(progress_reports),
    checkpoints=st.sampled_from([[], [CHECKPOINT], [CHECKPOINT] * 100]),
    corrupt_checkpoints=corrupt_checkpoints,
    checkpoint_seconds=save_seconds,
    ended_attempts=st.lists(ended_attempts, max_size=10),
    history=st.lists(ended_runs, max_size=10),
    usage=maybe(usages),
    result=maybe(st.just(RESULT)),
    failure=failures,
)
observed_jobs = st.builds(
    ObservedFineTuneJob,
    owner=st.just(OWNER),
    generation=small,
    spec=job_specs,
    status=job_statuses,
    class_=platforms,
    jobs=jobs_named(JOB_NAMES),
    pods=pods_named(JOB_NAMES),
    warnings=st.lists(
        st.builds(
            WarningEvent,
            st.sampled_from([f"uid-of-{name}" for name in JOB_NAMES]),
            st.sampled_from(["FailedCreate", "FailedMount"]),
            st.sampled_from(["exceeded quota: gpus", 'secret "s3" not found', "y" * 5000]),
            moments,
        ),
        max_size=2,
    ).map(tuple),
    progress=maybe(progress_reports),
    checkpoint_report=maybe(
        record(
            CheckpointReport,
            checkpoints=st.sampled_from([[], [CHECKPOINT], [CHECKPOINT] * 100]),
            corrupt=corrupt_checkpoints,
            checkpoint_seconds=save_seconds,
        )
    ),
    budget=maybe(
        st.builds(
            ObservedBudget,
            ledger_namespace=st.just("finetune-system"),
            pods=st.lists(
                st.builds(PodTime, st.integers(1, 16), moments, maybe(moments), st.booleans()), max_size=2
            ).map(tuple),
            month=st.just("2026-11"),
            class_name=st.just("cpu"),
            ledger=maybe(st.dictionaries(st.sampled_from([OWNER.uid, "another"]), st.integers(0, 10_000))),
        )
    ),
    progress_endpoint=maybe(st.just(ProgressEndpoint("https://finetune.svc:8443", "PEM"))),
)


# The properties.


@settings(max_examples=100)
@given(observed_jobs)
def test_plans_of_a_finetunejob_settle(observed: ObservedFineTuneJob) -> None:
    assert_settles(observed, plan_job, after)


@settings(max_examples=100)
@given(observed_jobs)
def test_an_attempt_is_made_only_where_nothing_else_runs(observed: ObservedFineTuneJob) -> None:
    decided = plan_job(observed, NOW)
    made = [item["metadata"]["name"] for item in decided.create if item["kind"] == "Job"]
    assert len(made) <= 1
    if made:
        (name,) = made
        assert [view.name for view in observed.jobs if view.state == "Active" and not view.deleting] in ([], [name])
        crashed_before = observed.job(name) is not None
        assert all(
            view.is_terminal or is_lost(view, NOW) or (crashed_before and view.job_name == name)
            for view in observed.pods
        )


@settings(max_examples=100)
@given(observed_jobs)
def test_the_conditions_are_always_complete(observed: ObservedFineTuneJob) -> None:
    """But for those of a finished run, which stay as they are."""
    decided = plan_job(observed, NOW)
    was_over = observed.status.phase in ("Succeeded", *ENDED_UNSUCCESSFULLY)
    is_old = was_over and decided.status.run_id == observed.status.run_id
    kinds = [condition.type for condition in decided.status.conditions]
    over = [ConditionType.FAILED] if decided.status.phase in ENDED_UNSUCCESSFULLY else []
    assert is_old or kinds == [ConditionType.READY, ConditionType.STALLED, *over]


def is_failed(status: KindStatus) -> bool:
    return any(one.type == ConditionType.FAILED and one.status == "True" for one in status.conditions)


@settings(max_examples=100)
@given(observed_jobs, observed_evaluations)
def test_the_condition_failed_says_what_the_phase_says(job: ObservedFineTuneJob, judged: ObservedEvaluation) -> None:
    """Whatever the conditions said before: another version may have written them."""
    after_job = plan_job(job, NOW).status
    assert is_failed(after_job) is (after_job.phase in ENDED_UNSUCCESSFULLY)
    after_evaluation = plan_evaluation(judged, NOW).status
    assert is_failed(after_evaluation) is (after_evaluation.phase in ENDED_UNSUCCESSFULLY)


@settings(max_examples=100)
@given(observed_jobs)
def test_no_end_of_an_attempt_is_deleted_before_it_is_written_down(observed: ObservedFineTuneJob) -> None:
    assume(observed.status.run_id is not None)
    decided = plan_job(observed, NOW)
    gone = {child.name for child in decided.delete if child.resource.kind == "Job"}
    assert not gone & running_jobs(observed.status)


@settings(max_examples=50)
@given(observed_jobs, st.integers(1, 1_000_000))
def test_a_finished_run_never_runs_again_by_itself(observed: ObservedFineTuneJob, seconds: int) -> None:
    status = observed.status.model_copy(update={"phase": "Succeeded", "run_id": observed.spec.run_id})
    later = plan_job(replace(observed, status=status), NOW + timedelta(seconds=seconds))
    assert (later.create, later.status.phase, later.status.result) == ((), "Succeeded", status.result)


@settings(max_examples=50)
@given(observed_jobs)
def test_a_suspended_job_makes_nothing(observed: ObservedFineTuneJob) -> None:
    spec = observed.spec.model_copy(update={"suspend": True})
    assert plan_job(replace(observed, spec=spec), NOW).create == ()
