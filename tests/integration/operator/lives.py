"""Whole lives of FineTuneJobs, each in a namespace of its own with an operator of its own, many side by side.

A life: created -> preflight -> attempt 1 is disrupted -> attempt 2 fails -> attempt 3 succeeds -> TTL clean-up.
What the user and the Pods do is the same in each; what the tests spoil lies between the operator and the API server.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.ports import free_ports
from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from finetune_operator.settings import Settings
from tests.integration.operator import played
from tests.integration.operator.api import (
    COLLECTED_SECONDS,
    SHORTEST_PAUSE_SECONDS,
    Api,
    Object,
    RefusedError,
    wait_for,
)
from tests.integration.operator.api_proxy import ApiProxy, Lane
from tests.integration.operator.forked_operator import ForkedOperator
from tests.integration.operator.jobs import JOB, NETWORK_FAILURE, PREFLIGHT_REPORT, TRAIN_REPORT, by_index

CLASS = {
    "storage": {"bucket": "models", "credentialsSecretName": "s3-credentials"},
    "sources": {"models": ["s3://models/*"], "datasets": ["s3://data/*"]},
}
NAME = "router"
ATTEMPTS = 3
AT_ONCE = 12
LIFE_SECONDS = 150.0
TICK_SECONDS = 0.3
LOST_PEER = Failure(reason=Reason.FAILED, message="Another process of the gang ended.", retryable=True, lost_peer=True)


class Life:
    """One job, the operator that looks after it, and what the Pods answer."""

    def __init__(self, api: Api, lane: Lane, operator: ForkedOperator) -> None:
        self.api = api
        self.lane = lane
        self.operator = operator
        self.job: Object = {}
        """As the stage saw it last."""
        self._trained: set[tuple[str, int]] = set()
        """Attempts whose Pods the operator has seen run, by UID of the job, which may be made again, and number."""

    def seen(self, job: Object, pods: list[Object]) -> None:
        """The kubelet's part: answer for the Pods, once the status says that the operator knows of them."""
        self.job = job
        status, uid = job.get("status", {}), job["metadata"]["uid"]
        attempt = status.get("attempt", {})
        if status.get("phase") == "Training":
            self._trained.add((uid, attempt["number"]))
        for pod in pods:
            if pod["status"]["phase"] == "Pending" and pod["metadata"]["labels"]["finetune.dev/role"] == "preflight":
                played.ends(self.api, pod, PREFLIGHT_REPORT)
        job_label = "batch.kubernetes.io/job-name"
        gang = [pod for pod in pods if pod["metadata"]["labels"].get(job_label, "") == attempt.get("jobName")]
        gang = [pod for pod in by_index(gang) if pod["status"]["phase"] in ("Pending", "Running")]
        for pod in gang:
            if pod["status"]["phase"] == "Pending":
                played.runs(self.api, pod)
        if (uid, attempt.get("number")) in self._trained:
            self._end(attempt["number"], gang)

    def _end(self, attempt: int, gang: list[Object]) -> None:
        """How an attempt ends: one Pod is taken away, or rank 0 fails, or both succeed."""
        if attempt == 1:
            gang.reverse()
            for pod in gang:
                played.is_disrupted(self.api, pod) if _index(pod) == 1 else played.ends(self.api, pod, LOST_PEER)
        elif attempt < ATTEMPTS:
            for pod in gang:
                played.ends(self.api, pod, NETWORK_FAILURE if _index(pod) == 0 else LOST_PEER)
        else:
            for pod in gang:
                played.ends(self.api, pod, TRAIN_REPORT if _index(pod) == 0 else "")

    def wait(self, until: Callable[[], bool], what: str, seconds: float = LIFE_SECONDS) -> None:
        """Until something is true, with the operator kept running as the kubelet does. Raises AssertionError."""

        def polled() -> bool:
            self.operator.keep_running()
            return until()

        try:
            wait_for(polled, f"{what} in {self.api.namespace}", seconds, longest_pause=SHORTEST_PAUSE_SECONDS)
        except AssertionError as error:
            said = json.dumps(self.job.get("status", {}), indent=1)
            log = self.operator.log.read_text()[-5000:] if self.operator.log.exists() else ""
            raise AssertionError(f"{error}\nstatus: {said}\nthe operator's log ends:\n{log}") from error

    def live(self) -> Portrait:
        """The whole life; returns what is there at its stations."""
        self.api.create("FineTuneJob", NAME, {**JOB, "className": "cpu"})
        return self.end()

    def end(self) -> Portrait:
        """The rest of a life that has begun."""
        self.wait(lambda: self.job.get("status", {}).get("phase") in ("Succeeded", "Failed"), "the end")
        uid = self.job["metadata"]["uid"]
        trained = {kind: self.api.items(kind, f"finetune.dev/owner-uid={uid}") for kind in _COMPARED}
        patched = self.api.patch("FineTuneJob", NAME, {"spec": {"ttlSecondsAfterFinished": 0}})

        def cleaned_up() -> bool:
            if self.job["status"]["observedGeneration"] != patched["metadata"]["generation"]:
                return False
            left = self.api.children(uid)
            return not left["Job"] and not left["Pod"] and not left["ConfigMap"]

        self.wait(cleaned_up, "the clean-up", COLLECTED_SECONDS)
        self.operator.kill()
        job = self.api.get("FineTuneJob", NAME)
        events = [event for event in self.api.items("Event") if event["source"].get("component") == "finetune-operator"]
        events = [event for event in events if event["involvedObject"]["uid"] == uid]
        made = [
            exchange for exchange in self.lane.writes if exchange.request.method == "POST" and exchange.status == 201
        ]
        bodies = [json.loads(exchange.request.body) for exchange in made]
        names = [body["metadata"]["name"] for body in bodies if owned_by(body, uid)]
        return Portrait(
            job=normalised(job, job, names),
            children={kind: sorted(normalised(item, job, names) for item in items) for kind, items in trained.items()},
            kept={kind: len(items) for kind, items in self.api.children(uid).items()},
            events=sorted(normalised(_told(event), job, names) for event in events),
            jobs_made=normalised(
                [body["metadata"]["name"] for body in bodies if body["kind"] in ("Pod", "Job") and owned_by(body, uid)],
                job,
                names,
            ),
        )


