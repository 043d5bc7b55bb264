"""What to do next for an Evaluation: every policy, in order, and the phase for each reason.

A mutator records what has happened. A decider may decide what to do; the first that does ends the list.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Mutator, Phases, decided
from finetune_operator.evaluation.observed import EvaluationDecision, EvaluationPlan, ObservedEvaluation
from finetune_operator.evaluation.policies.progress import (
    forget_remaining_time,
    record_progress,
    wake_at_newer_report,
)
from finetune_operator.evaluation.policies.results import (
    forget_sent_report,
    keep_sent_report,
    keep_verdict,
    take_scores,
)
from finetune_operator.evaluation.policies.run_id import begin_run, hide_earlier_run
from finetune_operator.evaluation.policies.waiting import wait_for_dataset, wait_for_models
from finetune_operator.evaluation.run import RUN
from finetune_operator.retried_run.policies.active_deadline import (
    count_suspended_time,
    fail_at_active_deadline,
    wake_at_deadline,
)
from finetune_operator.retried_run.policies.class_limits import wait_for_class
from finetune_operator.retried_run.policies.current_try import record_disruption, start_try, watch_try
from finetune_operator.retried_run.policies.earlier_pods import wait_for_earlier_pods
from finetune_operator.retried_run.policies.finished import keep_unsuccessful
from finetune_operator.retried_run.policies.retry import (
    fail_at_retry_limit,
    record_failure,
    retry_disrupted,
    retry_failed,
    wait_for_retry_time,
)
from finetune_operator.retried_run.policies.suspend import cancel, suspend
from finetune_operator.retried_run.policies.wrong_clock import correct_times

EvaluationMutator = Mutator[ObservedEvaluation, EvaluationStatus]
EvaluationDecider = Decider[ObservedEvaluation, EvaluationStatus]

# RUN.mutator and RUN.decider: a policy that other kinds have too, in retried_run/policies/.
POLICIES: tuple[EvaluationMutator | EvaluationDecider, ...] = (
    Mutator(correct_times),  # times written by a wrong clock
    Mutator(record_progress),  # outputs and grades, as the Pod of the newest try reports them
    Mutator(keep_sent_report),  # its whole report, which is too large for a termination message
    Decider(keep_verdict),  # a finished run, judged by the current gates, until its runId or a model changes
    RUN.decider(keep_unsuccessful),  # and one that failed or was cancelled
    Decider(take_scores),  # Passed or GateFailed: the newest try has the scores, whatever the spec says by now
    RUN.mutator(record_failure),  # the newest try failed, which counts
    RUN.decider(cancel),  # spec.cancel, whatever it waits for: what runs is stopped, then Cancelled
    RUN.decider(fail_at_retry_limit),  # Failed: it failed, and another try can't help, or was the last one allowed
    RUN.mutator(count_suspended_time),  # the time that does not count for activeDeadlineSeconds
    Mutator(hide_earlier_run),  # a run that is suspended before it begins shows nothing of the one before
    RUN.decider(suspend),  # spec.suspend: what runs is stopped, and nothing starts
    RUN.decider(fail_at_active_deadline),  # Failed: activeDeadlineSeconds are over
    RUN.decider(wait_for_class),  # no class, or one that does not allow the spec's sources; a running try continues
    Decider(wait_for_models),  # a candidate or the baseline does not exist yet
    Decider(wait_for_dataset),  # the Dataset of dataset.datasetRef has no revision yet
    Mutator(begin_run),  # another runId or model, or a changed spec
    # Evaluating: the newest try.
    RUN.mutator(record_disruption),  # why the infrastructure is ending the Pod
    RUN.decider(watch_try),  # it has no result yet
    RUN.decider(retry_disrupted),  # Retrying: the infrastructure ended it, which never counts
    RUN.decider(retry_failed),  # Retrying: it failed
    # Nothing runs: whether the next try may start.
    RUN.decider(wait_for_retry_time),  # it is not time yet
    RUN.decider(wait_for_earlier_pods),  # a Pod of an earlier try is still running
    RUN.decider(start_try),  # always decides
)
ALWAYS: tuple[EvaluationMutator, ...] = (
    Mutator(forget_remaining_time),  # where nothing runs
    Mutator(forget_sent_report),  # of a try that is not the newest, or whose run is over
    Mutator(wake_at_newer_report),  # when a report that came too soon after the last may be shown
    RUN.mutator(wake_at_deadline),  # and when activeDeadlineSeconds are over
)

FINISHED: frozenset[Phase] = frozenset({"Passed", "GateFailed", "Inconclusive", "Failed", "Cancelled"})
"""The phases of a run that is over. While it waits for a class or a model it is not, even if it keeps older results."""
PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Waiting",
        Reason.WAITING_FOR_DATASET: "Waiting",
        Reason.QUEUED: "Waiting",
        Reason.SUSPENDED: "Suspended",
        Reason.EVALUATING: "Evaluating",
        Reason.RETRYING: "Retrying",
        Reason.EVALUATED: "Passed",
        Reason.GATE_FAILED: "GateFailed",
        Reason.INCONCLUSIVE: "Inconclusive",
        Reason.BUDGET_EXCEEDED: "Inconclusive",
        Reason.CANCELLED: "Cancelled",
    },
    stays=frozenset({Reason.STOPPING}),
    failed="Failed",
)
"""For a diagnosis, the phase follows from Decision.meanwhile."""


def plan(observed: ObservedEvaluation, now: datetime) -> EvaluationPlan:
    """The writes that bring the evaluation one step further."""
    return decided(POLICIES, observed, observed.status, _phase, now, ALWAYS)


def _phase(decision: EvaluationDecision, readiness: Readiness) -> Phase:
    before = decision.status.phase or "Waiting"
    return PHASES.of(readiness, decision.meanwhile or Reason.EVALUATING, before)
