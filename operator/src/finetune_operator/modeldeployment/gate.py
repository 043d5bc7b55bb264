"""Whether a model may be served: only what its evaluation has judged, and passed, may."""

from __future__ import annotations

from finetune_api.conditions import ConditionType, Reason
from finetune_api.evaluation import ModelReference
from finetune_operator.modeldeployment.observe import GateEvaluation
from finetune_operator.models import ResolvedModel
from finetune_operator.status import Standing, progressing, stalled


def gate_standing(
    gate: GateEvaluation | Standing | None, name: str, reference: ModelReference, model: ResolvedModel
) -> Standing | None:
    """None when the way is free, else what the deployment waits for."""
    if gate is None or isinstance(gate, Standing):
        return gate
    candidate = next((item for item in gate.spec.candidates if item.model == reference), None)
    if candidate is None:
        return stalled(
            Reason.GATE_FAILED,
            f"Evaluation {name!r} does not judge this model: none of its candidates has the same model reference as "
            "spec.model. Add it to the evaluation's candidates.",
        )
    if model.source.digest is None:
        return stalled(
            Reason.GATE_FAILED,
            f"Evaluation {name!r} can't vouch for this model: what is at its URI may change, and no digest is known. "
            "Name the FineTuneJob that made it (spec.model.fineTuneJobRef), in both objects.",
        )
    # A verdict on another model, by gates that were changed since, or of an earlier run is none.
    judged = (
        gate.status.candidate_digests.get(candidate.name) == model.source.digest
        and gate.status.observed_generation == gate.generation
        and gate.status.run_id == gate.spec.run_id
    )
    passed = next((item for item in gate.status.conditions if item.type == ConditionType.PASSED), None)
    if passed is None or not judged:
        return progressing(
            Reason.WAITING_FOR_GATE,
            f"Evaluation {name!r} has not judged this model yet ({gate.status.phase or 'new'}).",
        )
    if passed.status != "True":
        return stalled(
            Reason.GATE_FAILED, f"Evaluation {name!r} did not pass: {passed.message} The model is not served."
        )
    return None
