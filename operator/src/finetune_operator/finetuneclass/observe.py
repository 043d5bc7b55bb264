"""Reading a FineTuneClass: for its own plan, and for the objects that run with it."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from finetune_api.conditions import Reason
from finetune_api.finetuneclass import FineTuneClassSpec, FineTuneClassStatus
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetuneclass.observed import ObservedFineTuneClass
from finetune_operator.finetuneclass.resolve import ResolvedClass, default_class, resolve_class
from finetune_operator.kube.parsed import status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, Object


async def observe(reader: Reader, parent: Object) -> ObservedFineTuneClass:
    """Parse the class."""
    error = None
    try:
        FineTuneClassSpec.from_storage(parent["spec"])
    except ValidationError as invalid:
        error = str(invalid)
    status = status_of(FineTuneClassStatus, parent)
    return ObservedFineTuneClass(parent["metadata"]["generation"], status, error)


async def observe_classes(
    reader: Reader, names: Iterable[str], trainer_image: str | None
) -> dict[str, ResolvedClass | Readiness]:
    """The classes of these names."""
    return {name: await observe_class(reader, name, trainer_image) for name in sorted(names)}


async def observe_class(reader: Reader, class_name: str | None, trainer_image: str | None) -> ResolvedClass | Readiness:
    """The named class, or the default one; a Readiness that says why there is none.

    `trainer_image` is used where the class names none.
    """
    if class_name is not None:
        named = await reader.get(FINE_TUNE_CLASSES, None, class_name)
        if named is None:
            return stalled(
                Reason.CLASS_NOT_FOUND,
                f"FineTuneClass {class_name!r} does not exist. Create it, or name another one in spec.className "
                "(`kubectl get ftc` lists them).",
            )
        return resolve_class(named, trainer_image)
    found = default_class(await reader.list(FINE_TUNE_CLASSES))
    return found if isinstance(found, Readiness) else resolve_class(found, trainer_image)
