"""What to do next for an Evaluation: every policy, in order, and the phase for each reason.

A mutator records what has happened. A decider may decide what to do; the first that does ends the list.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Mutator, Phases, decided
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.policies.class_limits import wait_for_class
from finetune_operator.evaluation.policies.decision import EvaluationDecision, EvaluationPlan
from finetune_operator.evaluation.policies.earlier_pods import wait_for_earlier_pods
from finetune_operator.evaluation.policies.evaluating import record_disruption, start_try, watch_try
from finetune_operator.evaluation.policies.finished import keep_finished
from finetune_operator.evaluation.policies.models import wait_for_models
from finetune_operator.evaluation.policies.results import take_scores
from finetune_operator.evaluation.policies.retry import fail_or_retry, retry_disrupted, wait_for_retry_time
from finetune_operator.evaluation.policies.run_id import begin_run

POLICIES: tuple[Mutator[ObservedEvaluation, EvaluationStatus] | Decider[ObservedEvaluation, EvaluationStatus], ...] = (
    Decider(keep_finished),  # a finished run, judged by the current gates, until its runId or a model changes
    Decider(wait_for_class),  # no class, or one that does not allow the spec's sources; a running try continues
    Decider(wait_for_models),  # a candidate or the baseline does not exist yet
    Mutator(begin_run),  # another runId or model, or a changed spec
    # Evaluating: the newest try.
    Mutator(record_disruption),  # why the infrastructure is ending the Pod
    Decider(watch_try),  # it has no result yet
    Decider(retry_disrupted),  # Retrying: the infrastructure ended it, which never counts
    Decider(fail_or_retry),  # Failed or Retrying: it failed
    Decider(take_scores),  # Passed or GateFailed: it has the scores
    # Nothing runs: whether the next try may start.
    Decider(wait_for_retry_time),  # it is not time yet
    Decider(wait_for_earlier_pods),  # a Pod of an earlier try is still running
    Decider(start_try),  # always decides
)

FINISHED: frozenset[Phase] = frozenset({"Passed", "GateFailed", "Inconclusive", "Failed"})
"""The phases of a run that is over. While it waits for a class or a model it is not, even if it keeps older results."""
PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Waiting",
        Reason.EVALUATING: "Evaluating",
        Reason.RETRYING: "Retrying",
        Reason.EVALUATED: "Passed",
        Reason.GATE_FAILED: "GateFailed",
        Reason.INCONCLUSIVE: "Inconclusive",
        Reason.BUDGET_EXCEEDED: "Inconclusive",
    },
    failed="Failed",
)
"""For a diagnosis, the phase follows from Decision.meanwhile."""


def plan(observed: ObservedEvaluation, now: datetime) -> EvaluationPlan:
    """The writes that bring the evaluation one step further."""
    return decided(POLICIES, observed, observed.status, _phase, now)


def _phase(decision: EvaluationDecision, readiness: Readiness) -> Phase:
    return PHASES.of(readiness, decision.meanwhile or Reason.EVALUATING, decision.status.phase or "Waiting")
