"""Which class a run has where spec.className is omitted: the default, and from then on the one that it began with."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.environment import Environment
from finetune_operator.evaluation.observe import observe as observe_evaluation
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.deletion.plan import holds_storage
from finetune_operator.finetunejob.observe import observe
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    FINE_TUNE_CLASSES,
    JOBS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    SERVICES,
)
from finetune_operator.modeldeployment.observe import observe as observe_deployment
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import CLASS_WIRE, JOB_WIRE, NOW, OWNER, job_status, merged

CHILDREN = (CONFIG_MAPS, DEPLOYMENTS, JOBS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, SERVICES)

METADATA = {
    "name": OWNER.name,
    "namespace": OWNER.namespace,
    "uid": OWNER.uid,
    "generation": 1,
    "creationTimestamp": "2026-11-22T11:00:00Z",
}


def class_object(name: str, **spec: Any) -> dict[str, Any]:
    annotations = {"finetune.dev/is-default-class": "true"} if name == "default" else {}
    metadata = {"name": name, "generation": 1, "uid": f"u-{name}", "creationTimestamp": "2026-11-22T12:00:00Z"}
    return {"metadata": {**metadata, "annotations": annotations}, "spec": merged(CLASS_WIRE, spec)}


def kube(**pinned: Any) -> FakeKube:
    """A cluster in which the default class is another one than "before" by now."""
    default, before = class_object("default"), class_object("before", **pinned)
    return FakeKube(
        {
            f"GET {FINE_TUNE_CLASSES.path(None)}": {"items": [default, before]},
            **{f"GET {FINE_TUNE_CLASSES.path(None, one['metadata']['name'])}": one for one in (default, before)},
            **{f"GET {kind.path('team-a')}": {"items": []} for kind in CHILDREN},
        }
    )


async def observed(cluster: FakeKube, status: dict[str, Any], **spec: Any) -> ObservedFineTuneJob:
    parent = {"kind": "FineTuneJob", "metadata": METADATA, "spec": {**JOB_WIRE, **spec}, "status": status}
    return await observe(cluster, parent, environment=Environment())


@pytest.mark.parametrize(
    ("changes", "spec", "expected"),
    [
        ({}, {}, "before"),
        ({"phase": "Suspended"}, {}, "before"),
        ({}, {"className": "default"}, "default"),
        ({"class_name": None}, {}, "default"),
        ({"phase": "Failed", "completion_time": NOW}, {}, "default"),
        ({}, {"runId": "2"}, "default"),
    ],
    ids=["in flight", "suspended", "named", "not begun", "over", "a new run"],
)
async def test_the_default_class_is_asked_at_the_beginning_of_a_run(
    changes: dict[str, Any], spec: dict[str, Any], expected: str
) -> None:
    status = job_status(**{"class_name": "before", "phase": "Retrying", **changes}).to_wire()
    class_ = (await observed(kube(), status, **spec)).class_
    assert isinstance(class_, ResolvedClass)
    assert class_.name == expected


@pytest.mark.parametrize("phase", ["Retrying", "Succeeded"])
async def test_the_class_that_the_data_is_of_says_whether_the_storage_is_held(phase: str) -> None:
    folders = [{"uri": "s3://models/finetune/team-a/router", "className": "before"}]
    over = {"completion_time": NOW} if phase == "Succeeded" else {}
    status = {**job_status(class_name="before", phase=phase, **over).to_wire(), "storageFolders": folders}
    assert holds_storage(await observed(kube(reclaimPolicy="Delete"), status)) is True
    assert holds_storage(await observed(kube(), status)) is False


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, "before"), ({"runId": "0"}, "default"), ({"completionTime": "2026-11-22T12:00:00Z"}, "default")],
    ids=["in flight", "a new run", "over"],
)
async def test_an_evaluation_continues_with_the_class_that_it_began_with(
    changes: dict[str, Any], expected: str
) -> None:
    spec = {
        "candidates": [{"name": "tuned", "model": {"uri": "s3://models/tuned"}}],
        "dataset": {"uri": "s3://data/eval.jsonl"},
        "graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {}}],
    }
    status = {"runId": "1", "className": "before", "phase": "Retrying", **changes}
    parent = {"kind": "Evaluation", "metadata": METADATA, "spec": spec, "status": status}
    class_ = (await observe_evaluation(kube(), parent, environment=Environment())).class_
    assert isinstance(class_, ResolvedClass)
    assert class_.name == expected


@pytest.mark.parametrize(("uid", "expected"), [(OWNER.uid, "before"), ("another", "default"), (None, "default")])
async def test_what_is_served_goes_on_by_its_class(uid: str | None, expected: str) -> None:
    cluster = kube()
    if uid is not None:
        owner = [{"kind": "ModelDeployment", "name": OWNER.name, "uid": uid, "controller": True}]
        metadata = {"name": OWNER.name, "uid": "d", "ownerReferences": owner}
        cluster.answers[f"GET {DEPLOYMENTS.path('team-a', OWNER.name)}"] = {"metadata": metadata, "spec": {}}
    spec, status = {"model": {"uri": "s3://models/tuned"}}, {"className": "before"}
    parent = {"kind": "ModelDeployment", "metadata": METADATA, "spec": spec, "status": status}
    class_ = (await observe_deployment(cluster, parent, environment=Environment())).class_
    assert isinstance(class_, ResolvedClass)
    assert class_.name == expected
