"""Whether the FineTuneClass allows what the spec names (its spec.sources), and the graders can work."""

from __future__ import annotations

from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetuneclass.resolve import ResolvedClass, source_violation


def admitted_class(observed: ObservedEvaluation) -> ResolvedClass | Readiness:
    """The class to make Pods with, or why none may be made."""
    found = observed.class_
    if isinstance(found, Readiness):
        return found
    refused = source_violation(found.spec, models=_model_uris(observed), datasets=[observed.spec.dataset.uri])
    return refused or observed.refusal or found


def permitted_class(observed: ObservedEvaluation) -> ResolvedClass:
    """The class by which Pods are made, once nothing waits for it any more."""
    found = admitted_class(observed)
    assert isinstance(found, ResolvedClass), "wait_for_class decides before"
    return found


def _model_uris(observed: ObservedEvaluation) -> list[str]:
    references = [candidate.model for candidate in observed.spec.candidates]
    if observed.spec.baseline is not None:
        references.append(observed.spec.baseline.model)
    return [reference.uri for reference in references if reference.uri is not None]
