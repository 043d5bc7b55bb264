"""Whether the FineTuneClass allows the spec's sources and has its classifier, and whether the spec is valid."""

from __future__ import annotations

from finetune_api.dataset import SOURCE, DatasetPart, DatasetSpec
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.finetuneclass.resolve import ResolvedClass, deadline_violation, source_violation


def parts_of(spec: DatasetSpec) -> list[DatasetPart]:
    """What the dataset is made of: spec.merge, or spec.source as the only part."""
    if spec.merge is not None:
        return spec.merge
    source = spec.source
    assert source is not None, "the union has one of them"
    return [DatasetPart(name=SOURCE, weight=1, uri=source.uri, uris=source.uris, config_map_ref=source.config_map_ref)]


def class_or_refusal(observed: ObservedDataset) -> ResolvedClass | Readiness:
    """The class for the Pod, or why no Pod may be created. Folders and globs are checked literally here; the trainer
    checks each file that they expand to."""
    found = observed.class_
    if isinstance(found, Readiness):
        return found
    uris = [uri for part in parts_of(observed.spec) for uri in (part.uri, *(part.uris or [])) if uri is not None]
    refused = (
        observed.refusal
        or source_violation(found.spec, models=[], datasets=uris)
        or deadline_violation(found, observed.spec.active_deadline_seconds)
    )
    return refused or (observed.classifier if isinstance(observed.classifier, Readiness) else None) or found


def allowed_class(observed: ObservedDataset) -> ResolvedClass:
    """The class for the Pod, after wait_for_class has let the dataset pass."""
    found = class_or_refusal(observed)
    assert isinstance(found, ResolvedClass), "wait_for_class decides before"
    return found
