"""The best trial on examples that its choice did not depend on: what is missing, and what the message says. Pure."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus, Holdout
from finetune_operator.core.conditions import Readiness, known_reason, progressing, stalled
from finetune_operator.finetunesweep.objects import holdout_evaluation
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep
from finetune_operator.finetunesweep.search.best import interval
from finetune_operator.finetunesweep.smallest_model.choice import PASSED
from finetune_operator.finetunesweep.trials import may_begin, running
from finetune_operator.kube.resources import Object


def is_pending(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> bool:
    """Whether the score of the best trial is still to be measured."""
    found = status.holdout
    return asked(spec) is not None and found is not None and found.score is None and found.reason is None


def missing_evaluation(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> list[Object]:
    """The Evaluation that is still to be created."""
    measured, examples = observed.spec.measured, asked(observed.spec)
    found, best = status.holdout, status.best
    known = observed.status.holdout
    is_there = observed.holdout is not None and known is not None and found is not None and known.number == found.number
    if measured is None or examples is None or found is None or best is None or is_there:
        return []
    if not is_pending(observed.spec, status) or running(status) or may_begin(observed.spec, status):
        return []
    return [holdout_evaluation(observed.owner, observed.spec, measured, examples, best, found.evaluation_name)]


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


def holdout_message(status: FineTuneSweepStatus) -> str:
    """The score, as the end of a message; empty if none was asked for."""
    found = status.holdout
    if found is None:
        return ""
    if found.score is None:
        return f" On the holdout examples it has no score ({found.reason}): see Evaluation {found.evaluation_name!r}."
    judged = {None: "", PASSED: ", and passes the gates there, too"}
    verdict = judged.get(found.verdict, f", and does not pass the gates there ({found.verdict})")
    return (
        f" On the holdout examples, which its choice did not depend on, it has {found.score:.4g}"
        f"{interval(found.low, found.high)}{verdict}."
    )


def asked(spec: FineTuneSweepSpec) -> Holdout | None:
    """The examples; None: the best is not measured once more."""
    return None if spec.measured is None else spec.measured.holdout
