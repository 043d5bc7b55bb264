"""Which run the spec asks for, and whether the status is of that one."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import ConditionType
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.digest import digest, without
from finetune_operator.evaluation.candidates import candidate_digests, models_to_evaluate
from finetune_operator.evaluation.observed import ObservedEvaluation

NOT_MEASURED = CHANGEABLE_WITHIN_A_RUN | {"className", "gates", "safetyGates", "nodes"}
"""The fields of a spec that decide nothing about what a run measures."""


def run_digest(spec: EvaluationSpec) -> str:
    """Eight characters for what a run measures: a rollback in git may bring back a runId with another spec."""
    return digest(without(spec, NOT_MEASURED), 8)


def is_same_run(observed: ObservedEvaluation) -> bool:
    """Whether the status describes the run of this spec with the current models.

    While a candidate is being retrained, the status still describes the previous model.
    """
    spec, status, models = observed.spec, observed.status, models_to_evaluate(observed)
    if status.run_id != spec.run_id:
        return False
    if status.phase == "Cancelled":  # whatever becomes of its models
        return True
    if status.run_digest not in (None, run_digest(spec)) and not _is_recorded(status, observed.generation):
        return False
    return isinstance(models, Readiness) or status.candidate_digests == candidate_digests(models)


def new_run(observed: ObservedEvaluation, before: EvaluationStatus, now: datetime) -> EvaluationStatus:
    """The status with which a run begins, after the one before it."""
    spec = observed.spec
    return EvaluationStatus(conditions=before.conditions, run_id=spec.run_id, run_digest=run_digest(spec))


def _is_recorded(status: EvaluationStatus, generation: int) -> bool:
    """Whether the run ended with this generation: then a digest that differs comes from another operator version.

    A run without an end, or one that was rejected or unreadable later, is identified only by its digest.
    """
    return any(
        condition.type in (ConditionType.PASSED, ConditionType.FAILED) and condition.observed_generation == generation
        for condition in status.conditions
    )
