"""A cluster with one FineTuneJob in it, as small as it can be.

It does what the API server, the Job controller, the kubelets and Kueue do with the objects that a plan makes. The plan
is real, and so is the order in which its writes are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.digest import DIGEST_ANNOTATION
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.attempt_state import JobPlan
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.kube.resources import JOBS, PODS
from finetune_operator.pods.observed import JobView, PodView
from tests.unit.operator.states import (
    NOW,
    OWNER,
    PREFLIGHT_REPORT,
    TRAIN_REPORT,
    job_spec,
    pod,
    resolved_class,
    told,
)

GRACE_SECONDS = 120


@dataclass
class World:
    """Everything that is observed, and the clock."""

    now: datetime = NOW
    spec: FineTuneJobSpec = field(default_factory=lambda: job_spec(parallelism={"nodes": 2}, retryLimit=2))
    status: FineTuneJobStatus = field(default_factory=FineTuneJobStatus)
    class_: ResolvedClass | Readiness = field(default_factory=resolved_class)
    jobs: dict[str, JobView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    alone: dict[str, JobView] = field(default_factory=dict)
    """What Pods without a Job were made as, by name."""
    lost: set[str] = field(default_factory=set)
    """Pods whose nodes do not answer: nothing of them changes any more."""

    def observed(self) -> ObservedFineTuneJob:
        return self.seen(self.jobs, self.pods)

    def seen(self, jobs: Mapping[str, JobView], pods: Mapping[str, PodView]) -> ObservedFineTuneJob:
        """What is observed by whom only these Jobs and Pods are known."""
        return ObservedFineTuneJob(
            owner=OWNER,
            generation=1,
            spec=self.spec,
            status=self.status,
            class_=self.class_,
            jobs=(*jobs.values(), *self._alone(pods)),
            pods=tuple(pods.values()),
        )

    def _alone(self, pods: Mapping[str, PodView]) -> Iterator[JobView]:
        """The Pods without a Job, as alone_view reads them."""
        for name, made in self.alone.items():
            if (view := pods.get(name)) is not None:
                states: dict[str, Any] = {"Succeeded": "Complete", "Failed": "Failed"}
                yield replace(made, state=states.get(view.phase, "Active"), deleting=view.deletion_time is not None)

    # The operator.

    def reconcile(self, killed_after: int | None = None) -> int:
        """One reconciliation, killed after so many writes; returns how many writes there were to be done."""
        decided = self.planned()
        writes: list[Any] = [*decided.create, *decided.delete]
        if decided.status != self.status:
            writes.append(decided.status)
        for write in writes[:killed_after]:
            self.write(write)
        return len(writes)

    def planned(self) -> JobPlan:
        return plan(self.observed(), self.now)

    def write(self, write: Any) -> None:
        """One write of a plan: a status, an object to create, or a child to delete."""
        if isinstance(write, FineTuneJobStatus):
            self.status = write
        elif isinstance(write, dict):
            self._create(write)
        elif write.resource.kind == "Job":
            self.delete_job(write.name, write.uid)
        elif write.resource.kind == "Pod" and write.name in self.pods:
            self.delete_pod(self.pods[write.name])

    def _create(self, body: dict[str, Any]) -> None:
        name, spec = body["metadata"]["name"], body["spec"] if body["kind"] == "Job" else {}
        if body["kind"] not in ("Pod", "Job") or name in self.jobs or name in self.pods:
            return
        uid, role = f"{name}-{self.now.isoformat()}", body["metadata"]["labels"]["finetune.dev/role"]
        made = self.jobs
        if body["kind"] == "Pod":
            made = self.alone
            self.pods[name] = pod(name, phase="Pending", name=name, uid=uid, job_uid=uid, role=role, created=self.now)
        made[name] = JobView(
            name=name,
            namespace="team-a",
            uid=uid,
            state="Active",
            message="",
            created=self.now,
            deleting=False,
            role=role,
            resource=PODS if body["kind"] == "Pod" else JOBS,
            suspended=spec.get("suspend", False),
            parallelism=spec.get("parallelism", 1),
            digest=body["metadata"]["annotations"].get(DIGEST_ANNOTATION, ""),
        )

    def goes_on(self) -> None:
        """Everybody does what there is to do, but for training, which takes its time."""
        self.control_jobs()
        self.collect_garbage()
        self.end_deleted_pods()
        self.start_pods()
        self.reconcile()
        self.succeed("preflight")
        self.now += timedelta(seconds=1)

    # The garbage collector, the Job controller and Kueue.

    def delete_job(self, name: str, uid: str) -> None:
        """As with propagationPolicy Background: the Pods follow later, see `collect_garbage`."""
        if name in self.jobs and self.jobs[name].uid == uid:
            del self.jobs[name]

    def collect_garbage(self) -> None:
        for view in list(self.pods.values()):
            if view.name not in self.alone and not any(
                job.uid == view.uid.partition("/")[0] for job in self.jobs.values()
            ):
                self.delete_pod(view)

    def control_jobs(self) -> None:
        """Make Pods, take a gang away of which one has ended badly, and say how a Job ended."""
        for job in list(self.jobs.values()):
            if job.state != "Active":
                continue
            pods = self._pods_of(job)
            if job.suspended:
                for view in pods:
                    self.delete_pod(view)
            elif any(view.phase == "Failed" for view in pods) or job.ending:
                self.jobs[job.name] = replace(job, ending=True)
                for view in pods:
                    self.delete_pod(view)
                if all(view.is_terminal for view in pods):
                    self.jobs[job.name] = replace(job, ending=False, state="Failed")
            elif pods and all(view.phase == "Succeeded" for view in pods):
                self.jobs[job.name] = replace(job, state="Complete")
            elif not pods:
                for index in range(job.parallelism):
                    name = f"{job.name}-{index}-{self.now:%H%M%S}"
                    self.pods[name] = pod(
                        job.name, index, "Pending", name=name, uid=f"{job.uid}/{index}", job_uid=job.uid, role=job.role
                    )

    def set_suspended(self, suspended: bool) -> None:
        for job in self.jobs.values():
            if job.state == "Active" and not job.ending and job.role == "train":
                self.jobs[job.name] = replace(job, suspended=suspended)

    # The kubelets.

    def start_pods(self) -> None:
        for view in self.reachable():
            if view.phase == "Pending" and view.deletion_time is None:
                self.pods[view.name] = replace(view, phase="Running", started_time=self.now)

    def end_deleted_pods(self) -> None:
        """What was told to stop has stopped; a deleted Pod that has ended is gone, once its Job has counted it."""
        for view in self.reachable():
            if view.deletion_time is not None:
                job = next((job for job in self.jobs.values() if job.uid == view.job_uid), None)
                if job is not None and not view.is_terminal:
                    self.pods[view.name] = replace(view, phase="Failed", exit_code=143)
                elif job is None or job.state != "Active":
                    del self.pods[view.name]

    def succeed(self, role: str) -> None:
        """All running Pods of a role do what they are there for."""
        for view in self.reachable():
            if view.phase == "Running" and view.deletion_time is None and view.role == role:
                report = told(PREFLIGHT_REPORT if view.role == "preflight" else self._train_report())
                message = report if view.index == 0 else ""
                self.pods[view.name] = replace(view, phase="Succeeded", exit_code=0, message=message)

    def _train_report(self) -> TrainReport:
        """The result lies in the folder of the run that this is."""
        result = TRAIN_REPORT.result.model_copy(update={"uri": f"{self.status.storage_uri}/result"})
        return TRAIN_REPORT.model_copy(update={"result": result})

    def end_pod(self, view: PodView, **how: Any) -> None:
        self.pods[view.name] = replace(view, phase="Failed", **how)

    def lose(self, view: PodView) -> None:
        """Its node dies; after a while the control plane deletes the Pod, which does not end."""
        self.lost.add(view.name)
        self.delete_pod(view)

    def reachable(self) -> Iterator[PodView]:
        yield from [view for view in self.pods.values() if view.name not in self.lost]

    def _pods_of(self, job: JobView) -> list[PodView]:
        return [view for view in self.pods.values() if view.uid.startswith(f"{job.uid}/")]

    def delete_pod(self, view: PodView) -> None:
        if view.deletion_time is None and not view.is_terminal:
            self.pods[view.name] = replace(view, deletion_time=self.now + timedelta(seconds=GRACE_SECONDS))
        elif view.is_terminal and not any(job.uid == view.uid.partition("/")[0] for job in self.jobs.values()):
            del self.pods[view.name]
