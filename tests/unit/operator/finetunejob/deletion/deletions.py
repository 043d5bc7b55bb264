"""Deleted FineTuneJobs, and what is decided about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finetune_api.pod_contracts.run import DeleteRun
from finetune_operator.core.ownership import child_name
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.deletion.observed import ObservedDeletion
from finetune_operator.finetunejob.deletion.plan import plan
from finetune_operator.pods.observed import JobView, PodView
from tests.unit.operator.states import (
    NOW,
    OWNER,
    STORAGE_URI,
    ago,
    files_of,
    job,
    resolved_class,
    trained_status,
)

FOLDER = "s3://models/finetune/team-a/router"
DELETING = resolved_class(reclaimPolicy="Delete")
STATUS = trained_status(storage_uri=STORAGE_URI, class_name="cpu")


def try_name(number: int) -> str:
    return child_name(OWNER, "delete", "u-cpu", number)


def tried(number: int, state: Any = "Active", **changes: Any) -> JobView:
    return job(try_name(number), state, role="delete", created=ago(100 - number), **changes)


def deletion(*jobs: JobView, pods: tuple[PodView, ...] = (), **changes: Any) -> ObservedDeletion:
    """A job that was deleted ten seconds ago, after it had trained."""
    observed = ObservedDeletion(
        owner=OWNER,
        generation=1,
        status=STATUS,
        class_name="cpu",
        class_=DELETING,
        deleted=ago(10),
        jobs=jobs,
        pods=pods,
    )
    return replace(observed, **changes)


def removal(observed: ObservedDeletion) -> dict[str, Any]:
    (made,) = plan(observed, NOW).plan.create
    return made


def removed(observed: ObservedDeletion) -> list[str]:
    return DeleteRun.model_validate_json(files_of(removal(observed))["run.json"]).folder_uris


def named(name: str, **changes: Any) -> ResolvedClass:
    return replace(resolved_class(**changes), name=name, uid=f"u-{name}")


PROD = "s3://models/prod/team-a/router"
RECLAIMING = named("prod", reclaimPolicy="Delete", storage={"prefix": "prod"})
