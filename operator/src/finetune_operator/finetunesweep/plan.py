"""What to do next for a FineTuneSweep: every policy, in order, and the phase for each reason.

A mutator records what has happened. A decider may decide what to do; the first that does ends the list.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepStatus, Phase
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decider, Mutator, Phases, decided
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision, SweepPlan
from finetune_operator.finetunesweep.policies.finished import complete, fail_at_failures, keep_finished
from finetune_operator.finetunesweep.policies.holdout import record_holdout
from finetune_operator.finetunesweep.policies.run_id import begin_run
from finetune_operator.finetunesweep.policies.search import refuse, search
from finetune_operator.finetunesweep.policies.smallest_model import end_larger, record_models
from finetune_operator.finetunesweep.policies.suspend import cancel, suspend
from finetune_operator.finetunesweep.policies.trials import cancel_pruned, record_trials

SweepMutator = Mutator[ObservedFineTuneSweep, FineTuneSweepStatus]
SweepDecider = Decider[ObservedFineTuneSweep, FineTuneSweepStatus]

POLICIES: tuple[SweepMutator | SweepDecider, ...] = (
    Decider(keep_finished),  # a finished sweep, until runId changes
    Mutator(begin_run),  # another runId: the trials of the previous run are cancelled
    Mutator(record_models),  # mode SmallestModel: its candidates, the smallest first
    Mutator(cancel_pruned),  # those that the status has as pruned are cancelled
    Mutator(record_trials),  # which trials have ended or are pruned, and which ones follow them
    Mutator(end_larger),  # mode SmallestModel: those that a smaller one makes needless
    Mutator(record_holdout),  # how good the best is on examples that its choice did not depend on
    Decider(cancel),  # spec.cancel: its trials are cancelled, then the sweep
    Decider(fail_at_failures),  # Failed: budget.failures
    Decider(refuse),  # the template can't have what is searched: nothing starts
    Decider(complete),  # Succeeded: no trial runs, none may begin, and the best is measured on the holdout examples
    Decider(suspend),  # spec.suspend: the trials are suspended, and none starts
    Decider(search),  # always decides
)
PHASES: Phases[Phase] = Phases(
    {
        Reason.SEARCHING: "Running",
        Reason.SUSPENDED: "Suspended",
        Reason.SUCCEEDED: "Succeeded",
        Reason.CANCELLED: "Cancelled",
    },
    stays=frozenset({Reason.STOPPING}),
    failed="Failed",
)
"""A diagnosis leaves the sweep Running."""


def plan(observed: ObservedFineTuneSweep, now: datetime) -> SweepPlan:
    """The writes that bring the sweep one step further."""
    return decided(POLICIES, observed, observed.status, _phase, now)


def _phase(decision: SweepDecision, readiness: Readiness) -> Phase:
    before = decision.status.phase or "Running"
    return PHASES.of(readiness, decision.meanwhile or Reason.SEARCHING, before)
