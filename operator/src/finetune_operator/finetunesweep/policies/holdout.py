"""objective.evaluation.holdout: once the best trial is known, it is measured on examples that its choice never saw.

The sweep ends when that has ended, however it did: the choice stands.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import LINE_LENGTH
from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus, Holdout, HoldoutScore
from finetune_operator.core.conditions import Readiness, known_reason, progressing, stalled
from finetune_operator.finetunesweep.objects import cancelled, holdout_evaluation, holdout_name
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepPlan, TrialJob
from finetune_operator.finetunesweep.trials import ENDED, NO_SCORE, counted, failures, may_begin, running
from finetune_operator.kube.resources import Object


def record_holdout(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Name the Evaluation of the best trial once there is one for good, and record its score."""
    spec, status, job = observed.spec, plan.status, observed.holdout
    is_over = failures(status) >= spec.budget.failures or spec.cancel
    if _asked(spec) is None or is_over or running(status) or may_begin(spec, status):
        return plan
    status = counted(spec, status)
    best, known = status.best, status.holdout
    if best is None:
        return plan
    if known is None or known.number != best.number:
        # Another one is the best if a larger budget allowed more trials meanwhile.
        name = holdout_name(observed.owner, status.run_number, best.number)
        found = HoldoutScore(number=best.number, evaluation_name=name)
        merge = [cancelled(observed.owner, "", job)] if job is not None and job.phase not in ENDED else []
        return replace(plan, status=status.model_copy(update={"holdout": found}), merge=(*plan.merge, *merge))
    if is_pending(spec, status) and job is not None and job.phase in ENDED:
        status = status.model_copy(update={"holdout": _with_end(known, job)})
    return replace(plan, status=status)


def is_pending(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> bool:
    """Whether the score of the best trial is still to be measured."""
    found = status.holdout
    return _asked(spec) is not None and found is not None and found.score is None and found.reason is None


def missing_evaluation(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> list[Object]:
    """The Evaluation that is still to be created."""
    measured, asked = observed.spec.measured, _asked(observed.spec)
    found, best = status.holdout, status.best
    known = observed.status.holdout
    is_there = observed.holdout is not None and known is not None and found is not None and known.number == found.number
    if measured is None or asked is None or found is None or best is None or is_there:
        return []
    if not is_pending(observed.spec, status) or running(status) or may_begin(observed.spec, status):
        return []
    return [holdout_evaluation(observed.owner, observed.spec, measured, asked, best, found.evaluation_name)]


def holdout_readiness(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> Readiness:
    """What is waited for while it is pending."""
    job, found = observed.holdout, status.holdout
    assert found is not None, "it is pending"
    name = found.evaluation_name
    if job is not None and job.is_stalled:
        return stalled(known_reason(job.reason), f"Evaluation {name!r} of the best trial is Stalled: {job.message}")
    return progressing(
        Reason.SEARCHING,
        f"Every trial has ended. Evaluation {name!r} measures the best on spec.objective.evaluation.holdout.",
    )


def told(status: FineTuneSweepStatus) -> str:
    """The score, as the end of a message; empty if none was asked for."""
    found = status.holdout
    if found is None:
        return ""
    if found.score is None:
        return f" On the holdout examples it has no score ({found.reason}): see Evaluation {found.evaluation_name!r}."
    return (
        f" On the holdout examples, which its choice did not depend on, it has {found.score:.4g} "
        f"({found.low:.4g} to {found.high:.4g})."
    )


def _asked(spec: FineTuneSweepSpec) -> Holdout | None:
    return None if spec.measured is None else spec.measured.holdout


def _with_end(found: HoldoutScore, job: TrialJob) -> HoldoutScore:
    score = job.score if job.phase == "Succeeded" else None
    if score is not None:
        return found.model_copy(update={"score": score.score, "low": score.low, "high": score.high})
    reason = NO_SCORE if job.phase == "Succeeded" else job.reason or str(job.phase)
    return found.model_copy(update={"reason": reason[:LINE_LENGTH]})
