"""What a sweep costs the API server beyond what its trials would cost as jobs of their own."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.machine.ports import free_ports
from finetune_operator.settings import Settings
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, namespace
from tests.integration.operator.api_proxy import Lane, Request
from tests.integration.operator.finetunesweeps.trials import SWEEP
from tests.integration.operator.forked_operator import ForkedOperator
from tests.integration.operator.jobs import PREFLIGHT_REPORT, TRAIN_REPORT
from tests.integration.operator.lives import Stage
from tests.unit.operator.finetunesweep.sweeps import TEMPLATE

TRIALS = 30
AT_ONCE = 10
PLAYED_SECONDS = 300.0
TICK_SECONDS = 0.3
MOST_OF_A_SWEEP = 1.05


@dataclass
class Counted:
    """A namespace with an operator of its own, whose requests are counted."""

    api: Api
    operator: ForkedOperator
    requests: Counter[str] = field(default_factory=Counter)
    phases: set[tuple[str, str | None]] = field(default_factory=set)
    """Of each job's status, what has been written."""

    def saw(self, request: Request) -> None:
        """Not counted: watches, what is listed at the start, who leads, the class.

        Of a job's status each phase counts once, and Queued not at all: how often they are written depends on how long
        its Pods take, not on who made it.
        """
        _, is_of_the_namespace, rest = request.path.partition(f"/namespaces/{self.api.namespace}/")
        if not request.is_watch and is_of_the_namespace and not self._is_repeated(request):
            resource, *name = rest.split("/")
            self.requests[f"{request.method} {'/'.join([resource, *name[1:]])}"] += 1

    def _is_repeated(self, request: Request) -> bool:
        if request.method != "PATCH" or "/finetunejobs/" not in request.path:
            return False
        phase = (request.path, json.loads(request.body).get("status", {}).get("phase"))
        repeated = phase in self.phases or phase[1] == "Queued"
        self.phases.add(phase)
        return repeated

    def play_until_ended(self, jobs: int, create: Callable[[int], object] | None = None) -> None:
        """Play all Pods until so many FineTuneJobs have succeeded. `create`: what makes one, if no sweep does."""
        end = time.monotonic() + PLAYED_SECONDS
        while True:
            self.operator.keep_running()
            phases = {job["metadata"]["uid"]: _phase(job) for job in self.api.items("FineTuneJob")}
            succeeded = list(phases.values()).count("Succeeded")
            if succeeded == jobs:
                return
            if create is not None:  # as many at once as a sweep does
                for number in range(len(phases), min(jobs, succeeded + AT_ONCE)):
                    create(number)
            assert time.monotonic() < end, phases
            for pod in self.api.items("Pod"):
                if "deletionTimestamp" not in pod["metadata"]:
                    self.play(pod, phases)
            time.sleep(TICK_SECONDS)

    def play(self, pod: Object, phases: dict[str, str]) -> None:
        labels, phase = pod["metadata"]["labels"], pod["status"]["phase"]
        if labels["finetune.dev/role"] == "preflight":
            if phase == "Pending":
                played.ends(self.api, pod, PREFLIGHT_REPORT)
        elif phase == "Pending":
            played.runs(self.api, pod)
        elif phase == "Running" and phases.get(labels["finetune.dev/owner-uid"]) == "Training":
            played.ends(self.api, pod, TRAIN_REPORT)


@contextmanager
def counted(stage: Stage, folder: Path) -> Iterator[Counted]:
    with namespace(stage.plane) as api:
        lane: Lane = stage.proxy.lane(api.namespace)
        health, metrics = free_ports(2)
        settings = Settings(
            lane.kubeconfig, trainer_image="example.com/trainer:1", health_port=health, metrics_port=metrics
        )
        operator = ForkedOperator(settings, folder / f"{api.namespace}.log")
        found = Counted(api, operator)
        lane.intercept = found.saw
        try:
            yield found
        finally:
            operator.kill()


def test_a_sweep_adds_at_most_a_twentieth_to_the_requests_of_its_trials(quiet_stage: Stage, tmp_path: Path) -> None:
    """Thirty that train for no time at all: a real one's progress alone is written every ten seconds."""
    with counted(quiet_stage, tmp_path) as plain:
        spec = {**TEMPLATE, "className": "cpu"}
        plain.play_until_ended(TRIALS, lambda number: plain.api.create("FineTuneJob", f"router-{number}", spec))
    with counted(quiet_stage, tmp_path) as sweep:
        sweep.api.create("FineTuneSweep", "router", {**SWEEP, "budget": {"trials": TRIALS}, "parallel": AT_ONCE})
        sweep.play_until_ended(TRIALS)
    by_users, told = TRIALS, f"{plain.requests}\n{sweep.requests}"
    assert sweep.requests.total() <= MOST_OF_A_SWEEP * (plain.requests.total() + by_users), told


def _phase(job: Object) -> str:
    found: str = job.get("status", {}).get("phase", "")
    return found
