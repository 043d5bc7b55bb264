"""Which models an Evaluation judges: its candidates, and their baseline."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.evaluation import BASELINE
from finetune_api.run import ModelSource, NamedModel
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.models.resolve import ResolvedModel, Undecided


def models_to_judge(observed: ObservedEvaluation) -> list[NamedModel] | Readiness:
    """Candidates and baseline, ready to be loaded; the first one that is not says why."""
    models: list[NamedModel] = []
    baseline, found = observed.baseline, [model for _, model in observed.candidates]
    waiting = [one for one in (*found, baseline) if isinstance(one, Readiness)]
    if waiting:
        # One that is not there decides, whatever is undecided of the others.
        return next((one for one in waiting if not isinstance(one, Undecided)), waiting[0])
    for name, model in observed.candidates:
        assert not isinstance(model, Readiness)
        models.append(NamedModel(name=name, model=model.source))
        if baseline is None and model.base is not None:
            baseline = ResolvedModel(model.base)
    assert not isinstance(baseline, Readiness)
    if baseline is not None:
        models.insert(0, NamedModel(name=BASELINE, model=_without_digest(baseline.source)))
    return models


def candidate_digests(models: Sequence[NamedModel]) -> dict[str, str]:
    """What tells each candidate from another model at the same place, by its name."""
    return {model.name: model.model.digest for model in models if model.model.digest is not None}


def _without_digest(source: ModelSource) -> ModelSource:
    """The baseline is not a candidate: its digest does not say what was judged."""
    return source.model_copy(update={"digest": None})