_COMPARED = ("Job", "ConfigMap", "Service")


@dataclass(frozen=True)
class Portrait:
    """The final objects, without what differs between any two lives: times, UIDs, generated names."""

    job: str
    children: dict[str, list[str]]
    """At the end of training, before the clean-up."""
    kept: dict[str, int]
    """After the clean-up."""
    events: list[str]
    jobs_made: str
    """Names of all preflight Pods and Jobs that the API server ever made for it, in their order."""

    def differences(self, other: Portrait) -> str:
        """What another life has otherwise, as a diff; empty when nothing."""
        lines = [json.dumps(asdict(one), indent=1).replace("\\n", "\n").splitlines() for one in (self, other)]
        return "\n".join(difflib.unified_diff(*lines, lineterm="", n=6))


@dataclass
class Stage:
    """A control plane that is nobody else's, and the lives on it."""

    plane: ControlPlane
    proxy: ApiProxy
    folder: Path
    lives: dict[str, Life] = field(default_factory=dict)

    @contextlib.contextmanager
    def life(self, name: str, **settings: Any) -> Iterator[Life]:
        """A life that can begin: its namespace exists, and its operator starts when it is waited for."""
        api = Api(self.plane, name)
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        wait_for(lambda: api.exists("ServiceAccount", "default"), "a service account for Pods")
        lane = self.proxy.lane(name)
        health, metrics = free_ports(2)
        process = ForkedOperator(
            Settings(
                kubeconfig=lane.kubeconfig,
                trainer_image="example.com/trainer:1",
                health_port=health,
                metrics_port=metrics,
                **settings,
            ),
            self.folder / f"{name}.log",
        )
        life = self.lives[name] = Life(api, lane, process)
        try:
            yield life
        finally:
            del self.lives[name]
            process.kill()
            if api.exists("FineTuneJob", NAME):
                api.delete("FineTuneJob", NAME)

    def play(self, stop: threading.Event) -> None:
        """Read all jobs and Pods now and then, for all lives at once, until told to stop."""
        api = Api(self.plane, "")
        ours = "app.kubernetes.io/managed-by=finetune-operator"
        while not stop.wait(TICK_SECONDS):
            try:
                jobs = api.request("GET", "/apis/finetune.dev/v1alpha1/finetunejobs")["items"]
                pods = api.request("GET", f"/api/v1/pods?labelSelector={ours}")["items"]
            except RefusedError:  # of a busy API server: all lives would end with this thread
                continue
            for job in jobs:
                namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
                life = self.lives.get(namespace)
                of_job = [pod for pod in pods if pod["metadata"]["labels"].get("finetune.dev/owner-uid") == uid]
                if life is not None:
                    # What was read is a moment old: a Pod may be gone.
                    with contextlib.suppress(RefusedError):
                        life.seen(job, [pod for pod in of_job if "deletionTimestamp" not in pod["metadata"]])


