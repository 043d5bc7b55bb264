"""The cluster of world.py behind watches of Jobs and Pods that may be open and silent.

The operator knows what it was told, what its own writes were answered with, and what it has read live since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.attempt_state import JobPlan, newest_job
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan, rests_on_absence
from finetune_operator.kube.cache import CONNECTED_SECONDS
from finetune_operator.pods.observed import JobView, PodView
from tests.unit.operator.world import World


@dataclass
class LateWorld(World):
    """A silent watch tells nothing for as long as the cache is served all the same: CONNECTED_SECONDS."""

    jobs_silent_since: datetime | None = None
    pods_silent_since: datetime | None = None
    known_jobs: dict[str, JobView] = field(default_factory=dict)
    known_pods: dict[str, PodView] = field(default_factory=dict)
    live_looks: int = 0

    def fall_silent(self, *, jobs: bool = True, pods: bool = True) -> None:
        """From now on, these watches tell nothing."""
        self._read_all()
        self.jobs_silent_since = self.now if jobs else None
        self.pods_silent_since = self.now if pods else None

    def speak_again(self) -> None:
        """The watches tell everything."""
        self.jobs_silent_since = self.pods_silent_since = None

    def observed(self) -> ObservedFineTuneJob:
        """From memory; the newest Job, if it is not there, by its name; live where Jobs and Pods don't fit together."""
        self._hear()
        newest = newest_job(self.status)
        if newest is not None and newest not in self.known_jobs and newest not in self.known_pods:
            self.known_jobs |= {name: job for name, job in self.jobs.items() if name == newest}
            self.known_pods |= {name: pod for name, pod in self.pods.items() if name == newest}
        if any(job.state != "Active" and not self._have_ended(job) for job in self.known_jobs.values()):
            return self.seen_live()
        return self.seen(self.known_jobs, self.known_pods)

    def seen_live(self) -> ObservedFineTuneJob:
        self.live_looks += 1
        self._read_all()
        return self.seen(self.jobs, self.pods)

    def planned(self) -> JobPlan:
        observed = self.observed()
        decided = plan(observed, self.now)
        return plan(self.seen_live(), self.now) if rests_on_absence(observed, decided) else decided

    def reconcile(self, killed_after: int | None = None) -> int:
        writes = super().reconcile(killed_after)
        if killed_after is not None:
            self.speak_again()  # The next process lists everything.
        return writes

    def write(self, write: Any) -> None:
        """Its answer is remembered; a refusal (it exists, it is gone) makes the next look at its kind a live one."""
        before: dict[str, Any] = {**self.jobs, **self.pods}
        super().write(write)
        after: dict[str, Any] = {**self.jobs, **self.pods}
        if isinstance(write, FineTuneJobStatus):
            return
        changed = {name for name in before | after if before.get(name) is not after.get(name)}
        if not changed:
            self._read_all()
        for known, there in ((self.known_jobs, self.jobs), (self.known_pods, self.pods)):
            for name in changed & (known.keys() | there.keys()):
                known.pop(name, None)
                if name in there:
                    known[name] = there[name]  # type: ignore[assignment]

    def _hear(self) -> None:
        """What the watches have told; one that has been silent for too long is not trusted any more."""
        if not self._is_trusted(self.jobs_silent_since):
            self.known_jobs = dict(self.jobs)
        if not self._is_trusted(self.pods_silent_since):
            self.known_pods = dict(self.pods)

    def _is_trusted(self, silent_since: datetime | None) -> bool:
        return silent_since is not None and self.now - silent_since < timedelta(seconds=CONNECTED_SECONDS)

    def _read_all(self) -> None:
        self.known_jobs, self.known_pods = dict(self.jobs), dict(self.pods)

    def _have_ended(self, job: JobView) -> bool:
        pods = [pod for pod in self.known_pods.values() if pod.job_uid == job.uid]
        return bool(pods) and all(pod.is_terminal for pod in pods)
