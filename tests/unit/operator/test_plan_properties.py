"""What holds for every observed state: a plan never raises, its status can be stored, and its own result needs no more.

The states are drawn at random, senseless ones too: tampered statuses, Jobs of nobody, Pods that say anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, get_args

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune_api.conditions import Condition, ConditionType, KindStatus, Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_api.failure import FailureStatus
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
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_api.progress import CheckpointLedger
from finetune_operator.budgets.observed import ObservedBudget, PodTime
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.core.plan import Plan
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan as plan_evaluation
from finetune_operator.finetunejob.attempt_state import running_jobs
from finetune_operator.finetunejob.objects import preflight_job_name, train_job_name
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan as plan_job
from finetune_operator.finetunejob.stopping import is_lost
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan as plan_deployment
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator import deployment_states
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.deployment_states import (
    GATED,
    deployment_spec,
    observed_deployment,
    rolled_out,
    verdict,
)
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    SCORES,
    WAITING_FOR_MODEL,
    evaluation_job_name,
    evaluation_spec,
    observed_evaluation,
    tuned,
)
from tests.unit.operator.states import (
    CHECKPOINT,
    CLASS_NOT_FOUND,
    LINE_7,
    LOSS_NOT_FINITE,
    LOST_PEER,
    MODEL,
    NETWORK_FAILURE,
    NOW,
    OWNER,
    PREFLIGHT_REPORT,
    RESOLVED,
    RESULT,
    TRAIN_REPORT,
    job,
    job_spec,
    pod,
    resolved_class,
    told,
)

ROUNDS_TO_SETTLE = 6
"""The longest way: an attempt's success is written, what runs is ended, the next run begins, its preflight has reported
already, the attempt is made, it is seen to wait, and nothing is left to do."""

Observed = TypeVar("Observed", ObservedFineTuneJob, ObservedEvaluation, ObservedModelDeployment)
moments = st.integers(-100_000, 100_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
small = st.integers(0, 5)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def record(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`st.builds` would fill a pydantic model's aliases too."""
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


reasons = st.sampled_from([*Reason, "QuantumDecay"])
conditions = st.lists(
    record(
        Condition,
        type=st.sampled_from(ConditionType),
        status=st.sampled_from(["True", "False", "Unknown"]),
        reason=reasons,
        message=st.just("as an earlier plan wrote it"),
        observed_generation=small,
        last_transition_time=moments,
    ),
    max_size=3,
    unique_by=lambda condition: condition.type,
)
failures = maybe(record(FailureStatus, reason=reasons, message=st.text(max_size=9), pod=st.just("p"), rank=small))

# Jobs and Pods.

answers = (PREFLIGHT_REPORT, TRAIN_REPORT, EVALUATION_REPORT, LINE_7, LOSS_NOT_FINITE, NETWORK_FAILURE, LOST_PEER)
messages = st.sampled_from([told(answer) for answer in answers]) | st.sampled_from(
    ["", "Segmentation fault", "{}", "7"]
)


def jobs_named(names: list[str]) -> st.SearchStrategy[tuple[JobView, ...]]:
    job_views = st.builds(
        job,
        st.sampled_from(names),
        st.sampled_from(["Active", "Complete", "Failed"]),
        message=st.sampled_from(["", "x" * 5000]),
        created=moments,
        deleting=st.booleans(),
        suspended=st.booleans(),
        started=maybe(moments),
        ending=st.booleans(),
        reason=st.sampled_from(["", "PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded"]),
        queue_name=st.sampled_from([None, "gpus"]),
        parallelism=st.integers(0, 3),
    )
    return st.lists(job_views, max_size=6, unique_by=lambda view: view.name).map(tuple)


def pods_named(names: list[str]) -> st.SearchStrategy[tuple[PodView, ...]]:
    pod_views = st.builds(
        pod,
        st.sampled_from(names),
        st.integers(0, 2),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        exit_code=st.sampled_from([None, 0, 1, 137, 143]),
        message=messages,
        oom_killed=st.booleans(),
        disrupted=st.booleans(),
        disruption=st.sampled_from(["", "PreemptionByScheduler: for another", ": ", "z" * 5000]),
        waiting_reason=st.sampled_from(["", "CreateContainerConfigError", "ErrImagePull", "CrashLoopBackOff"]),
        waiting_foreign=st.sampled_from(["", "istio-proxy"]),
        waiting_message=st.sampled_from(["", 'secret "s3" not found', "y" * 5000]),
        unschedulable_since=maybe(moments),
        scheduled_time=maybe(moments),
        started_time=maybe(moments),
        ended_time=maybe(moments),
        deletion_time=maybe(moments),
    )
    return st.lists(pod_views, max_size=5).map(tuple)


