"""What to do next for an Evaluation: every policy, in order.

A mutator writes down what has happened. A decider may say what is to be done; the first that does ends the list.
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
    Decider(keep_finished),  # a finished run stays as it is, judged by the gates of now, until runId or model change
    Decider(wait_for_class),  # no class, or none that allows what the spec names; a try that runs goes on
    Decider(wait_for_models),  # a candidate or the baseline is not there
    Mutator(begin_run),  # another runId, model or question
    # Evaluating: the newest try.
    Mutator(record_disruption),  # what the infrastructure says of the Pod
    Decider(watch_try),  # it has no answer yet
    Decider(retry_disrupted),  # Retrying: something else ended it, which never counts
    Decider(fail_or_retry),  # Failed or Retrying: it failed
    Decider(take_scores),  # Passed or GateFailed: it has the scores
    # Nothing runs: whether the next try may start.
    Decider(wait_for_retry_time),  # it is not time yet
    Decider(wait_for_earlier_pods),  # something runs that the operator has no hold of
    Decider(start_try),  # always decides
)

FINISHED: frozenset[Phase] = frozenset({"Passed", "GateFailed", "Inconclusive", "Failed"})
"""Of a run that is over. One that waits for a class or a model is not, whatever is kept of the run before."""
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
"""A diagnosis leaves the evaluation in the phase of what it does meanwhile, which each decision names."""


def plan(observed: ObservedEvaluation, now: datetime) -> EvaluationPlan:
    """The writes that bring the evaluation one step further."""
    return decided(POLICIES, observed, observed.status, _phase, now)


def _phase(decision: EvaluationDecision, readiness: Readiness) -> Phase:
    return PHASES.of(readiness, decision.meanwhile or Reason.EVALUATING, decision.status.phase or "Waiting")
