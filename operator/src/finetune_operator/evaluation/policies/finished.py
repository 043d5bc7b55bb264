"""The phases of a run that is over, judged by the current gates; spec.ttlSecondsAfterFinished."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.evaluation import MOST_WARNINGS, EvaluationSpec, EvaluationStatus, GateResult
from finetune_grading.ungraded import ungraded_in_slice, ungraded_outputs
from finetune_operator.core.active_deadline import expiry
from finetune_operator.core.conditions import Readiness, cancelled, missing_failure, ready, stalled
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY, Child, earliest
from finetune_operator.evaluation.gates import TOO_FEW_EXAMPLES, judge, too_few_examples
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.evaluation.policies.progress import without_remaining_time
from finetune_operator.evaluation.tries import is_same_run

LEFTOVER_SECONDS = 30
"""What is still running so long after the report (a container that somebody added to the Pod) is deleted."""


def keep_finished(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Keep a finished run, also while its model is being retrained; gates that have changed are evaluated again."""
    if status.completion_time is None or not is_same_run(observed):
        return None
    if status.phase not in ENDED_UNSUCCESSFULLY:
        return judged(observed, status, now)
    missing = missing_failure(status.conditions, status.failure)
    if missing is not None and status.phase == "Cancelled":
        missing = cancelled_run(status)
    return ended(observed, status, missing, now)


def cancelled_run(status: EvaluationStatus) -> Readiness:
    """The readiness of a cancelled run."""
    return cancelled(f" What it has saved is kept in {status.storage_uri}." if status.storage_uri else "")


def judged(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision:
    """The end of a run that has its scores: Passed, GateFailed, or Inconclusive."""
    spec = observed.spec
    candidates = [candidate.name for candidate in spec.candidates]
    gates = judge(
        spec.gates,
        candidates,
        status.results,
        ungraded_outputs(spec, status),
        status.slices,
        lambda score, of_baseline: ungraded_in_slice(spec, score, of_baseline=of_baseline),
        status.gated_slices or None,  # a status has no empty lists
        status.calibrations,
    )
    before = {_about(gate): gate for gate in status.gates}
    kept = [gate.over(before.get(_about(gate))) for gate in gates]
    status = status.model_copy(update={"gates": kept, "warnings": _warnings(spec, status)})
    missed = [gate for gate in gates if gate.verdict == "Failed"]
    undecided = [gate for gate in gates if gate.verdict == "Inconclusive"]
    over_budget = any(score.over_budget for score in status.results)
    if not missed and over_budget:
        readiness = stalled(Reason.BUDGET_EXCEEDED, _budget_message(status))
        return ended(observed, status, readiness, now, passed=readiness, meanwhile=readiness.reason)
    if not missed and not undecided:
        text = "Every gate passed." if gates else "Evaluated; the spec has no gate."
        readiness = ready(Reason.EVALUATED, status.summary or text)
        return ended(observed, status, readiness, now, passed=ready(Reason.GATES_PASSED, text))
    text = "; ".join(f"{gate.candidate} by {gate.grader}{_where(gate)}: {gate.message}" for gate in missed or undecided)
    if not missed:
        readiness = stalled(Reason.INCONCLUSIVE, f"{len(undecided)} of {len(gates)} gates are undecided: {text}.")
    else:
        readiness = stalled(Reason.GATE_FAILED, f"{len(missed)} of {len(gates)} gates failed: {text}.")
    return ended(observed, status, readiness, now, passed=readiness, meanwhile=readiness.reason)


def _about(gate: GateResult) -> tuple[object, ...]:
    return gate.candidate, gate.grader, gate.slice, gate.calibration


def _where(gate: GateResult) -> str:
    return "" if gate.slice is None else f" where {gate.slice.by} is {gate.slice.value!r}"


def _warnings(spec: EvaluationSpec, status: EvaluationStatus) -> list[str]:
    """The warnings of the Pod, and those about the current gates."""
    examples = max((score.examples for score in status.results), default=0)
    kept = [warning for warning in status.warnings if not warning.startswith(TOO_FEW_EXAMPLES)]
    return [*kept, *too_few_examples(spec.gates, examples, status.slices)][:MOST_WARNINGS]


def _budget_message(status: EvaluationStatus) -> str:
    first = next(score for score in status.results if score.over_budget)
    outputs = (first.passed or 0) + (first.failed or 0) + (first.errored or 0)
    return (
        f"spec.budget was used up: {first.over_budget} of {outputs} outputs of {first.candidate!r} are not graded by "
        f"{first.grader!r}. Raise spec.budget and change spec.runId; what has been answered is kept, and costs nothing."
    )


def ended(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    readiness: Readiness | None,
    now: datetime,
    *,
    passed: Readiness | None = None,
    meanwhile: Reason | None = None,
    at_once: bool = False,
) -> EvaluationDecision:
    """The end of a run, and of what still runs: `at_once`, or once it has had time to end by itself."""
    rest, check = _leftovers(observed, status, now, at_once=at_once or status.phase == "Cancelled")
    due = expiry(status, observed.spec.ttl_seconds_after_finished, has_jobs=bool(observed.jobs))
    if due is not None and now >= due:
        rest, due = tries_to_delete(observed.owner.namespace, observed.jobs, observed.pods), None
    return EvaluationDecision(
        without_remaining_time(status),
        readiness,
        delete=rest,
        requeue_at=earliest([check, due]),
        passed=passed,
        meanwhile=meanwhile,
        keeps_phase=status.phase == "Cancelled",
    )


def _leftovers(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime, *, at_once: bool
) -> tuple[tuple[Child, ...], datetime | None]:
    """The Jobs to delete because they are still running after the end, or when to check for them."""
    active = [job for job in observed.jobs if job.state == "Active"]
    due = (status.completion_time or now) + timedelta(seconds=LEFTOVER_SECONDS)
    # A time further in the future was written by a wrong clock.
    if active and not at_once and now < due <= now + timedelta(seconds=LEFTOVER_SECONDS):
        return (), due
    return tries_to_delete(observed.owner.namespace, active, observed.pods), None
