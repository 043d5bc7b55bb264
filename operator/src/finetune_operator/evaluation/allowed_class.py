"""Whether the FineTuneClass allows the spec's sources and has its endpoints, and whether the graders are valid."""

from __future__ import annotations

from finetune_api.evaluation import EvaluatedModel
from finetune_api.evaluation.safety import PromptSet
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_operator.core.conditions import Readiness, first_missing
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetuneclass.resolve import (
    ResolvedClass,
    deadline_violation,
    nodes_violation,
    source_violation,
)


def class_or_refusal(observed: ObservedEvaluation) -> ResolvedClass | Readiness:
    """The class for the Pods, or why no Pod may be created."""
    found = observed.class_
    if isinstance(found, Readiness):
        return found
    models = _models(observed)
    refused = source_violation(
        found.spec,
        models=[model.uri for model in models if model.uri is not None],
        datasets=[
            *([] if observed.spec.dataset.uri is None else [observed.spec.dataset.uri]),
            *(model.outputs.uri for model in models if model.outputs is not None),
            *(benchmark.mirror.uri for benchmark in observed.spec.benchmarks),
            *(grader.calibration.uri for grader in observed.spec.graders if grader.calibration is not None),
            *(one.uri for one in _prompt_sets(observed)),
        ],
    )
    refused = (
        refused
        or deadline_violation(found, observed.spec.active_deadline_seconds)
        or nodes_violation(found, "spec.nodes", observed.spec.nodes)
    )
    return refused or observed.refusal or first_missing(observed.endpoints) or found


def endpoints(observed: ObservedEvaluation) -> list[EndpointConfig]:
    """The endpoints of the class that the evaluation calls, after wait_for_class has let it pass."""
    return [endpoint for endpoint in observed.endpoints if isinstance(endpoint, EndpointConfig)]


def _prompt_sets(observed: ObservedEvaluation) -> list[PromptSet]:
    safety = observed.spec.safety
    return [] if safety is None else [*safety.prompt_sets, *safety.benign_sets]


def _models(observed: ObservedEvaluation) -> list[EvaluatedModel]:
    spec = observed.spec
    models = [candidate.model for candidate in spec.candidates]
    return models if spec.baseline is None else [*models, spec.baseline.model]
