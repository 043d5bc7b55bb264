"""Which folders the deletion of a FineTuneJob empties: those whose own class has reclaimPolicy: Delete at that time.

They are emptied with the credentials of the newest run's class. What those can't delete stays and is reported; what a
class retains stays and is not reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finetune_operator.core.conditions import Readiness
from finetune_operator.finetuneclass.resolve import ResolvedClass, job_location
from finetune_operator.finetunejob.deletion.observed import ObservedDeletion
from finetune_operator.finetunejob.storage_folders import endpoint_of, known_folders

_MORE = (
    "Its runs used more FineTuneClasses, or more folders, than its status could record, and one of these classes may "
    "retain its data."
)


@dataclass(frozen=True)
class Folder:
    """A folder that stays for another reason than reclaimPolicy: Retain."""

    uri: str
    why: str


@dataclass(frozen=True)
class Reclaimed:
    """The folders to be emptied, and those that stay and are reported."""

    removed: tuple[str, ...] = ()
    kept: tuple[Folder, ...] = ()


def reclaim(observed: ObservedDeletion) -> Reclaimed:
    """Decide for each folder of the object's runs whether it is emptied."""
    removed, kept = [], []
    for uri, names in _folders(observed).items():
        classes = {name: _class(observed, name) for name in sorted(names)}
        if observed.status.more_storage_folders:
            kept.append(Folder(uri, _MORE))
            continue
        if classes and all(_wants(found, "Retain") for found in classes.values()):
            continue
        why = _why_kept(observed, uri, classes)
        if why is not None:
            kept.append(Folder(uri, why))
            continue
        removed.append(uri)
        kept += [Folder(uri, other) for name, found in classes.items() for other in _elsewhere(observed, uri, found)]
    return Reclaimed(tuple(removed), tuple(kept))


def wants_storage_emptied(classes: Iterable[ResolvedClass | Readiness]) -> bool | None:
    """Whether one of the classes has reclaimPolicy: Delete; None if no readable one has, but some can't be read."""
    found = list(classes)
    if any(_wants(one, "Delete") for one in found):
        return True
    return None if any(isinstance(one, Readiness) for one in found) else False


def _folders(observed: ObservedDeletion) -> dict[str, frozenset[str]]:
    """The folders of this object's runs: the recorded ones, and the one of a run that may have started unrecorded."""
    found, class_ = known_folders(observed.owner, observed.status), observed.class_
    if observed.jobs and isinstance(class_, ResolvedClass):
        uri = job_location(class_.spec, observed.owner).uri
        found[uri] = found.get(uri, frozenset()) | {class_.name}
    return dict(sorted(found.items()))


def _class(observed: ObservedDeletion, name: str) -> ResolvedClass | Readiness:
    return observed.class_ if name == observed.class_name else observed.other_classes[name]


def _wants(found: ResolvedClass | Readiness, policy: str) -> bool:
    return isinstance(found, ResolvedClass) and found.spec.reclaim_policy == policy


def _why_kept(observed: ObservedDeletion, uri: str, classes: dict[str, ResolvedClass | Readiness]) -> str | None:
    """Why a folder that not all of its classes retain can't be emptied; None if it can."""
    class_ = observed.class_
    if not classes:
        return "It is not known which FineTuneClass it belongs to."
    for name, found in classes.items():
        if isinstance(found, Readiness):
            return found.message
        if found.spec.reclaim_policy != "Delete":
            return f"FineTuneClass {name!r}, whose runs wrote there too, has reclaimPolicy {found.spec.reclaim_policy}."
        if isinstance(class_, Readiness):
            return class_.message
        if _access(found) != _access(class_):
            return (
                f"FineTuneClass {name!r} has another endpoint or other credentials than {class_.name!r}, with "
                "which the storage is emptied."
            )
        if endpoint_of(found) not in (_endpoints(observed, uri, name) or {endpoint_of(found)}):
            return next(iter(_elsewhere(observed, uri, found)))
    return None


def _elsewhere(observed: ObservedDeletion, uri: str, found: ResolvedClass | Readiness) -> list[str]:
    """Why the part of the folder at endpoints that its class no longer has can't be deleted."""
    if isinstance(found, Readiness):
        return []
    current = endpoint_of(found) or "AWS"
    others = sorted(_endpoints(observed, uri, found.name) - {endpoint_of(found)})
    return [f"It is at {other or 'AWS'}, but FineTuneClass {found.name!r} now has {current}." for other in others]


def _endpoints(observed: ObservedDeletion, uri: str, class_name: str) -> set[str]:
    """The endpoints at which runs wrote to this folder with this class."""
    folders = [one for one in observed.status.storage_folders if (one.uri, one.class_name) == (uri, class_name)]
    return {one.endpoint for one in folders if one.endpoint is not None}


def _access(found: ResolvedClass) -> tuple[str | None, ...]:
    """Everything that decides whether two classes reach the same storage with the same credentials."""
    storage = found.spec.storage
    return storage.endpoint, storage.region, storage.credentials_secret_name, storage.service_account_name
