"""Observed states for the tests of plans: small builders, each with good defaults that a test overrides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.finetunejob import (
    AttemptOutcome,
    AttemptStatus,
    CheckpointStatus,
    DatasetError,
    DatasetFindings,
    EndedAttempt,
    FileStatistics,
    FineTuneJobSpec,
    FineTuneJobStatus,
    ModelStatus,
    PreflightStatus,
    ResolvedHyperparameters,
    Result,
)
from finetune_api.lifecycle import KindStatus
from finetune_api.pod_contracts.outcome import AnyReport, Failure, PreflightReport, TrainReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import Owner
from finetune_operator.core.plan import Plan
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.objects import (
    Attempt,
    output_uri,
    preflight_pod_name,
    rendezvous_service_name,
    train_job_name,
)
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_identity import run_digest
from finetune_operator.pods.observed import JobView, PodView

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
OWNER = Owner("FineTuneJob", "team-a", "router", "0f3c2a91-5d0c-4bb1-9d2e-7a4f1c86e3d5")
CLASS_NOT_FOUND = stalled(Reason.CLASS_NOT_FOUND, "FineTuneClass 'cpu' does not exist. Create it.")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, dictionary by dictionary; None removes."""
    result = dict(base)
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


CLASS_WIRE: dict[str, Any] = {
    "images": {"trainer": "example.com/trainer:1"},
    "storage": {"bucket": "models", "credentialsSecretName": "s3-credentials"},
}
JOB_WIRE: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "dataset": {"training": {"uri": "s3://data/train.jsonl"}},
}


def class_spec(**changes: Any) -> FineTuneClassSpec:
    return FineTuneClassSpec.from_wire(merged(CLASS_WIRE, changes))


def resolved_class(**changes: Any) -> ResolvedClass:
    return ResolvedClass("cpu", 4, class_spec(**changes), "u-cpu")


def job_spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.from_wire(merged(JOB_WIRE, changes))


RUN_DIGEST = run_digest(job_spec(), 1)
RUN_KEY = f"1-{RUN_DIGEST}"
STORAGE_URI = f"s3://models/finetune/team-a/router/{RUN_KEY}-0f3c2a91"

# What Pods say at their end.

FILE = FileStatistics(examples=1500, tokens=90_000, max_tokens=120)
MODEL_SOURCE = ModelSource(uri="s3://models/base")
MODEL = ModelStatus(architecture="LlamaForCausalLM", parameters=4_500_000, context_length=512)
PREFLIGHT_REPORT = PreflightReport(dataset=DatasetFindings(format="Chat", training=FILE), model=MODEL)
RESULT = Result(
    uri=f"{STORAGE_URI}/result",
    base_model_uri="s3://models/base",
    adapter_type="LoRA",
    step=300,
    digest="sha256:aa",
    eval_loss=0.5,
)
CHECKPOINT = CheckpointStatus(step=200, uri=f"{STORAGE_URI}/checkpoints/step-000200")
TRAIN_REPORT = TrainReport(result=RESULT, checkpoints=[CHECKPOINT])
LINE_7 = Failure(
    reason=Reason.DATASET_INVALID,
    message="Line 7 of s3://data/train.jsonl: the last message must be the assistant's. Fix the line.",
    dataset=DatasetFindings(
        error_count=1,
        errors=[DatasetError(file="training", line=7, message="the last message must be the assistant's")],
    ),
)
LOSS_NOT_FINITE = Failure(
    reason=Reason.LOSS_NOT_FINITE, message="The loss became NaN at step 12. Lower hyperparameters.learningRate.", rank=0
)
NETWORK_FAILURE = Failure(
    reason=Reason.STORAGE_UNREACHABLE, message="The storage did not answer.", retryable=True, rank=0
)
LOST_PEER = Failure(reason=Reason.FAILED, message="Another process of the gang ended.", retryable=True, lost_peer=True)


def told(answer: AnyReport) -> str:
    return to_termination_message(answer)


# Jobs and Pods as the operator sees them.