platforms = st.just(CLASS_NOT_FOUND) | st.builds(
    resolved_class,
    limits=st.fixed_dictionaries(
        {},
        optional={
            "nodes": st.integers(1, 3),
            "activeDeadlineSeconds": st.integers(1, 10**5),
            "acceleratorHoursPerMonth": st.integers(0, 2),
        },
    ),
    accelerator=st.sampled_from([None, {}, {"memory": "80Gi"}]),
    sources=st.sampled_from([{}, {"models": []}, {"datasets": ["s3://other/*"]}]),
    scheduling=st.sampled_from([{}, {"queueName": "gpus"}]),
)

# FineTuneJob.

JOB_NAMES = [
    *(preflight_job_name(OWNER, run, number) for run in "12" for number in (1, 2)),
    *(train_job_name(OWNER, run, number) for run in "12" for number in (1, 2)),
    "job-of-nobody",
]
job_specs = st.builds(
    job_spec,
    runId=st.sampled_from(["1", "2"]),
    suspend=st.booleans(),
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
    platform=platforms,
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
    ledger=maybe(
        record(
            CheckpointLedger,
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

# Evaluation.

EVALUATION_NAMES = [evaluation_job_name(), evaluation_job_name(number=2), evaluation_job_name("sha256:bb"), "nobodys"]
evaluation_statuses = record(
    EvaluationStatus,
    phase=maybe(st.sampled_from(["Waiting", "Evaluating", "Passed", "GateFailed", "Inconclusive", "Failed"])),
    run_id=st.sampled_from([None, "1", "2"]),
    conditions=conditions,
    job_name=maybe(st.sampled_from(EVALUATION_NAMES)),
    try_number=maybe(small),
    retry_time=maybe(moments),
    completion_time=maybe(moments),
    candidate_digests=st.sampled_from([{}, {"tuned": "sha256:aa"}, {"other": "sha256:aa"}]),
    results=st.sampled_from([[], SCORES]),
    failure=failures,
)
NO_JOB = stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'router' does not exist.")
MODELS: list[ResolvedModel | Readiness] = [tuned(), tuned("sha256:bb"), WAITING_FOR_MODEL, NO_JOB]
models = st.sampled_from(MODELS)
observed_evaluations = st.builds(
    observed_evaluation,
    evaluation_statuses,
    spec=st.builds(
        evaluation_spec,
        runId=st.sampled_from(["1", "2"]),
        gates=st.sampled_from([[], [{"grader": "exact", "minimum": 0.9}], [{"grader": "exact", "minimumDelta": 0.1}]]),
    ),
    model=models,
    platform=platforms,
    jobs=jobs_named(EVALUATION_NAMES),
    pods=pods_named(EVALUATION_NAMES),
    baseline=maybe(models),
)

# ModelDeployment.

gates = st.sampled_from(
    [
        None,
        verdict(None),
        verdict(True),
        verdict(False),
        verdict(True, digest="sha256:bb"),
        progressing(Reason.WAITING_FOR_GATE),
    ]
)
replica_counts = st.fixed_dictionaries(
    {}, optional={name: small for name in ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas")}
)
deployment_statuses = record(
    ModelDeploymentStatus,
    phase=maybe(st.sampled_from(["Waiting", "RollingOut", "Available", "Blocked"])),
    conditions=conditions,
    replicas=small,
    ready_replicas=small,
)


@st.composite
def observed_deployments(draw: st.DrawFn) -> ObservedModelDeployment:
    """Any status upon what an earlier model's rollout, or none, left."""
    gate = draw(gates)
    gated = GATED if gate is not None else {}
    fresh = observed_deployment(
        draw(deployment_statuses),
        spec=deployment_spec(replicas=draw(st.integers(0, 9)), **gated),
        model=draw(models),
        platform=draw(platforms),
        gate=gate,
        pods=draw(pods_named(["router"])),
    )
    if draw(st.booleans()):
        return fresh
    earlier = observed_deployment(spec=deployment_spec(replicas=draw(st.integers(0, 9))), model=draw(models))
    serving = deployment_states.after(earlier, plan_deployment(earlier, NOW))
    deployment = serving.deployment and rolled_out(serving.deployment, **draw(replica_counts))
    config_maps = [item["metadata"]["name"] for item in serving.config_maps]
    pods = tuple(
        replace(one, run_config=draw(st.sampled_from(["", *config_maps])), ready=draw(st.booleans()))
        for one in fresh.pods
    )
    return replace(fresh, deployment=deployment, service=serving.service, config_maps=serving.config_maps, pods=pods)


# The properties.


def after(observed: Any, plan: Plan[Any]) -> Any:
    """The state once the writes of a plan are done: what is made is observed, what is deleted is gone."""
    gone = {child.name for child in plan.delete}
    kept = [view for view in observed.jobs if view.name not in gone]
    made = [
        job(item["metadata"]["name"], created=NOW)
        for item in plan.create
        if item["kind"] == "Job" and all(view.name != item["metadata"]["name"] for view in kept)
    ]
    return replace(observed, status=plan.status, jobs=(*kept, *made))


def names_of(plan: Plan[Any]) -> set[tuple[str, str]]:
    return {(item["kind"], item["metadata"]["name"]) for item in [*plan.create, *plan.apply]}


def assert_settles(
    observed: Observed, plan: Callable[[Observed, Any], Plan[Any]], then: Callable[[Observed, Any], Observed]
) -> None:
    """Within a few rounds there is nothing left to write, no object is made twice, and none is made and deleted."""
    made: set[tuple[str, str]] = set()
    for _ in range(ROUNDS_TO_SETTLE):
        decided = plan(observed, NOW)
        assert_storable(decided.status)
        assert not names_of(decided) & made
        # Nothing may ever be heard of what was made: it is looked at again.
        assert decided.requeue_at is not None or not names_of(decided)
        made |= names_of(decided)
        assert not {(child.resource.kind, child.name) for child in decided.delete} & made
        if is_empty(decided, observed.status):
            return
        observed = then(observed, decided)
    raise AssertionError(f"still writes after {ROUNDS_TO_SETTLE} rounds: {decided}")


def is_empty(plan: Plan[Any], before: KindStatus) -> bool:
    return not (plan.create or plan.apply or plan.merge or plan.delete or plan.events) and plan.status == before


@settings(max_examples=100)
@given(observed_jobs)
def test_finetunejob(observed: ObservedFineTuneJob) -> None:
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
            view.ended or is_lost(view, NOW) or (crashed_before and view.job_name == name) for view in observed.pods
        )


@settings(max_examples=100)
@given(observed_jobs)
def test_the_conditions_are_always_complete(observed: ObservedFineTuneJob) -> None:
    """But for those of a finished run, which stay as they are."""
    decided = plan_job(observed, NOW)
    is_old = observed.status.phase in ("Succeeded", "Failed") and decided.status.run_id == observed.status.run_id
    kinds = [condition.type for condition in decided.status.conditions]
    over = [ConditionType.FAILED] if decided.status.phase == "Failed" else []
    assert is_old or kinds == [ConditionType.READY, ConditionType.STALLED, *over]


def is_failed(status: KindStatus) -> bool:
    return any(one.type == ConditionType.FAILED and one.status == "True" for one in status.conditions)


@settings(max_examples=100)
@given(observed_jobs, observed_evaluations)
def test_the_condition_failed_says_what_the_phase_says(job: ObservedFineTuneJob, judged: ObservedEvaluation) -> None:
    """Whatever the conditions said before: another version may have written them."""
    after_job = plan_job(job, NOW).status
    assert is_failed(after_job) is (after_job.phase == "Failed")
    after_evaluation = plan_evaluation(judged, NOW).status
    assert is_failed(after_evaluation) is (after_evaluation.phase == "Failed")


@settings(max_examples=100)
@given(observed_jobs)
def test_no_end_of_an_attempt_is_deleted_before_it_is_written_down(observed: ObservedFineTuneJob) -> None:
    assume(observed.status.run_id is not None)
    decided = plan_job(observed, NOW)
    gone = {child.name for child in decided.delete if child.resource.kind == "Job"}
    assert not gone & running_jobs(observed.status)


@settings(max_examples=100)
@given(observed_evaluations)
def test_evaluation(observed: ObservedEvaluation) -> None:
    assert_settles(observed, plan_evaluation, after)


@settings(max_examples=100)
@given(observed_deployments())
def test_modeldeployment(observed: ObservedModelDeployment) -> None:
    assert_settles(observed, plan_deployment, deployment_states.after)


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


@settings(max_examples=50)
@given(observed_deployments())
def test_nothing_is_served_that_its_evaluation_did_not_pass(observed: ObservedModelDeployment) -> None:
    gated = replace(observed, spec=deployment_spec(**GATED), gate=verdict(False))
    assert plan_deployment(gated, NOW).apply == ()
