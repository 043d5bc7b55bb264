"""Reads what a retried run has in common with others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

from finetune_api.lifecycle import RetriedRunStatus
from finetune_operator.core.ownership import owner_of
from finetune_operator.environment import Environment
from finetune_operator.finetuneclass.observe import observe_class
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object
from finetune_operator.pods.observe import jobs_and_pods, observe_warnings
from finetune_operator.pods.observed import job_view, parse_time, pod_view, status_written
from finetune_operator.retried_run.observed import ObservedRun, RetriedRunSpec

Spec = TypeVar("Spec", bound=RetriedRunSpec)
Status = TypeVar("Status", bound=RetriedRunStatus)


async def observe_run(
    reader: Reader, parent: Object, spec: Spec, status: Status, environment: Environment
) -> ObservedRun[Spec, Status]:
    """Read the class, the Jobs and the Pods of an object with this spec and status."""
    owner = owner_of(parent)
    is_recorded = status.retry_time is not None or status.completion_time is not None
    running = [] if status.job_name is None or is_recorded else [status.job_name]
    is_over = status.run_id == spec.run_id and status.completion_time is not None
    # The Job of a finished run is never replaced, so it is not looked up live if it is missing.
    newest = None if is_over and spec.ttl_seconds_after_finished is None else status.job_name
    found_jobs, found_pods, disowned = await jobs_and_pods(reader, owner, newest, running=running)
    jobs, pods = [job_view(item) for item in found_jobs], [pod_view(item) for item in found_pods]
    # A run that started with the default class keeps it, even if the default has changed.
    in_flight = status.run_id == spec.run_id and status.completion_time is None
    class_name = spec.class_name or (status.class_name if in_flight else None)
    return ObservedRun(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        class_=await observe_class(reader, class_name, environment.trainer_image),
        created=parse_time(parent["metadata"]["creationTimestamp"]),
        status_written=status_written(parent),
        jobs=tuple(jobs),
        pods=tuple(pods),
        disowned=tuple(job_view(item) for item in disowned),
        warnings=await observe_warnings(reader, owner.namespace, jobs, pods, datetime.now(UTC)),
    )
