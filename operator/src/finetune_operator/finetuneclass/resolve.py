"""Which class an object uses, and whether the class allows what the object asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_api.conditions import Reason
from finetune_api.finetuneclass import DEFAULT_CLASS_ANNOTATION, FineTuneClassSpec
from finetune_api.pod_contracts.run import StorageConfig, run_folder
from finetune_api.sources import StorageLocation, is_allowed
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import Owner
from finetune_operator.kube.parsed import Parsed
from finetune_operator.kube.resources import Object

_class_spec = Parsed(FineTuneClassSpec.from_storage)


@dataclass(frozen=True)
class ResolvedClass:
    """The class that an object runs with."""

    name: str
    generation: int
    spec: FineTuneClassSpec
    uid: str

    def exceeded(self, field: str, asked: int, limit: str, allowed: int) -> str:
        """That a field of a spec asks for more than this member of spec.limits allows, and who can change that."""
        return (
            f"{field} is {asked}; FineTuneClass {self.name!r} allows {allowed}. Lower it, or ask the platform team to "
            f"raise limits.{limit} of the class."
        )


def deadline_violation(class_: ResolvedClass, asked: int | None) -> Readiness | None:
    """Why the class does not allow this spec.activeDeadlineSeconds; None if it does."""
    limit = class_.spec.limits.active_deadline_seconds
    if limit is None or asked is None or asked <= limit:
        return None
    message = class_.exceeded("spec.activeDeadlineSeconds", asked, "activeDeadlineSeconds", limit)
    return stalled(Reason.LIMIT_EXCEEDED, message)


def nodes_violation(class_: ResolvedClass, field: str, asked: int) -> Readiness | None:
    """Why the class does not allow so many nodes; None if it does."""
    limit = class_.spec.limits.nodes
    if asked <= limit:
        return None
    return stalled(Reason.LIMIT_EXCEEDED, class_.exceeded(field, asked, "nodes", limit))


def default_class(classes: Iterable[Object]) -> Object | Readiness:
    """The newest of the classes that are annotated as default, as for StorageClass."""
    defaults = [
        item for item in classes if item["metadata"].get("annotations", {}).get(DEFAULT_CLASS_ANNOTATION) == "true"
    ]
    if not defaults:
        return stalled(
            Reason.CLASS_NOT_FOUND,
            "spec.className is not set and no FineTuneClass is the default. Set spec.className, or annotate a class "
            f'with {DEFAULT_CLASS_ANNOTATION}: "true".',
        )
    return max(defaults, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))


def storage_config(class_spec: FineTuneClassSpec) -> StorageConfig:
    """How Pods reach the class's storage."""
    storage = class_spec.storage
    return StorageConfig(
        endpoint=storage.endpoint,
        region=storage.region,
        path_style=storage.path_style,
        ca_bundle=storage.ca_bundle,
        server_side_encryption=storage.server_side_encryption,
        outage_tolerance_seconds=storage.outage_tolerance_seconds,
        credentials_secret_name=storage.credentials_secret_name,
    )


def image_sources(class_spec: FineTuneClassSpec) -> list[str]:
    """Patterns of the URLs of images that datasets may name."""
    return [*class_spec.sources.datasets, *class_spec.sources.images]


def output_location(class_spec: FineTuneClassSpec, owner: Owner, run_id: str) -> StorageLocation:
    """The folder of a run: <prefix>/<namespace>/<name>/<run>-<uid>; `run_id` may be a run_key."""
    return job_location(class_spec, owner).join(run_folder(run_id, owner.uid))


def job_location(class_spec: FineTuneClassSpec, owner: Owner) -> StorageLocation:
    """The folder that holds the folders of all runs of this object, and of others of the same name."""
    return StorageLocation(class_spec.storage.bucket, class_spec.storage.prefix).join(owner.namespace, owner.name)


def answers_location(class_spec: FineTuneClassSpec, owner: Owner) -> StorageLocation:
    """The folder with what the class's models answered to the objects of a namespace; no object has such a name."""
    return StorageLocation(class_spec.storage.bucket, class_spec.storage.prefix).join(owner.namespace, "_answers")


def source_violation(
    class_spec: FineTuneClassSpec, *, models: Iterable[str], datasets: Iterable[str]
) -> Readiness | None:
    """The first URI that the class does not allow."""
    for kind, uris, allowed in (
        ("model", models, class_spec.sources.models),
        ("dataset", datasets, class_spec.sources.datasets),
    ):
        for uri in uris:
            if not is_allowed(uri, tuple(allowed)):
                return stalled(
                    Reason.SOURCE_NOT_ALLOWED,
                    f"The class does not allow the {kind} {uri!r}; it allows {', '.join(allowed) or 'none'}. Use one "
                    f"of these, or ask the platform team to extend spec.sources.{kind}s of the FineTuneClass.",
                )
    return None


def resolve_class(item: Object, trainer_image: str | None) -> ResolvedClass | Readiness:
    """A class as it is used: parsed, its images complete."""
    name = item["metadata"]["name"]
    try:
        spec = _class_spec(item["spec"])
    except ValidationError as error:
        return stalled(Reason.INVALID_SPEC, f"FineTuneClass {name!r} is invalid: {error}")
    if spec.images.trainer is None:
        if trainer_image is None:
            return stalled(
                Reason.INVALID_SPEC,
                f"FineTuneClass {name!r} does not set images.trainer, and the operator was started without "
                "--trainer-image. Set one of them.",
            )
        spec = spec.model_copy(update={"images": spec.images.model_copy(update={"trainer": trainer_image})})
    return ResolvedClass(name, item["metadata"]["generation"], spec, item["metadata"]["uid"])
