"""status.sentReport: what the Pod sends before its end counts once it has ended with the digest of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import SentReport
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.sent_report import digest_of, write_report
from finetune_operator.evaluation.observed import ObservedEvaluation
from tests.unit.operator.evaluation.plans import JOB, RETRY, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION_FOLDER,
    SCORES,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    score,
)
from tests.unit.operator.states import NETWORK_FAILURE, failed_pod, job, later, pod, succeeded_pod

WHOLE = EvaluationReport(scores=SCORES, report_uri=f"{EVALUATION_FOLDER}/report.json", warnings=["w" * 1000] * 9)
CONTENT = write_report(WHOLE)
DIGEST = digest_of(CONTENT)
SENT = SentReport(job_name=JOB, digest=DIGEST, content=CONTENT)
SAID = EvaluationReport(scores=SCORES, sent_digest=DIGEST)
ONLY_DIGEST = EvaluationReport(scores=[], sent_digest=DIGEST)


def ended(
    said: EvaluationReport, stored: SentReport | None = None, arrived: SentReport | None = None
) -> ObservedEvaluation:
    status, pods = evaluation_status(sent_report=stored), (succeeded_pod(JOB, said),)
    return observed_evaluation(status, job(JOB, "Complete"), pods=pods, arrived_report=arrived)


def test_what_arrives_while_the_pod_runs_is_stored_and_decides_nothing_yet() -> None:
    running = observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), arrived_report=SENT)
    result = decide(running)
    assert (result.decision.phase, result.status.sent_report, result.status.results) == ("Evaluating", SENT, [])
    again = decide(replace(running, status=result.status, arrived_report=None))
    assert again.status.sent_report == SENT


@pytest.mark.parametrize("where", ["stored", "arrived"])
@pytest.mark.parametrize("said", [SAID, ONLY_DIGEST], ids=["what fits", "the digest alone"])
def test_the_whole_report_counts_once_the_pod_has_ended_with_its_digest(where: str, said: EvaluationReport) -> None:
    result = decide(ended(said, **{where: SENT}))
    assert (result.decision.phase, result.decision.reason) == ("Passed", Reason.EVALUATED)
    assert (result.status.results, result.status.warnings) == (SCORES, WHOLE.warnings)
    assert result.status.sent_report is None


OTHER = write_report(EvaluationReport(scores=[score("tuned", 1.0)]))


@pytest.mark.parametrize(
    "stored",
    [
        None,
        SENT.model_copy(update={"job_name": RETRY}),
        SentReport(job_name=JOB, digest=digest_of(OTHER), content=OTHER),
        SentReport(job_name=JOB, digest=DIGEST, content=OTHER),
    ],
    ids=["none", "of another try", "another one", "with a digest that is not its own"],
)
def test_another_report_than_the_pod_names_never_counts(stored: SentReport | None) -> None:
    """What fitted into the message is taken then; if that has no scores, it is tried again."""
    fits = decide(ended(SAID, stored=stored))
    assert (fits.decision.phase, fits.status.results, fits.status.warnings) == ("Passed", SCORES, [])
    lost = decide(ended(ONLY_DIGEST, stored=stored))
    assert (lost.decision.phase, lost.decision.reason) == ("Retrying", Reason.REPORT_UNDELIVERED)
    assert (lost.status.retries, lost.status.results) == (1, [])


def test_a_report_that_the_spec_does_not_ask_for_is_rejected_however_it_came() -> None:
    forged = write_report(EvaluationReport(scores=[score("other", 1.0)]))
    sent = SentReport(job_name=JOB, digest=digest_of(forged), content=forged)
    said = EvaluationReport(scores=[], sent_digest=sent.digest)
    result = decide(ended(said, stored=sent))
    assert (result.decision.phase, result.decision.reason) == ("Failed", Reason.REPORT_REFUSED)


def test_what_a_try_has_sent_that_failed_after_all_is_forgotten_by_the_next() -> None:
    status = evaluation_status(sent_report=SENT)
    failed = observed_evaluation(status, job(JOB, "Failed"), pods=(failed_pod(JOB, NETWORK_FAILURE),))
    result = decide(failed)
    assert (result.decision.phase, result.status.results) == ("Retrying", [])
    due = result.status.model_copy(update={"retry_time": later(-1)})
    assert decide(observed_evaluation(due)).status.sent_report is None
    suspended = decide(observed_evaluation(status, spec=evaluation_spec(suspend=True)))
    assert (suspended.decision.phase, suspended.status.sent_report) == ("Suspended", None)
    final = decide(replace(failed, spec=evaluation_spec(retryLimit=0)))
    assert (final.decision.phase, final.status.sent_report) == ("Failed", None)
