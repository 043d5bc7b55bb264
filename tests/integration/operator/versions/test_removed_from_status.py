"""What the operator takes out of a status goes whole, whoever else has written into it."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.cluster.components.control_plane import ControlPlane
from finetune_api.dataset import DatasetStatus
from finetune_api.evaluation import EvaluationStatus
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_api.lifecycle import KindStatus
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.plan import Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.kube.connection import connected
from finetune_operator.kube.resources import (
    DATASETS,
    EVALUATIONS,
    FINE_TUNE_JOBS,
    FINE_TUNE_SWEEPS,
    MODEL_DEPLOYMENTS,
    Object,
    Resource,
)
from finetune_operator.runtime.reconciler.reconcile import reconcile
from tests.integration.operator import played
from tests.integration.operator.api import Api, condition, namespace
from tests.integration.operator.finetunesweeps.trials import SWEEP
from tests.integration.operator.jobs import (
    DATASET,
    DEPLOYMENT,
    EVALUATION,
    JOB,
    PREFLIGHT_REPORT,
    starts_training,
    trains,
)
from tests.integration.operator.lives import Stage
from tests.unit.api.wire.full_statuses import UNKNOWN, full_status, objects_within, with_unknown_fields, without

FOREIGN = "fieldManager=kubectl-patch"


@pytest.fixture
def plane(quiet_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    """Whoever connects sets KUBECONFIG for Kopf: the tests that this process runs next get theirs back."""
    monkeypatch.setenv("KUBECONFIG", str(quiet_stage.plane.kubeconfig))
    return quiet_stage.plane


async def written(kube: Kube, resource: Resource, key: ObjectKey, status: type[KindStatus], wire: Object) -> None:
    """Have a reconciliation write this status."""

    async def nothing(kube: Kube, parent: Object) -> None:
        return None

    plan = Plan(status=status.read(wire))
    await reconcile(kube, Kind(resource, status, nothing, lambda observed, now: plan), key)


def without_empties(found: Any) -> Any:
    """Without the empty maps and lists of fields that this version knows, which no status needs."""
    if isinstance(found, dict):
        kept = {name: one if name == "addedLater" else without_empties(one) for name, one in found.items()}
        return {name: one for name, one in kept.items() if one not in ([], {})}
    return [without_empties(one) for one in found] if isinstance(found, list) else found


@pytest.mark.parametrize(
    ("resource", "spec", "kind"),
    [
        (FINE_TUNE_JOBS, JOB, FineTuneJobStatus),
        (EVALUATIONS, EVALUATION, EvaluationStatus),
        (MODEL_DEPLOYMENTS, DEPLOYMENT, ModelDeploymentStatus),
        (FINE_TUNE_SWEEPS, SWEEP, FineTuneSweepStatus),
        (DATASETS, DATASET, DatasetStatus),
    ],
    ids=["FineTuneJob", "Evaluation", "ModelDeployment", "FineTuneSweep", "Dataset"],
)
async def test_an_object_leaves_the_status_with_what_others_wrote_into_it(
    plane: ControlPlane, resource: Resource, spec: Object, kind: type[KindStatus]
) -> None:
    """No operator runs here but the one that this test plays."""
    with namespace(plane) as api:
        async with connected(plane.kubeconfig) as kube:
            key = ObjectKey(resource.kind, api.namespace, "router")
            api.create(resource.kind, "router", spec)
            await written(kube, resource, key, kind, full_status(kind))
            for path in objects_within(api.get(resource.kind, "router")["status"]):
                await written(kube, resource, key, kind, full_status(kind))
                known = api.get(resource.kind, "router")["status"]
                newer = with_unknown_fields(known)
                api.patch(resource.kind, "router", {"status": newer}, "status", FOREIGN)
                assert api.get(resource.kind, "router")["status"] == newer
                await written(kube, resource, key, kind, without(newer, path))
                stored = api.get(resource.kind, "router")["status"]
                wanted = kind.read(without(newer, path))
                assert kind.read(stored) == wanted, path
                assert without_empties(stored) == without_empties(wanted.to_wire()), path
                assert stored["addedLater"] == UNKNOWN


async def test_a_restored_status_which_is_nobodys_is_written_whole(plane: ControlPlane) -> None:
    """A backup holds no managedFields: the API server would keep all that it can't tell whose it is."""
    with namespace(plane) as api:
        async with connected(plane.kubeconfig) as kube:
            key = ObjectKey("FineTuneJob", api.namespace, "router")
            api.create("FineTuneJob", "router", JOB)
            await written(kube, FINE_TUNE_JOBS, key, FineTuneJobStatus, full_status(FineTuneJobStatus))
            api.patch("FineTuneJob", "router", {"metadata": {"managedFields": [{}]}})
            stored = api.get("FineTuneJob", "router")["status"]
            await written(kube, FINE_TUNE_JOBS, key, FineTuneJobStatus, without(stored, ("failure",)))
            assert api.get("FineTuneJob", "router")["status"] == without(stored, ("failure",))


def test_a_result_that_another_hand_wrote_into_goes_with_its_run(api: Api, operator: Any) -> None:
    trains(api, api.create("FineTuneJob", "router", JOB))
    api.create("ModelDeployment", "router", {**DEPLOYMENT, "gate": None, "replicas": 0})
    api.wait_reason("ModelDeployment", "router", "Available")
    api.patch("FineTuneJob", "router", {"status": {"result": {"novel": True}}}, "status", FOREIGN)
    api.patch("FineTuneJob", "router", {"spec": {"runId": "2"}})
    job = api.wait("FineTuneJob", "router", lambda found: found["status"]["runId"] == "2")
    assert "result" not in job["status"]
    pods = api.wait_children(job, "preflight", "Pod", 2)
    (newer,) = [pod for pod in pods if pod["status"]["phase"] == "Pending"]
    played.ends(api, newer, PREFLIGHT_REPORT)
    found = api.wait("FineTuneJob", "router", lambda found: found["status"].get("attempt", {}).get("number") == 1)
    assert condition(found, "Stalled")["status"] == "False"
    api.wait_reason("ModelDeployment", "router", "WaitingForModel")  # the next run's, by its name


def test_a_failure_that_another_hand_wrote_into_goes_with_its_cause(api: Api, operator: Any) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": "none"})
    api.wait_reason("FineTuneJob", "router", "ClassNotFound")
    failure = {"reason": "StorageUnreachable", "message": "The storage did not answer."}
    status = {**api.get("FineTuneJob", "router")["status"], "failure": failure}
    api.put_status("FineTuneJob", "router", status)
    api.patch("FineTuneJob", "router", {"status": {"failure": {"future": 1}}}, "status", FOREIGN)
    api.patch("FineTuneJob", "router", {"spec": {"className": "cpu", "runId": "2"}})
    starts_training(api, job)
    found = api.get("FineTuneJob", "router")
    assert "failure" not in found["status"]
    assert condition(found, "Stalled")["status"] == "False"


def test_what_an_earlier_version_left_of_an_object_heals(api: Api, operator: Any) -> None:
    """It removed its own fields only: status.result was {"novel": true}, and nobody could read it."""
    job = api.create("FineTuneJob", "router", JOB)
    api.wait_children(job, "preflight", "Pod")
    stub = {"result": {"novel": True}, "failure": {"future": 1}}
    api.patch("FineTuneJob", "router", {"status": stub}, "status", FOREIGN)
    starts_training(api, job)
    found = api.get("FineTuneJob", "router")
    assert not stub.keys() & found["status"].keys()
    assert condition(found, "Stalled")["status"] == "False"