def job(name: str, state: Literal["Active", "Complete", "Failed"] = "Active", **changes: Any) -> JobView:
    view = JobView(
        name=name,
        namespace=OWNER.namespace,
        uid=f"uid-of-{name}",
        state=state,
        message="",
        created=ago(60),
        deleting=False,
        role="train",
    )
    return replace(view, **changes)


def pod(job_name: str, index: int = 0, phase: str = "Running", **changes: Any) -> PodView:
    view = PodView(
        name=f"{job_name}-{index}-abcde",
        job_name=job_name,
        job_uid=f"uid-of-{job_name}",
        role="train",
        index=index,
        phase=phase,
        exit_code=None,
        message="",
        oom_killed=False,
        disrupted=False,
        waiting_reason="",
        waiting_message="",
        unschedulable_since=None,
        unschedulable_message="",
    )
    return replace(view, **changes)


def succeeded_pod(job_name: str, answer: AnyReport, index: int = 0) -> PodView:
    return pod(job_name, index, "Succeeded", exit_code=0, message=told(answer))


def failed_pod(job_name: str, answer: Failure, index: int = 0, **changes: Any) -> PodView:
    return pod(job_name, index, "Failed", exit_code=1, message=told(answer), **changes)


PREFLIGHT_1, PREFLIGHT_2 = (preflight_pod_name(OWNER, RUN_KEY, number) for number in (1, 2))
TRAIN_1, TRAIN_2 = (train_job_name(OWNER, RUN_KEY, number) for number in (1, 2))
RENDEZVOUS = rendezvous_service_name(OWNER)


# Statuses of a FineTuneJob at the stations of its life.

RESOLVED = ResolvedHyperparameters(
    epochs=2.0,
    batch_size=4,
    learning_rate=2e-4,
    schedule="Cosine",
    warmup_percent=3.0,
    weight_decay=0.0,
    max_length=128,
    packing=False,
    seed=17,
    total_steps=750,
    checkpoint_every_steps=75,
)


def job_status(**changes: Any) -> FineTuneJobStatus:
    """A run that has started and that nothing is known of."""
    status = FineTuneJobStatus(run_id="1", run_number=1, run_digest=RUN_DIGEST, start_time=ago(120), phase="Validating")
    return status.model_copy(update=changes)


def preflight_status(**changes: Any) -> PreflightStatus:
    return PreflightStatus(try_number=1, job_name=PREFLIGHT_1).model_copy(update=changes)


def attempt_status(**changes: Any) -> AttemptStatus:
    attempt = AttemptStatus(number=1, job_name=TRAIN_1, class_generation=4, start_time=ago(60))
    return attempt.model_copy(update=changes)


def ended_attempt(number: int = 1, outcome: AttemptOutcome = "Failed", **changes: Any) -> EndedAttempt:
    ended = EndedAttempt(number=number, outcome=outcome, start_time=ago(60), end_time=ago(10))
    return ended.model_copy(update=changes)


def trained_status(attempt: AttemptStatus | None = None, **changes: Any) -> FineTuneJobStatus:
    """A run whose preflight succeeded."""
    return job_status(
        **{
            "phase": "Training",
            "preflight": preflight_status(succeeded=True),
            "dataset": PREFLIGHT_REPORT.dataset,
            "model": MODEL,
            "resolved": RESOLVED,
            "attempt": attempt or attempt_status(),
            "storage_uri": STORAGE_URI,
            **changes,
        }
    )


def attempt_of(spec: FineTuneJobSpec | None = None, class_: ResolvedClass | None = None, **changes: Any) -> Attempt:
    """What the first attempt of a run is made from."""
    spec, class_ = spec or job_spec(), class_ or resolved_class()
    folder = output_uri(OWNER, spec.run_id, class_)
    attempt = Attempt(OWNER, spec, class_, MODEL_SOURCE, RESOLVED, 1, spec.run_id, folder)
    return replace(attempt, **changes)


