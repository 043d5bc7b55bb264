"""The storage folders of an object's runs: each run has a folder, inside the object's folder of a bucket and prefix.

A run's folder follows from its class and stays the same once training has started; a change of the class's bucket or
prefix applies to the next run only. The status records every folder with the class that wrote to it, so that the
object's deletion finds them all and applies each class's reclaimPolicy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from finetune_api.finetunejob import FineTuneJobStatus, StorageAccess, StorageFolder
from finetune_operator.core.ownership import Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass

FOLDERS_KEPT = 20
UNKNOWN_CLASS = ""
"""The class of a folder that is known only from the URI of a run."""


def with_folder(
    status: FineTuneJobStatus, run_uri: str, class_name: str, endpoint: str | None = None
) -> FineTuneJobStatus:
    """The status with a record of the folder above this run's, at this endpoint (empty: AWS's; None: unknown).

    Records are never replaced: otherwise a class that retains its data could be forgotten and the data be deleted. An
    unknown endpoint needs no record beside another one of the same folder and class.
    """
    uri, folders = _holding(run_uri), status.storage_folders
    endpoints = [one.endpoint for one in folders if (one.uri, one.class_name) == (uri, class_name)]
    if endpoints and (endpoint is None or None in endpoints or endpoint in endpoints):
        return status
    if len(folders) >= FOLDERS_KEPT:
        return status.model_copy(update={"more_storage_folders": True})
    found = StorageFolder(uri=uri, class_name=class_name, endpoint=endpoint)
    return status.model_copy(update={"storage_folders": [*folders, found]})


def at_its_endpoint(class_: ResolvedClass, status: FineTuneJobStatus) -> ResolvedClass:
    """The class with the endpoint where the run has its checkpoints, even if the class has changed since.

    Region and credentials change with the endpoint: no endpoint ever gets the credentials of another one.
    """
    if status.storage_endpoint in (None, endpoint_of(class_)):
        return class_
    update: dict[str, object] = {"endpoint": status.storage_endpoint or None}
    if (access := status.storage_access) is not None:
        update |= {
            "credentials_secret_name": access.credentials_secret_name,
            "service_account_name": access.service_account_name,
        }
        update |= {} if access.region is None else {"region": access.region}
        update |= {} if access.path_style is None else {"path_style": access.path_style}
    storage = class_.spec.storage.model_copy(update=update)
    return replace(class_, spec=class_.spec.model_copy(update={"storage": storage}))


def endpoint_of(class_: ResolvedClass) -> str:
    """The URL of the class's S3 endpoint; empty: AWS's."""
    return class_.spec.storage.endpoint or ""


def access_of(class_: ResolvedClass) -> StorageAccess:
    """How the class's Pods reach its endpoint, without the CA bundle, which is not secret and may change."""
    storage = class_.spec.storage
    return StorageAccess(
        region=storage.region,
        path_style=storage.path_style,
        credentials_secret_name=storage.credentials_secret_name,
        service_account_name=storage.service_account_name,
    )


def known_folders(owner: Owner, status: FineTuneJobStatus) -> dict[str, frozenset[str]]:
    """Every known folder of the object's runs with the classes that wrote there; no classes if they are unknown."""
    found: dict[str, set[str]] = {}
    for folder in status.storage_folders:
        found.setdefault(folder.uri, set()).add(folder.class_name)
    if status.storage_uri:
        found.setdefault(_holding(status.storage_uri), set()).add(status.class_name or UNKNOWN_CLASS)
    for run in status.history:
        if run.storage_uri:
            found.setdefault(_holding(run.storage_uri), set())
    return {uri: frozenset(found[uri] - {UNKNOWN_CLASS}) for uri in sorted(found) if _is_of(owner, uri)}


def folder_classes(folders: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The names of all classes that wrote to these folders."""
    return frozenset().union(*folders.values())


def _is_of(owner: Owner, folder: str) -> bool:
    """Whether this is a folder of the object: one invalid URI in a status must not block the deletion of the others."""
    bucket, *path = folder.removeprefix("s3://").split("/")
    return folder.startswith("s3://") and bool(bucket) and path[-2:] == [owner.namespace, owner.name]


def _holding(run_uri: str) -> str:
    return run_uri.rstrip("/").rpartition("/")[0]
