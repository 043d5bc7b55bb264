"""Whether the FineTuneClass allows the spec's sources and has the models that it asks; and the spec is valid."""

from __future__ import annotations

from finetune_api.dataset import PROMPTS, SOURCE, DatasetPart, DatasetSpec
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.finetunejob import DatasetSource
from finetune_operator.core.conditions import Readiness, first_missing
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.finetuneclass.resolve import ResolvedClass, deadline_violation, source_violation


def parts_of(spec: DatasetSpec, prompts: PinnedRevision | None = None) -> list[DatasetPart]:
    """What is read: spec.merge, or spec.source or the prompts as the only part. `prompts`: what their datasetRef is;
    without it, such prompts are no part."""
    if spec.merge is not None:
        return spec.merge
    if spec.generate is None:
        assert spec.source is not None, "the union has one of them"
        return [_part(SOURCE, spec.source)]
    if spec.generate.prompts.dataset_ref is None:
        return [_part(PROMPTS, spec.generate.prompts)]
    return [] if prompts is None else [DatasetPart(name=PROMPTS, weight=1, uri=prompts.file_uri)]


def class_or_refusal(observed: ObservedDataset) -> ResolvedClass | Readiness:
    """The class for the Pod, or why no Pod may be created. Folders and globs are checked literally here; the trainer
    checks each file that they expand to."""
    found, spec = observed.class_, observed.spec
    if isinstance(found, Readiness):
        return found
    uris = [uri for part in parts_of(spec) for uri in (part.uri, *(part.uris or [])) if uri is not None]
    teacher = None if spec.generate is None else spec.generate.teacher.uri
    refused = (
        observed.refusal
        or source_violation(found.spec, models=[] if teacher is None else [teacher], datasets=uris)
        or deadline_violation(found, spec.active_deadline_seconds)
    )
    return refused or first_missing([observed.classifier, *observed.endpoints]) or found


def _part(name: str, source: DatasetSource) -> DatasetPart:
    return DatasetPart(name=name, weight=1, uri=source.uri, uris=source.uris, config_map_ref=source.config_map_ref)