def earlier_conditions(
    reason: Reason, message: str = "", *, ready: bool = False, stalled: bool = False
) -> list[Condition]:
    """Conditions as an earlier plan left them."""

    def condition(kind: ConditionType, holds: bool, why: Reason) -> Condition:
        return Condition(
            type=kind,
            status="True" if holds else "False",
            reason=why,
            message=message,
            observed_generation=1,
            last_transition_time=ago(300),
        )

    return [
        condition(ConditionType.READY, ready, reason),
        condition(ConditionType.STALLED, stalled, reason if stalled else Reason.PROGRESSING),
    ]


def observed_job(
    status: FineTuneJobStatus | None = None,
    *jobs: JobView,
    pods: tuple[PodView, ...] = (),
    spec: FineTuneJobSpec | None = None,
    class_: ResolvedClass | Readiness | None = None,
    **changes: Any,
) -> ObservedFineTuneJob:
    return ObservedFineTuneJob(
        owner=OWNER,
        generation=1,
        spec=spec or job_spec(),
        status=status or FineTuneJobStatus(),
        class_=class_ or resolved_class(),
        jobs=jobs,
        pods=pods,
        **changes,
    )


# What a plan decided, in words that a table can hold.


@dataclass(frozen=True)
class Decision:
    """The parts of a plan that a person would name."""

    phase: str | None
    reason: str
    stalled: bool = False
    ready: bool = False
    passed: bool | None = None
    writes: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    again_in: float | None = None
    event: str | None = None


@dataclass(frozen=True)
class Decided:
    """A decision together with the status and the message it comes with."""

    decision: Decision
    message: str
    status: Any
    plan: Plan[Any] = field(repr=False)


def decided(plan: Plan[Any], now: datetime = NOW) -> Decided:
    """Describe a plan."""
    conditions = {condition.type: condition for condition in plan.status.conditions}
    ready, stalled = conditions[ConditionType.READY], conditions[ConditionType.STALLED]
    passed = conditions.get(ConditionType.PASSED)
    written = [*plan.create, *plan.apply]
    decision = Decision(
        phase=getattr(plan.status, "phase", None),
        reason=str(ready.reason),
        stalled=stalled.status == "True",
        ready=ready.status == "True",
        passed=None if passed is None else passed.status == "True",
        writes=tuple(f"{item['kind']}/{item['metadata']['name']}" for item in written),
        deletes=tuple(f"{one.resource.kind}/{one.name}" for child in plan.delete for one in (child, *child.then)),
        again_in=None if plan.requeue_at is None else (plan.requeue_at - now).total_seconds(),
        event=" ".join(f"{note.type} {note.reason}" for note in plan.events) or None,
    )
    return Decided(decision, ready.message, plan.status, plan)


def of_job(job_name: str) -> tuple[str, ...]:
    """How the deletion of a Job reads: its run configuration is in its annotations."""
    return (f"Job/{job_name}",)


def with_config_map(job_name: str) -> tuple[str, ...]:
    """How the deletion of an Evaluation's Job reads: its run configuration goes with it."""
    return (*of_job(job_name), f"ConfigMap/{job_name}")


def template_of(workload: dict[str, Any]) -> dict[str, Any]:
    """Metadata and spec of the Pods of a Job or Deployment, or of the Pod itself."""
    template: dict[str, Any] = workload if workload["kind"] == "Pod" else workload["spec"]["template"]
    return template


def files_of(job: dict[str, Any]) -> dict[str, str]:
    """The files of a Job's or Pod's run configuration, as its Pods get them from their annotations."""
    template = template_of(job)
    (volume,) = [one["downwardAPI"] for one in template["spec"]["volumes"] if one["name"] == "run"]
    annotations = template["metadata"]["annotations"]
    return {item["path"]: annotations[item["fieldRef"]["fieldPath"].split("'")[1]] for item in volume["items"]}


def reason_of(status: KindStatus, kind: ConditionType = ConditionType.READY) -> str:
    return next(str(condition.reason) for condition in status.conditions if condition.type == kind)
