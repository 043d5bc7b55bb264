"""How a try ended, and what follows: the scores and their gates, the end of the run, or the next try."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, EvaluationStatus
from finetune_api.finetunejob import FailureStatus
from finetune_api.outcome import EvaluationReport, Failure
from finetune_operator.core.conditions import Standing, failed, known_reason, progressing, ready, sentence, stalled
from finetune_operator.core.failed_condition import untold_failure
from finetune_operator.core.plan import Child, Plan, earliest, planned, unchanged
from finetune_operator.core.report_validation import scores_refusal
from finetune_operator.evaluation.gates import judge, summary
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetuneclass.resolve import output_location
from finetune_operator.pods.backoff import retry_delay_seconds
from finetune_operator.pods.exit_diagnosis import (
    JOB_DEADLINE_EXCEEDED,
    disruption_words,
    failure,
    failure_words,
    first_disruption,
    is_disruption,
    outcome,
    refused_report,
    took_away,
)
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import jobs_to_delete, standing_of_try
from finetune_operator.pods.sidecars import ended_well, has_answered, lingering_words, look_again
from finetune_operator.pods.start_diagnosis import (
    BLOCKAGE_CHECK_SECONDS,
    blockage,
    image_pull_timed_out,
    image_pull_words,
)

LEFTOVER_SECONDS = 30
"""What still runs so long after the answer (a container that somebody added to the Pod) is ended."""
_OF_THE_SHAPE = frozenset({Reason.CUDA_OUT_OF_MEMORY, Reason.OUT_OF_MEMORY})
"""A neighbour may be to blame once; the second time it is what is asked for."""
_AGAIN = "Change spec.runId to evaluate again."


def watched(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    job: JobView,
    now: datetime,
    undecided: Standing | None = None,
) -> Plan[EvaluationStatus]:
    """What the Pod of this try is doing, or what it said; `undecided`: why no other try would begin now."""
    pods = observed.pods_of(job)
    others = jobs_to_delete(observed.owner.namespace, [other for other in observed.jobs if other.name != job.name])
    if status.disruption is None:
        status = status.model_copy(update={"disruption": first_disruption(pods)})
    if job.state == "Active" and not has_answered(job, pods, now):
        blocked = blockage(job, pods, observed.warnings, now)
        if blocked is not None and image_pull_timed_out(blocked, now):
            return _failed(observed, status, failed(blocked.reason, image_pull_words(blocked)), now)
        standing = standing_of_try(Reason.EVALUATING, status.failure, None)
        if blocked is not None:
            standing = blocked.standing
        else:
            standing = replace(standing, message=standing.message + lingering_words(pods))
        if undecided is not None:
            words = f"{sentence(standing.message)} {sentence(undecided.message)} The try that runs goes on meanwhile."
            standing = replace(standing, message=words)
        check = earliest([now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS), look_again(pods)])
        return planned(observed, status, "Evaluating", standing, now, delete=others, requeue_at=check)
    said = outcome(pods)
    if isinstance(said, EvaluationReport) and ended_well(job, pods, now):
        refusal = _refusal(observed, status, said)
        if refusal is not None:
            return _failed_try(observed, status, refused_report(pods, refusal), False, now)
        return over(observed, _with_scores(observed, status, said, now), now)
    diagnosis = failure(pods, job.message, job.reason)
    if job.reason == JOB_DEADLINE_EXCEEDED:
        # The Job controller takes the Pods away itself: it looks like a disruption, and would last as long again.
        return _failed_try(observed, status, diagnosis, False, now)
    seen = status.disruption if took_away(status.disruption, pods) else None
    if seen is not None or is_disruption(pods, job.parallelism):
        return disrupted(observed, status, disruption_words(pods, seen), now)
    return _failed_try(observed, status, diagnosis, not isinstance(said, Failure) or said.retryable, now)


def over(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> Plan[EvaluationStatus]:
    """The run has ended: its scores are judged by the gates of now, or its failure stands."""
    if status.phase == "Failed":
        untold = untold_failure(status.conditions, status.failure)
        if untold is not None:
            return _ended(observed, status, "Failed", untold, now)
        rest, check = _leftovers(observed, status, now)
        return unchanged(observed, status, delete=rest, requeue_at=check)
    gates = judge(observed.spec.gates, [candidate.name for candidate in observed.spec.candidates], status.results)
    before = {(gate.candidate, gate.grader): gate for gate in status.gates}
    kept = [gate.over(before.get((gate.candidate, gate.grader))) for gate in gates]
    status = status.model_copy(update={"gates": kept})
    missed = [gate for gate in gates if not gate.passed]
    if not missed:
        text = "Every gate passed." if gates else "Evaluated; the spec has no gate."
        standing, passed = ready(Reason.EVALUATED, status.summary or text), ready(Reason.GATES_PASSED, text)
        return _ended(observed, status, "Passed", standing, now, passed)
    text = "; ".join(f"{gate.candidate} by {gate.grader}: {gate.message}" for gate in missed)
    standing = stalled(Reason.GATE_FAILED, f"{len(missed)} of {len(gates)} gates failed: {text}.")
    return _ended(observed, status, "GateFailed", standing, now, standing)


def waiting_to_retry(observed: ObservedEvaluation, status: EvaluationStatus) -> Standing:
    """Between two tries: the diagnosis of the last one, or what interrupted it."""
    if status.failure is not None:
        return standing_of_try(Reason.EVALUATING, status.failure, status.retry_time)
    told = next((item for item in observed.status.conditions if item.reason == Reason.RETRYING), None)
    return progressing(Reason.RETRYING, told.message if told else "The infrastructure ended the last try.")


def _refusal(observed: ObservedEvaluation, status: EvaluationStatus, said: EvaluationReport) -> str | None:
    """Why the report is not taken. The class may have changed meanwhile: the folder is what the status says."""
    folder = status.storage_uri
    if folder is None and not isinstance(observed.platform, Standing):
        folder = output_location(observed.platform.spec, observed.owner, observed.spec.run_id).uri
    names = [BASELINE, *(candidate.name for candidate in observed.spec.candidates)]
    graders = [grader.name for grader in observed.spec.graders]
    return scores_refusal(said.scores, said.report_uri, folder, names, graders)


def _with_scores(
    observed: ObservedEvaluation, status: EvaluationStatus, report: EvaluationReport, now: datetime
) -> EvaluationStatus:
    return status.model_copy(
        update={
            "results": report.scores,
            "report_uri": report.report_uri,
            "completion_time": whole_seconds(now),
            "failure": None,
            "summary": summary(observed.spec.graders[0].name, report.scores),
        }
    )


def _failed_try(
    observed: ObservedEvaluation, status: EvaluationStatus, diagnosis: FailureStatus, heals: bool, now: datetime
) -> Plan[EvaluationStatus]:
    """A failure counts, and it ends the run where another try can't help."""
    if diagnosis.reason in _OF_THE_SHAPE:
        heals = status.failure is None or status.failure.reason != diagnosis.reason
    retries = status.retries + 1
    status = status.model_copy(update={"retries": retries, "failure": diagnosis})
    words = failure_words(diagnosis)
    if not heals:
        return _failed(observed, status, failed(known_reason(diagnosis.reason), f"{sentence(words)} {_AGAIN}"), now)
    if retries > observed.spec.retry_limit:
        message = (
            f"The evaluation failed {retries} times, more than retryLimit {observed.spec.retry_limit}. The last time: "
            f"{diagnosis.reason}: {sentence(words)} {_AGAIN}"
        )
        return _failed(observed, status, failed(Reason.RETRY_LIMIT_REACHED, message), now)
    retry_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(retries))
    status = status.model_copy(update={"retry_time": retry_time})
    return planned(observed, status, "Retrying", waiting_to_retry(observed, status), now, requeue_at=retry_time)


