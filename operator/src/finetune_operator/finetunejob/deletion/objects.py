"""The Job that removes what the runs of a FineTuneJob wrote."""

from __future__ import annotations

from finetune_api.run import RUN_CONFIG_DIRECTORY, RUN_CONFIG_PATH, DeleteRun, JobIdentity
from finetune_operator.core.ownership import Owner, child_name, controlled_by_class
from finetune_operator.finetuneclass.resolve import ResolvedClass, storage_config
from finetune_operator.kube.resources import Object
from finetune_operator.pods.builders import PodRole, job
from finetune_operator.pods.roles import DELETE_ROLE

STORAGE_DEADLINE_SECONDS = 600
ENDED_KEPT_SECONDS = 3600
"""How long an ended Job is kept that no operator removes."""
RUN_ANNOTATION = "finetune.dev/run"


def delete_job(owner: Owner, run_id: str, class_: ResolvedClass, folders: list[str], number: int) -> Object:
    """The Job that removes the objects. It goes by itself, and its run configuration with it.

    Its owner is the class: a foreground deletion of the FineTuneJob would remove it before it has done its work.
    """
    run = DeleteRun(
        job=JobIdentity(namespace=owner.namespace, name=owner.name, uid=owner.uid, run_id=run_id),
        storage=storage_config(class_.spec),
        folder_uris=folders,
    )
    body = job(
        owner,
        # A class made anew does not control its namesake's Job, nor any class one of an older operator's.
        child_name(owner, DELETE_ROLE, class_.uid, number),
        PodRole(DELETE_ROLE, (DELETE_ROLE, RUN_CONFIG_PATH)),
        class_.spec,
        deadline_seconds=STORAGE_DEADLINE_SECONDS,
        ttlSecondsAfterFinished=ENDED_KEPT_SECONDS,
    )
    body["metadata"]["ownerReferences"] = controlled_by_class(class_.name, class_.uid)
    template = body["spec"]["template"]
    template["metadata"]["annotations"] |= {RUN_ANNOTATION: run.model_dump_json(by_alias=True)}
    file = {
        "path": RUN_CONFIG_PATH.removeprefix(f"{RUN_CONFIG_DIRECTORY}/"),
        "fieldRef": {"fieldPath": f"metadata.annotations['{RUN_ANNOTATION}']"},
    }
    volumes = [volume for volume in template["spec"]["volumes"] if volume["name"] != "run"]
    template["spec"]["volumes"] = [{"name": "run", "downwardAPI": {"items": [file]}}, *volumes]
    return body
