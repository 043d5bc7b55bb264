"""Which class an object uses, and what models its references stand for."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.base import LocalObjectReference
from finetune_api.conditions import Reason
from finetune_api.finetunejob import EndedRun, FineTuneJobStatus, Model
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness
from finetune_operator.finetuneclass.resolve import ResolvedClass, default_class, resolve_class, storage_config
from finetune_operator.kube.resources import FINE_TUNE_JOBS
from finetune_operator.models.observe import resolve_model
from finetune_operator.models.resolve import ResolvedModel, Undecided, tuned_model
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.states import CLASS_WIRE, JOB_WIRE, NOW, RESULT, class_spec, job_spec, merged

DEFAULT = {"finetune.dev/is-default-class": "true"}


def class_object(
    name: str, created: str = "2026-11-22T10:00:00Z", default: Any = DEFAULT, **spec: Any
) -> dict[str, Any]:
    meta = {"name": name, "uid": f"u-{name}", "creationTimestamp": created, "generation": 3, "annotations": default}
    return {"metadata": meta, "spec": merged(CLASS_WIRE, spec)}


OLDER, NEWER = class_object("older"), class_object("newer", "2026-11-22T11:00:00Z")
PLAIN = class_object("plain", default={})


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        ([], None),
        ([PLAIN], None),
        ([class_object("off", default={"finetune.dev/is-default-class": "false"})], None),
        ([PLAIN, OLDER], "older"),
        ([OLDER, NEWER], "newer"),
        ([NEWER, OLDER], "newer"),
        ([class_object("a"), class_object("b")], "b"),
    ],
    ids=["none", "none is the default", "switched off", "the default one", "the newest", "in any order", "of one age"],
)
def test_the_default_class_is_the_annotated_one(classes: list[Any], chosen: str | None) -> None:
    found = default_class(classes)
    if chosen is None:
        assert isinstance(found, Readiness)
        assert found.reason == Reason.CLASS_NOT_FOUND
        assert "Set spec.className, or annotate a class" in found.message
    else:
        assert not isinstance(found, Readiness)
        assert found["metadata"]["name"] == chosen


IMAGE = "example.com/trainer:1"


@pytest.mark.parametrize(
    ("of_class", "of_operator", "used"),
    [(IMAGE, None, IMAGE), (IMAGE, "example.com/other:1", IMAGE), (None, IMAGE, IMAGE)],
    ids=["the class's", "the class's before the operator's", "the operator's"],
)
def test_the_trainer_image_is_the_classs_or_else_the_operators(
    of_class: str | None, of_operator: str | None, used: str
) -> None:
    found = resolve_class(class_object("cpu", images={"trainer": of_class}), of_operator)
    assert isinstance(found, ResolvedClass)
    assert (found.name, found.generation, found.spec.images.trainer) == ("cpu", 3, used)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"storage": None}, "FineTuneClass 'cpu' is invalid"),
        (
            {"images": {"trainer": None}},
            "does not set images.trainer, and the operator was started without --trainer-image",
        ),
    ],
)
def test_a_class_that_cannot_be_used_says_why(spec: dict[str, Any], told: str) -> None:
    found = resolve_class(class_object("cpu", **spec), None)
    assert isinstance(found, Readiness)
    assert (found.reason, found.stalled) == (Reason.INVALID_SPEC, True)
    assert told in found.message


def done(**changes: Any) -> FineTuneJobStatus:
    status = FineTuneJobStatus(phase="Succeeded", run_id="1", result=RESULT)
    return status.model_copy(update=changes)


BASE = ModelSource(uri="s3://models/base")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (FineTuneJobStatus(), (Reason.WAITING_FOR_MODEL, False)),
        (done(phase="Training", result=None), (Reason.WAITING_FOR_MODEL, False)),
        (done(run_id="0"), (Reason.WAITING_FOR_MODEL, False)),
        (done(phase="Failed", result=None), (Reason.WAITING_FOR_MODEL, True)),
        (done(phase="Failed", result=None, run_id="0"), (Reason.WAITING_FOR_MODEL, False)),
        (done(), ResolvedModel(ModelSource(uri=BASE.uri, adapter_uri=RESULT.uri, digest=RESULT.digest), BASE)),
        (
            done(result=RESULT.model_copy(update={"adapter_type": "Full"})),
            ResolvedModel(ModelSource(uri=RESULT.uri, digest=RESULT.digest), BASE),
        ),
    ],
    ids=["new", "trains", "result of an earlier run", "failed", "an earlier run failed", "an adapter", "a whole model"],
)
def test_the_model_of_a_fine_tuning_job(status: FineTuneJobStatus, expected: Any) -> None:
    found = tuned_model("router", job_spec(), status)
    if isinstance(expected, ResolvedModel):
        assert found == expected
    else:
        assert isinstance(found, Readiness)
        assert (found.reason, found.stalled) == expected
        assert "FineTuneJob 'router'" in found.message
        assert not isinstance(found, Undecided)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (done(result=RESULT.model_copy(update={"adapter_type": "OfLater"})), "OfLater"),
        (
            done(
                run_id="2",
                history=[EndedRun(run_id="1", phase="Succeeded", reason="Succeeded", completion_time=NOW)],
            ),
            "rejects its spec: runId '1'",
        ),
    ],
    ids=["of another version", "refused"],
)
def test_a_job_that_says_nothing_of_its_model_decides_nothing(status: FineTuneJobStatus, why: str) -> None:
    found = tuned_model("router", job_spec(), status)
    assert isinstance(found, Undecided)
    assert why in found.message


@pytest.mark.parametrize("broken", [{"spec": {}}, {"status": {"startTime": "soon"}}], ids=["spec", "status"])
async def test_a_job_that_can_not_be_read_decides_nothing(broken: Any) -> None:
    path = FINE_TUNE_JOBS.path("team-a", "router")
    kube = FakeKube({f"GET {path}": {"spec": JOB_WIRE, "status": done().to_wire(), **broken}})
    reference = Model(fine_tune_job_ref=LocalObjectReference(name="router"))
    assert isinstance(await resolve_model(kube, "team-a", reference), Undecided)


def test_a_pod_can_name_the_secret_that_its_storage_refuses() -> None:
    assert storage_config(class_spec()).credentials_secret_name == "s3-credentials"
