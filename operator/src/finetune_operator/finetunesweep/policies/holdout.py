"""objective.evaluation.holdout: once the best trial is known, it is measured on examples that its choice never saw.

The sweep ends when that has ended, however it did: the choice stands.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import LINE_LENGTH
from finetune_api.finetunesweep import HoldoutScore
from finetune_operator.finetunesweep.holdout import asked, is_pending
from finetune_operator.finetunesweep.objects import cancelled, holdout_name
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepPlan, TrialJob
from finetune_operator.finetunesweep.trials import ENDED, NO_SCORE, counted, has_failed, may_begin, running


def record_holdout(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Name the Evaluation of the best trial once there is one for good, and record its score."""
    spec, status, job = observed.spec, plan.status, observed.holdout
    is_over = has_failed(spec, status) or spec.cancel
    if asked(spec) is None or is_over or running(status) or may_begin(spec, status):
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
    if not is_pending(spec, status) or job is None or job.phase not in ENDED:
        return replace(plan, status=status)
    # One that can't measure what was chosen any more has not ended itself.
    merge = [cancelled(observed.owner, "", job)] if job.may_be_cancelled else []
    status = status.model_copy(update={"holdout": _with_end(known, job)})
    return replace(plan, status=status, merge=(*plan.merge, *merge))


def _with_end(found: HoldoutScore, job: TrialJob) -> HoldoutScore:
    score = job.score if job.phase == "Succeeded" else None
    if score is not None:
        update = {"score": score.score, "low": score.low, "high": score.high, "verdict": job.verdict}
        return found.model_copy(update=update)
    reason = NO_SCORE if job.phase == "Succeeded" else job.reason or str(job.phase)
    return found.model_copy(update={"reason": reason[:LINE_LENGTH]})
