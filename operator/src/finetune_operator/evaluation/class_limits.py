"""Whether the FineTuneClass allows what the spec names (its spec.sources), and the graders can work."""

from __future__ import annotations

from finetune_api.evaluation import EvaluatedModel
from finetune_api.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetuneclass.resolve import ResolvedClass, source_violation


def class_or_refusal(observed: ObservedEvaluation) -> ResolvedClass | Readiness:
    """The class to make Pods with, or why none may be made."""
    found = observed.class_
    if isinstance(found, Readiness):
        return found
    models = _models(observed)
    refused = source_violation(
        found.spec,
        models=[model.uri for model in models if model.uri is not None],
        datasets=[
            observed.spec.dataset.uri,
            *(model.outputs.uri for model in models if model.outputs is not None),
            *(grader.calibration.uri for grader in observed.spec.graders if grader.calibration is not None),
        ],
    )
    return refused or observed.refusal or _missing_endpoint(observed) or found


def allowed_class(observed: ObservedEvaluation) -> ResolvedClass:
    """The class by which Pods are made, once nothing waits for it any more."""
    found = class_or_refusal(observed)
    assert isinstance(found, ResolvedClass), "wait_for_class decides before"
    return found


def endpoints(observed: ObservedEvaluation) -> list[EndpointConfig]:
    """The models of the class that are asked, once nothing waits for them any more."""
    return [endpoint for endpoint in observed.endpoints if isinstance(endpoint, EndpointConfig)]


def _missing_endpoint(observed: ObservedEvaluation) -> Readiness | None:
    """One that nothing but a change brings decides before one that is on its way."""
    missing = [endpoint for endpoint in observed.endpoints if isinstance(endpoint, Readiness)]
    return next((one for one in missing if one.stalled), missing[0] if missing else None)


def _models(observed: ObservedEvaluation) -> list[EvaluatedModel]:
    spec = observed.spec
    models = [candidate.model for candidate in spec.candidates]
    return models if spec.baseline is None else [*models, spec.baseline.model]
