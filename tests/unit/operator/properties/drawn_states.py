"""States drawn at random, senseless ones too: tampered statuses, Jobs of nobody, Pods that say anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_api.lifecycle import FailureStatus, KindStatus
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.plan import Plan
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import JobView, PodView
from tests.unit.operator.crd_schema import assert_storable
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
    CLASS_NOT_FOUND,
    LINE_7,
    LOSS_NOT_FINITE,
    LOST_PEER,
    NETWORK_FAILURE,
    NOW,
    PREFLIGHT_REPORT,
    TRAIN_REPORT,
    job,
    pod,
    resolved_class,
    told,
)

ROUNDS_TO_SETTLE = 6
"""The longest way: an attempt's success is written, what runs is ended, the next run begins, its preflight has reported
already, the attempt is made, it is seen to wait, and nothing is left to do."""
Observed = TypeVar("Observed", ObservedFineTuneJob, ObservedEvaluation, ObservedModelDeployment, ObservedDataset)
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
        start_time=maybe(moments),
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
EVALUATION_NAMES = [evaluation_job_name(), evaluation_job_name(number=2), evaluation_job_name("sha256:bb"), "nobodys"]
evaluation_statuses = record(
    EvaluationStatus,
    phase=maybe(
        st.sampled_from(
            ["Waiting", "Evaluating", "Suspended", "Passed", "GateFailed", "Inconclusive", "Failed", "Cancelled"]
        )
    ),
    run_id=st.sampled_from([None, "1", "2"]),
    start_time=maybe(moments),
    suspend_time=maybe(moments),
    suspended_seconds=small,
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
        suspend=st.booleans(),
        cancel=st.booleans(),
        activeDeadlineSeconds=maybe(st.sampled_from([1, 100, 10_000])),
        ttlSecondsAfterFinished=maybe(st.sampled_from([0, 100])),
        gates=st.sampled_from([[], [{"grader": "exact", "minimum": 0.9}], [{"grader": "exact", "minimumDelta": 0.1}]]),
    ),
    model=models,
    class_=platforms,
    jobs=jobs_named(EVALUATION_NAMES),
    pods=pods_named(EVALUATION_NAMES),
    baseline=maybe(models),
)


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
            assert decided.requeue_at is None or decided.requeue_at > NOW, "it would be planned again and again"
            return
        observed = then(observed, decided)
    raise AssertionError(f"still writes after {ROUNDS_TO_SETTLE} rounds: {decided}")


def is_empty(plan: Plan[Any], before: KindStatus) -> bool:
    return not (plan.create or plan.apply or plan.merge or plan.delete or plan.events) and plan.status == before
