"""Observed states of a Dataset for the tests of its plan."""

from __future__ import annotations

from typing import Any

from finetune_api.dataset import DatasetSpec, DatasetStatus, Revision, SplitStatus
from finetune_api.pod_contracts.outcome import DatasetReport
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.dataset.objects import build_job_name
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.run_identity import run_digest
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.pods.observed import JobView, PodView
from tests.unit.operator.states import ago, merged, resolved_class

DATASET = Owner("Dataset", "team-a", "tickets", "5a2b7d10-1111-4bb1-9d2e-7a4f1c86e3d5")
SPEC: dict[str, Any] = {"source": {"uri": "s3://data/tickets.jsonl"}}


def dataset_spec(**changes: Any) -> DatasetSpec:
    return DatasetSpec.from_wire(merged(SPEC, changes))


def run_of(number: int = 1, **changes: Any) -> str:
    """The run's part of names: of this number, of the spec with these changes."""
    spec = dataset_spec(**changes)
    return f"{spec.run_id}-{run_digest(spec, number)}"


def dataset_job(try_number: int = 1, run: str | None = None) -> str:
    return build_job_name(DATASET, run or run_of(), try_number)


FOLDER = f"s3://models/finetune/team-a/tickets/{run_of()}-5a2b7d10"


def revision(folder: str = FOLDER, **changes: Any) -> Revision:
    found = Revision(
        digest="sha256:aa",
        uri=f"{folder}/result/claim-000001",
        format="Chat",
        examples=90,
        splits=[
            SplitStatus(name="training", uri=f"{folder}/result/t.jsonl", examples=80, size=4000, sha256="bb"),
            SplitStatus(name="test", uri=f"{folder}/result/e.jsonl", examples=10, size=500, sha256="cc"),
        ],
    )
    return found.model_copy(update=changes)


REPORT = DatasetReport(revision=revision())


def dataset_status(**changes: Any) -> DatasetStatus:
    """The first try of the first run has started."""
    status = DatasetStatus(
        phase="Building",
        run_id="1",
        run_number=1,
        run_digest=run_digest(dataset_spec(), 1),
        try_number=1,
        job_name=dataset_job(),
        storage_uri=FOLDER,
        class_name="cpu",
        start_time=ago(60),
    )
    return status.model_copy(update=changes)


def built_status(**changes: Any) -> DatasetStatus:
    """The revision is there."""
    return dataset_status(
        **{"phase": "Succeeded", "revision": revision(), "completion_time": ago(9), "observed_generation": 1, **changes}
    )


def observed_dataset(
    status: DatasetStatus | None = None,
    *jobs: JobView,
    pods: tuple[PodView, ...] = (),
    spec: DatasetSpec | None = None,
    class_: ResolvedClass | Readiness | None = None,
    **changes: Any,
) -> ObservedDataset:
    return ObservedDataset(
        **{
            "owner": DATASET,
            "generation": 1,
            "spec": spec or dataset_spec(),
            "status": status or DatasetStatus(),
            "class_": class_ or resolved_class(),
            "jobs": jobs,
            "pods": pods,
            "created": ago(100),
            **changes,
        }
    )
