"""FineTuneClass, as the runtime knows it."""

from __future__ import annotations

from collections.abc import Hashable

from finetune_api.finetuneclass import DEFAULT_CLASS_ANNOTATION, FineTuneClassStatus
from finetune_operator.core.kind_definition import Body, Kind
from finetune_operator.core.references import DEFAULT_CLASS, ObjectKey
from finetune_operator.environment import Environment
from finetune_operator.finetuneclass.observe import observe
from finetune_operator.finetuneclass.plan import plan
from finetune_operator.kube.resources import FINE_TUNE_CLASSES


def finetuneclass(environment: Environment) -> Kind:
    """Nothing is made for a class; it wakes what names it, or uses the default one."""
    return Kind(
        FINE_TUNE_CLASSES, FineTuneClassStatus, observe, plan, aliases=_aliases, read_by_others=_spec_and_default
    )


def _aliases(body: Body) -> frozenset[ObjectKey]:
    return frozenset({DEFAULT_CLASS}) if _is_default(body) else frozenset()


def _spec_and_default(body: Body) -> Hashable:
    """Nothing that uses a class reads its status or its other metadata."""
    metadata = body["metadata"]
    return metadata.get("uid"), metadata.get("generation"), _is_default(body)


def _is_default(body: Body) -> bool:
    annotations = body["metadata"].get("annotations") or {}
    is_default: bool = annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"
    return is_default
