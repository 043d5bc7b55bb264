"""The Job that deletes what the runs of a FineTuneJob stored."""

from __future__ import annotations

from finetune_api.pod_contracts.run import RUN_CONFIG_PATH, DeleteRun, JobIdentity
from finetune_operator.core.ownership import Owner, child_name, controlled_by_class
from finetune_operator.finetuneclass.resolve import ResolvedClass, storage_config
from finetune_operator.kube.resources import Object
from finetune_operator.pods.builders import PodRole, annotated_job
from finetune_operator.pods.roles import DELETE_ROLE

STORAGE_DEADLINE_SECONDS = 600
ENDED_KEPT_SECONDS = 3600
"""The Job's ttlSecondsAfterFinished, in case no operator deletes it."""


def delete_job(owner: Owner, run_id: str, class_: ResolvedClass, folders: list[str], number: int) -> Object:
    """The Job that deletes the stored objects.

    Its owner is the class: a foreground deletion of the FineTuneJob would delete the Job before it has finished.
    """
    run = DeleteRun(
        job=JobIdentity(namespace=owner.namespace, name=owner.name, uid=owner.uid, run_id=run_id),
        storage=storage_config(class_.spec),
        folder_uris=folders,
    )
    body = annotated_job(
        owner,
        # The UID, because a recreated class does not own the Job of its predecessor.
        child_name(owner, DELETE_ROLE, class_.uid, number),
        PodRole(DELETE_ROLE, (DELETE_ROLE, RUN_CONFIG_PATH)),
        class_.spec,
        {"run.json": run.model_dump_json(by_alias=True)},
        deadline_seconds=STORAGE_DEADLINE_SECONDS,
        ttlSecondsAfterFinished=ENDED_KEPT_SECONDS,
    )
    body["metadata"]["ownerReferences"] = controlled_by_class(class_.name, class_.uid)
    return body
