"""Two operators with a Lease on a real API server: one works, and the other goes on when that one dies."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from e2e.cluster.components.control_plane import ControlPlane, control_plane
from tests.integration.crds import install_crds
from tests.integration.operator import played
from tests.integration.operator.api import Api, namespace, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import JOB, TRAIN_REPORT, preflight_succeeds, starts_training
from tests.integration.operator.process import OperatorProcess

TAKEN_OVER_SECONDS = 25.0
"""15 s of the Lease, 2.4 s until it is looked at again, the start of the watches; and this machine may be busy."""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/finetune-operator"
OPTIONS = ["--leader-election", "--namespace=kube-system"]


class Replicas:
    """Two operator processes."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.both = [OperatorProcess(plane, folder / name, OPTIONS) for name in ("a", "b")]

    def leader(self) -> OperatorProcess:
        (found,) = [one for one in self.both if one.is_running() and leads(one) == 1]
        return found

    def other(self, one: OperatorProcess) -> OperatorProcess:
        return self.both[1 - self.both.index(one)]


def leads(operator: OperatorProcess) -> float:
    text = urllib3.request("GET", operator.metrics_url, timeout=10).data.decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("finetune_operator_leader "))


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane without the other tests' operator, which knows of no election."""
    with control_plane() as plane:
        install_crds(plane)
        Api(plane, "").create("FineTuneClass", "cpu", CLASS)
        yield plane


@pytest.fixture
def replicas(plane: ControlPlane, tmp_path: Path) -> Iterator[Replicas]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    replicas = Replicas(plane, tmp_path)
    for one in replicas.both:
        one.start()
    wait_for(lambda: sum(leads(one) for one in replicas.both) == 1, "one leads", TAKEN_OVER_SECONDS)
    yield replicas
    for one in replicas.both:
        if one.is_running():
            one.stop()


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[Api]:
    with namespace(plane) as api:
        yield api


def test_the_other_replica_continues_where_a_killed_leader_was(api: Api, replicas: Replicas) -> None:
    """Takes half a minute: the Lease of a leader that says nothing any more runs out after 15 s."""
    trained = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, trained)
    leader = replicas.leader()
    standby = replicas.other(leader)
    assert standby.answers("/healthz") and standby.answers("/readyz")
    status = api.get("FineTuneJob", "router")["status"]

    leader.kill()
    killed = time.monotonic()
    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
    new = api.create("FineTuneJob", "new", JOB)
    api.wait_reason("FineTuneJob", "router", "Succeeded", TAKEN_OVER_SECONDS)
    print(f"taken over {time.monotonic() - killed:.1f} s after the death")
    assert leads(standby) == 1
    preflight_succeeds(api, new)
    assert [job["metadata"]["uid"] for job in api.children_of(trained, "train", "Job")] == [train["metadata"]["uid"]]
    assert len(api.children_of(new, "train", "Job")) == 1
    assert api.get("FineTuneJob", "router")["status"]["attempt"]["number"] == status["attempt"]["number"] == 1

    leader.start()
    assert leads(leader) == 0, "it stands by now"
    assert leader.answers("/healthz") and leader.answers("/readyz")


def test_a_leader_that_gets_sigterm_hands_over_at_once(api: Api, replicas: Replicas) -> None:
    leader = replicas.leader()
    standby = replicas.other(leader)
    held = api.request("GET", LEASE)["spec"]["holderIdentity"]
    assert leader.stop() == 0, leader.log.read_text()
    assert api.request("GET", LEASE)["spec"].get("holderIdentity") != held, "nobody need wait for the Lease's end"
    wait_for(lambda: leads(standby) == 1, "the other leads", TAKEN_OVER_SECONDS)
    api.create("FineTuneJob", "router", JOB)
    api.wait_reason("FineTuneJob", "router", "Validating")


def test_a_leader_that_was_stopped_for_longer_than_its_lease_ends_before_it_writes(
    api: Api, replicas: Replicas
) -> None:
    """Takes half a minute: 15 s of the Lease, as above."""
    leader = replicas.leader()
    standby = replicas.other(leader)
    leader.signal(signal.SIGSTOP)
    wait_for(lambda: leads(standby) == 1, "the other leads", TAKEN_OVER_SECONDS)
    job = api.create("FineTuneJob", "router", JOB)
    preflight_succeeds(api, job)
    leader.signal(signal.SIGCONT)
    wait_for(lambda: not leader.is_running(), "the old leader ends")
    assert "the Lease finetune-operator" in leader.log.read_text()
    assert len(api.children_of(job, "train", "Job")) == 1
    assert leads(standby) == 1
    assert api.request("GET", LEASE)["spec"]["leaseTransitions"] >= 1
