"""How a try ended, and what follows: the scores and their gates, the end of the run, or the next try."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, EvaluationSpec, EvaluationStatus
from finetune_api.outcome import EvaluationReport
from finetune_operator.core.conditions import Readiness, failed, known_reason, progressing, ready, sentence, stalled
from finetune_operator.core.failed_condition import missing_failure
from finetune_operator.core.plan import Child, Plan, earliest, planned, unchanged
from finetune_operator.core.report_validation import scores_refusal
from finetune_operator.evaluation.gates import judge, summary
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetuneclass.resolve import output_location
from finetune_operator.pods.builders import jobs_to_delete
from finetune_operator.pods.exit_diagnosis import failure_message, first_disruption, refused_report
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import (
    Disrupted,
    Failed,
    RetriedJob,
    Running,
    retry_readiness,
    retry_time,
)
from finetune_operator.pods.sidecars import look_again
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS

LEFTOVER_SECONDS = 30
"""What still runs so long after the answer (a container that somebody added to the Pod) is ended."""
_AGAIN = "Change spec.runId to evaluate again."


def watched(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    job: JobView,
    now: datetime,
    undecided: Readiness | None = None,
) -> Plan[EvaluationStatus]:
    """What the Pod does, or what it reported; `undecided`: why no other one would be made now."""
    pods = observed.pods_of(job)
    if status.disruption is None:
        status = status.model_copy(update={"disruption": first_disruption(pods)})
    retried = evaluation_job(observed.spec)
    result = retried.result(job, pods, observed.warnings, now, seen=status.disruption, before=status.failure)
    if isinstance(result, Running):
        return _running(observed, status, job, result, now, undecided)
    if isinstance(result, Disrupted):
        return disrupted(observed, status, result.message, now)
    if isinstance(result, Failed):
        return _failed_once(observed, status, retried, result, now)
    report = result.report
    assert isinstance(report, EvaluationReport), "RetriedJob asks for one"
    refusal = _refusal(observed, status, report)
    if refusal is not None:
        refused = Failed(refused_report(pods, refusal), None, final=True)
        return _failed_once(observed, status, retried, refused, now)
    return over(observed, _with_scores(observed, status, report, now), now)


def evaluation_job(spec: EvaluationSpec) -> RetriedJob:
    """An evaluation costs accelerators: only transient failures are retried, up to spec.retryLimit."""
    return RetriedJob(accepts=lambda report: isinstance(report, EvaluationReport), retry_limit=spec.retry_limit)


def _running(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    job: JobView,
    result: Running,
    now: datetime,
    undecided: Readiness | None,
) -> Plan[EvaluationStatus]:
    """No answer yet: what keeps the Pod from starting, or what else there is to say of it."""
    others = jobs_to_delete(observed.owner.namespace, [other for other in observed.jobs if other.name != job.name])
    readiness = retry_readiness(Reason.EVALUATING, status.failure, None)
    readiness = replace(readiness, message=readiness.message + result.message)
    if result.start is not None:
        readiness = result.start.readiness
    if undecided is not None:
        message = f"{sentence(readiness.message)} {sentence(undecided.message)} The try that runs goes on meanwhile."
        readiness = replace(readiness, message=message)
    check = earliest([now + timedelta(seconds=START_CHECK_SECONDS), look_again(observed.pods_of(job))])
    return planned(observed, status, "Evaluating", readiness, now, delete=others, requeue_at=check)


def over(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> Plan[EvaluationStatus]:
    """The run has ended: its scores are judged by the gates of now, or its failure stands."""
    if status.phase == "Failed":
        end = missing_failure(status.conditions, status.failure)
        if end is not None:
            return _ended(observed, status, "Failed", end, now)
        rest, check = _leftovers(observed, status, now)
        return unchanged(observed, status, delete=rest, requeue_at=check)
    gates = judge(observed.spec.gates, [candidate.name for candidate in observed.spec.candidates], status.results)
    before = {(gate.candidate, gate.grader): gate for gate in status.gates}
    kept = [gate.over(before.get((gate.candidate, gate.grader))) for gate in gates]
    status = status.model_copy(update={"gates": kept})
    missed = [gate for gate in gates if gate.verdict == "Failed"]
    open_gates = [gate for gate in gates if gate.verdict == "Inconclusive"]
    if not missed and not open_gates:
        text = "Every gate passed." if gates else "Evaluated; the spec has no gate."
        readiness, passed = ready(Reason.EVALUATED, status.summary or text), ready(Reason.GATES_PASSED, text)
        return _ended(observed, status, "Passed", readiness, now, passed)
    text = "; ".join(f"{gate.candidate} by {gate.grader}: {gate.message}" for gate in missed or open_gates)
    if not missed:
        readiness = stalled(Reason.INCONCLUSIVE, f"{len(open_gates)} of {len(gates)} gates are undecided: {text}.")
        return _ended(observed, status, "Inconclusive", readiness, now, readiness)
    readiness = stalled(Reason.GATE_FAILED, f"{len(missed)} of {len(gates)} gates failed: {text}.")
    return _ended(observed, status, "GateFailed", readiness, now, readiness)


def waiting_to_retry(observed: ObservedEvaluation, status: EvaluationStatus) -> Readiness:
    """Before a retry: the diagnosis of the failure, or what interrupted it."""
    if status.failure is not None:
        return retry_readiness(Reason.EVALUATING, status.failure, status.retry_time)
    before = next((item for item in observed.status.conditions if item.reason == Reason.RETRYING), None)
    return progressing(Reason.RETRYING, before.message if before else "The infrastructure ended the last try.")


def _refusal(observed: ObservedEvaluation, status: EvaluationStatus, report: EvaluationReport) -> str | None:
    """Why the report is not taken. The class may have changed meanwhile: the folder is what the status says."""
    folder = status.storage_uri
    if folder is None and not isinstance(observed.platform, Readiness):
        folder = output_location(observed.platform.spec, observed.owner, observed.spec.run_id).uri
    names = [BASELINE, *(candidate.name for candidate in observed.spec.candidates)]
    graders = [grader.name for grader in observed.spec.graders]
    return scores_refusal(report.scores, report.report_uri, folder, names, graders)


def _with_scores(
    observed: ObservedEvaluation, status: EvaluationStatus, report: EvaluationReport, now: datetime
) -> EvaluationStatus:
    return status.model_copy(
        update={
            "results": report.scores,
            "errors": report.errors,
            "report_uri": report.report_uri,
            "completion_time": whole_seconds(now),
            "failure": None,
            "summary": summary(observed.spec.graders[0].name, report.scores),
        }
    )


def _failed_once(
    observed: ObservedEvaluation, status: EvaluationStatus, retried: RetriedJob, result: Failed, now: datetime
) -> Plan[EvaluationStatus]:
    """A failure counts, and it ends the run where another try can't help."""
    retries, diagnosis = status.retries + 1, result.diagnosis
    status = status.model_copy(update={"retries": retries, "failure": diagnosis})
    message = sentence(failure_message(diagnosis))
    if result.final:
        return _failed(observed, status, failed(known_reason(diagnosis.reason), message), now)
    if not retried.allows_another(retries):
        message = (
            f"The evaluation failed {retries} times, more than retryLimit {observed.spec.retry_limit}. The last time: "
            f"{diagnosis.reason}: {message}"
        )
        return _failed(observed, status, failed(Reason.RETRY_LIMIT_REACHED, message), now)
    again = retry_time(retries, now)
    status = status.model_copy(update={"retry_time": again})
    return planned(observed, status, "Retrying", waiting_to_retry(observed, status), now, requeue_at=again)


