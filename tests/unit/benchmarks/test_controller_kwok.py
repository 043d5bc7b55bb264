"""What kwok plays: the operator has to take the reports of its Pods for those of the job and of the Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.controller import kwok
from benchmarks.controller.products import ours
from benchmarks.controller.products.kubeflow.product import Kubeflow
from benchmarks.controller.products.ours import OnRevisions, Ours
from benchmarks.controller.products.product import FINISHING
from e2e.cluster.components.control_plane import ControlPlane
from finetune_api.dataset import DatasetSpec
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_operator.dataset import objects as dataset_objects
from finetune_operator.dataset import run_identity as dataset_run_identity
from finetune_operator.finetunejob.run_identity import run_digest

PLANE = ControlPlane(Path("/nowhere"), "https://127.0.0.1:1", Path("/nowhere/kubeconfig"))


@pytest.mark.parametrize("product", [Ours(PLANE), OnRevisions(PLANE)], ids=["files", "revisions"])
def test_the_finishing_job_gets_a_result_in_the_folder_of_its_own_run(product: Ours) -> None:
    job = product.job(FINISHING, kwok.TEAM)
    digest = run_digest(FineTuneJobSpec.from_storage(job["spec"]), 1)
    assert f"/{FINISHING}/1-{digest}-" in kwok.train_report(job).result.uri


def test_the_two_kinds_of_jobs_differ_in_their_examples_alone() -> None:
    files, revisions = Ours(PLANE).job("a", "team-00"), OnRevisions(PLANE).job("a", "team-00")
    assert revisions["spec"].pop("dataset") == {
        "training": {"datasetRef": {"name": "tickets", "split": "training"}},
        "validation": {"datasetRef": {"name": "tickets", "split": "validation"}},
    }
    assert files["spec"].pop("dataset")
    assert files == revisions


def test_a_dataset_gets_a_revision_in_the_folder_of_its_run_with_both_splits() -> None:
    revision = kwok.dataset_report().revision
    digest = dataset_run_identity.run_digest(DatasetSpec.from_storage(ours.DATASET["spec"]), 1)
    assert f"/tickets/1-{digest}-" in revision.uri
    assert [split.name for split in revision.splits] == ["training", "validation"]
    assert sum(split.examples for split in revision.splits) == revision.examples


def test_each_product_has_the_ends_of_its_own_pods() -> None:
    def labels(stages: list[dict[str, Any]]) -> list[dict[str, str]]:
        return [stage["spec"]["selector"]["matchLabels"] for stage in stages]

    roles = [one["finetune.dev/role"] for one in labels(kwok._ends(OnRevisions(PLANE)))]
    assert roles == ["preflight", "train", dataset_objects.DATASET_ROLE]
    rival: Any = type("Rival", (), {"jobs": Kubeflow.jobs})()
    assert labels(kwok._ends(rival)) == [{kwok.JOBSET_LABEL: FINISHING}]