def disrupted(
    observed: ObservedEvaluation, status: EvaluationStatus, words: str, now: datetime
) -> Plan[EvaluationStatus]:
    """Something else ended the try: it never counts, and the next one follows, ever more slowly."""
    disruptions = status.disruptions + 1
    retry_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(disruptions))
    status = status.model_copy(update={"disruptions": disruptions, "retry_time": retry_time})
    standing = progressing(Reason.RETRYING, f"{words} The next try starts at {retry_time:%H:%M:%S} UTC.")
    return planned(observed, status, "Retrying", standing, now, requeue_at=retry_time)


def _failed(
    observed: ObservedEvaluation, status: EvaluationStatus, standing: Standing, now: datetime
) -> Plan[EvaluationStatus]:
    """The end of the run, for good: only a new runId, or another model, starts again."""
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return _ended(observed, status, "Failed", standing, now)


def _ended(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    phase: str,
    standing: Standing,
    now: datetime,
    passed: Standing | None = None,
) -> Plan[EvaluationStatus]:
    rest, check = _leftovers(observed, status, now)
    return planned(observed, status, phase, standing, now, passed=passed, delete=rest, requeue_at=check)


def _leftovers(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> tuple[tuple[Child, ...], datetime | None]:
    """The Jobs that still run after the end, once they have had time to end by themselves; and when that is."""
    active = [job for job in observed.jobs if job.state == "Active"]
    due = (status.completion_time or now) + timedelta(seconds=LEFTOVER_SECONDS)
    if not active or now < due:
        return (), due if active else None
    return jobs_to_delete(observed.owner.namespace, active), None
