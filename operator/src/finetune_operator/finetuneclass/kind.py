"""FineTuneClass, as the runtime knows it."""

from __future__ import annotations

from finetune_api.finetuneclass import DEFAULT_CLASS_ANNOTATION, FineTuneClassStatus
from finetune_operator.core.kind_definition import Body, Kind
from finetune_operator.core.references import DEFAULT_CLASS, ObjectKey
from finetune_operator.environment import Environment
from finetune_operator.finetuneclass.observe import observe
from finetune_operator.finetuneclass.plan import plan
from finetune_operator.kube.resources import FINE_TUNE_CLASSES


def finetuneclass(environment: Environment) -> Kind:
    """Nothing is made for a class; it wakes what names it, or uses the default one."""
    return Kind(FINE_TUNE_CLASSES, FineTuneClassStatus, observe, plan, aliases=_aliases)


def _aliases(body: Body, event: str | None) -> frozenset[ObjectKey]:
    """A class that stops being the default matters too, and is seen only by its deletion or its change."""
    annotations = body["metadata"].get("annotations") or {}
    may_be_default = event in ("DELETED", "MODIFIED") or annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"
    return frozenset({DEFAULT_CLASS}) if may_be_default else frozenset()
