"""status.phase of an Evaluation: it follows from the reason of its conditions, by one table."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.evaluation import Phase
from finetune_operator.core.phases import Phases

PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Waiting",
        Reason.EVALUATING: "Evaluating",
        Reason.RETRYING: "Retrying",
        Reason.EVALUATED: "Passed",
        Reason.GATE_FAILED: "GateFailed",
        Reason.INCONCLUSIVE: "Inconclusive",
    },
    failed="Failed",
)
"""A diagnosis leaves the evaluation in the phase of what it does meanwhile, which each decision names."""