def disrupted(
    observed: ObservedEvaluation, status: EvaluationStatus, message: str, now: datetime
) -> Plan[EvaluationStatus]:
    """Something else ended the try: it never counts, and the next one follows with exponential backoff."""
    disruptions = status.disruptions + 1
    again = retry_time(disruptions, now)
    status = status.model_copy(update={"disruptions": disruptions, "retry_time": again})
    readiness = progressing(Reason.RETRYING, f"{message} The next try starts at {again:%H:%M:%S} UTC.")
    return planned(observed, status, "Retrying", readiness, now, requeue_at=again)


def _failed(
    observed: ObservedEvaluation, status: EvaluationStatus, readiness: Readiness, now: datetime
) -> Plan[EvaluationStatus]:
    """The end of the run, for good: only a new runId, or another model, starts again."""
    if "runId" not in readiness.message:
        readiness = replace(readiness, message=f"{readiness.message} {_AGAIN}")
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return _ended(observed, status, "Failed", readiness, now)


def _ended(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    phase: str,
    readiness: Readiness,
    now: datetime,
    passed: Readiness | None = None,
) -> Plan[EvaluationStatus]:
    rest, check = _leftovers(observed, status, now)
    return planned(observed, status, phase, readiness, now, passed=passed, delete=rest, requeue_at=check)


def _leftovers(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> tuple[tuple[Child, ...], datetime | None]:
    """The Jobs that still run after the end, once they have had time to end by themselves; and when that is."""
    active = [job for job in observed.jobs if job.state == "Active"]
    due = (status.completion_time or now) + timedelta(seconds=LEFTOVER_SECONDS)
    if not active or now < due:
        return (), due if active else None
    return jobs_to_delete(observed.owner.namespace, active), None