@contextlib.contextmanager
def stage(plane: ControlPlane, folder: Path) -> Iterator[Stage]:
    """Lives can begin: the class is there and Valid."""
    stop = threading.Event()
    with ApiProxy(plane, folder).running() as proxy:
        ready = Stage(plane, proxy, folder)
        kubelet = threading.Thread(target=ready.play, args=(stop,), name="kubelet")
        kubelet.start()
        try:
            cluster = Api(plane, "")
            cluster.create("FineTuneClass", "cpu", CLASS)
            with ready.life("first") as life:
                valid = lambda: bool(cluster.get("FineTuneClass", "cpu").get("status"))  # noqa: E731
                life.wait(valid, "the class is valid")
            yield ready
        finally:
            stop.set()
            kubelet.join()


def side_by_side(tasks: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Results of all tasks, many run at the same time. A task that fails has its exception as the result."""

    def result(task: Callable[[], Any]) -> Any:
        try:
            return task()
        except (AssertionError, RefusedError) as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(tasks, pool.map(result, tasks.values()), strict=True))


def owned_by(body: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in body["metadata"].get("ownerReferences", []))


def normalised(item: Any, job: Object, names: list[str]) -> str:
    """JSON without what differs between two lives of the same kind. `names`: of the children, in their order."""
    if isinstance(item, dict) and "metadata" in item:
        kept = ("name", "labels", "annotations", "finalizers", "generation", "ownerReferences")
        metadata = {name: value for name, value in item["metadata"].items() if name in kept}
        item = {**item, "metadata": metadata}
        if item.get("kind") != "FineTuneJob":
            item.pop("status", None)
    text = json.dumps(item, sort_keys=True, indent=1)
    uid, namespace = job["metadata"]["uid"], job["metadata"]["namespace"]
    for position, name in enumerate(dict.fromkeys(names)):
        text = text.replace(name, f"CHILD-{position}")
    for value, stands_for in ((uid, "UID"), (uid.partition("-")[0], "UID8"), (namespace, "NAMESPACE")):
        text = text.replace(value, stands_for)
    for pattern, stands_for in _VARYING:
        text = re.sub(pattern, stands_for, text)
    return text


_VARYING = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\d\d:\d\d:\d\d", "TIME"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "OTHER-UID"),
    (r"(CHILD-\d+-\d+)-[a-z0-9]{5}", r"\1-XXXXX"),
    (r"(CHILD-\d+)-[a-z0-9]{5}(?![a-z0-9])", r"\1-XXXXX"),
    # Of what was rendered for this object, in this namespace.
    (r'("finetune.dev/applied-digest": )"[0-9a-f]{16}"', r"\1DIGEST"),
    (r'("clusterIPs?": )("[0-9.]+"|\[[^]]*\])', r"\1IP"),
)


def _told(event: Object) -> Object:
    return {name: event[name] for name in ("type", "reason", "message", "count")}


def _index(pod: Object) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
