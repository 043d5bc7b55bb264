"""Whether the Evaluation of spec.gate has judged and passed a model."""

from __future__ import annotations

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.evaluation import EvaluatedModel, ModelReference
from finetune_operator.core.conditions import UNREAD, Readiness, progressing, sentence, stalled
from finetune_operator.modeldeployment.observed import GateEvaluation, ObservedModelDeployment
from finetune_operator.models.resolve import ResolvedModel


def gate_readiness(observed: ObservedModelDeployment, model: ResolvedModel) -> Readiness | None:
    """None if the gate is open for the model of the spec, else what that waits for."""
    gate, reference = observed.gate, observed.spec.model
    name = observed.spec.gate.evaluation_ref.name if observed.spec.gate else ""
    if gate is None or isinstance(gate, Readiness):
        return gate
    if model.source.identity is None:
        return stalled(
            Reason.GATE_FAILED,
            f"Evaluation {name!r} can't gate a model given by URI: its files may change, and it has no digest. Refer "
            "to what made it (spec.model.fineTuneJobRef or sweepRef) in both objects. A model that no job made can be "
            "served only without a gate.",
        )
    candidate = next((item for item in gate.spec.candidates if _is_same(item.model, reference)), None)
    if candidate is None:
        return stalled(
            Reason.GATE_FAILED,
            f"Evaluation {name!r} does not evaluate this model: none of its candidates has the same model reference as "
            "spec.model. Add it to the evaluation's candidates.",
        )
    failed = _condition(gate, ConditionType.FAILED)
    if failed is not None and failed.status == "True" and gate.status.run_id == gate.spec.run_id:
        how = "was cancelled" if failed.reason == Reason.CANCELLED else "failed"
        return stalled(
            Reason.WAITING_FOR_GATE,
            f"Evaluation {name!r} {how} and has no result: {sentence(failed.message)} Waiting for a new run of it.",
        )
    passed = _condition(gate, ConditionType.PASSED)
    missing = _missing(gate, name, model, candidate.name)
    refused = _condition(gate, ConditionType.STALLED)
    if missing is not None and refused is not None and _is_unread(refused, gate.generation):
        return stalled(
            Reason.WAITING_FOR_GATE,
            f"Evaluation {name!r} is refused: {sentence(refused.message)} Fix the Evaluation; no new revision is "
            "served until then.",
        )
    if missing is not None or passed is None:
        return progressing(Reason.WAITING_FOR_GATE, missing or f"Evaluation {name!r} has not evaluated this model yet.")
    if passed.status == "Unknown":
        return stalled(Reason.INCONCLUSIVE, f"Evaluation {name!r} is inconclusive: {sentence(passed.message)}")
    if passed.status != "True":
        return stalled(Reason.GATE_FAILED, f"Evaluation {name!r} did not pass: {sentence(passed.message)}")
    return None


def _is_same(candidate: EvaluatedModel, reference: ModelReference) -> bool:
    judged = (candidate.uri, candidate.fine_tune_job_ref, candidate.sweep_ref, candidate.checkpoint)
    return judged == (reference.uri, reference.fine_tune_job_ref, reference.sweep_ref, reference.checkpoint)


def _is_unread(stall: Condition, generation: int) -> bool:
    """Whether the operator has rejected this very spec."""
    return stall.status == "True" and stall.reason in UNREAD and stall.observed_generation in (None, generation)


def _missing(gate: GateEvaluation, name: str, model: ResolvedModel, candidate: str) -> str | None:
    """Why no result counts: one for another model, of an earlier run, or by other gates does not."""
    status, wanted = gate.status, model.source.identity
    yet = f"Evaluation {name!r} has not evaluated this model yet"
    if status.run_id != gate.spec.run_id:
        return f"{yet}: its run {gate.spec.run_id!r} has not begun."
    if status.observed_generation != gate.generation:
        return f"{yet}: its spec has just changed."
    judged = status.candidate_digests.get(candidate)
    if judged != wanted:
        return f"{yet}: its result is for revision {judged or 'unknown'}, and the next one here is {wanted}."
    passed = _condition(gate, ConditionType.PASSED)
    if passed is not None and passed.observed_generation not in (None, gate.generation):
        return f"{yet}: its spec has just changed."
    if passed is None:
        return f"{yet}: it is {'running' if status.phase == 'Evaluating' else 'waiting'}."
    return None


def _condition(gate: GateEvaluation, kind: ConditionType) -> Condition | None:
    return next((item for item in gate.status.conditions if item.type == kind), None)
