"""spec.candidates and spec.baseline: the models that an Evaluation compares."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.evaluation import BASELINE, Endpoint, Outputs
from finetune_api.run import NamedModel
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.observed import Answering, ObservedEvaluation
from finetune_operator.models.resolve import ResolvedModel, Undecided


def models_to_judge(observed: ObservedEvaluation) -> list[NamedModel] | Readiness:
    """The candidates and the baseline; if one of them can't be used yet, the reason."""
    models: list[NamedModel] = []
    baseline, found = observed.baseline, [model for _, model in observed.candidates]
    waiting = [one for one in (*found, baseline) if isinstance(one, Readiness)]
    if waiting:
        # A missing model takes precedence over one whose reference can't be resolved yet.
        return next((one for one in waiting if not isinstance(one, Undecided)), waiting[0])
    for name, model in observed.candidates:
        assert not isinstance(model, Readiness)
        models.append(_named(name, model))
        if baseline is None and isinstance(model, ResolvedModel) and model.base is not None:
            baseline = ResolvedModel(model.base)
    assert not isinstance(baseline, Readiness)
    if baseline is not None:
        models.insert(0, _without_digest(_named(BASELINE, baseline)))
    return models


def candidate_digests(models: Sequence[NamedModel]) -> dict[str, str]:
    """The digest of each candidate by name: it differs if the model at the same URI is another one."""
    digests = {model.name: model.model.digest for model in models if model.model is not None}
    return {name: digest for name, digest in digests.items() if digest is not None}


def _named(name: str, model: Answering) -> NamedModel:
    match model:
        case Endpoint():
            return NamedModel(name=name, endpoint=model.name)
        case Outputs():
            return NamedModel(name=name, outputs_uri=model.uri)
        case ResolvedModel():
            return NamedModel(name=name, model=model.source)


def _without_digest(baseline: NamedModel) -> NamedModel:
    """A new digest of the baseline starts no new run: only those of candidates do."""
    if baseline.model is None:
        return baseline
    return baseline.model_copy(update={"model": baseline.model.model_copy(update={"digest": None})})
