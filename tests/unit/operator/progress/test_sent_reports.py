"""The progress endpoint takes the whole report of an evaluation, and says when the status has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from finetune_api.evaluation import SENT_REPORT_BYTES, SentReport
from finetune_api.pod_contracts.sent_report import digest_of, write_report
from finetune_operator.core.references import ObjectKey
from finetune_operator.progress.sent_reports import SentReports
from tests.unit.operator.evaluation_states import EVALUATION_REPORT
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.progress import reporting
from tests.unit.operator.progress.reporting import ATTEMPT, JOB, JOBS_PATH, Endpoint
from tests.unit.operator.states import merged

PATH = f"/v1alpha1/namespaces/team-a/evaluations/router/attempts/{ATTEMPT}/report"
OWNER = ObjectKey("Evaluation", "team-a", "router")
FOUND = "GET /apis/finetune.dev/v1alpha1/namespaces/team-a/evaluations/router"
CONTENT = write_report(EVALUATION_REPORT)
REPORT = SentReport(job_name=ATTEMPT, digest=digest_of(CONTENT), content=CONTENT)


@pytest.fixture
def of_evaluation(endpoint: Endpoint) -> Endpoint:
    """The Pod's Job is that of an Evaluation."""
    metadata = {
        "annotations": {"finetune.dev/owner": "Evaluation/router"},
        "ownerReferences": [controlled_by("Evaluation", "router", "uid-of-router")],
    }
    endpoint.kube.answers[JOBS_PATH] = {"items": [merged(JOB, {"metadata": metadata})]}
    return endpoint


async def sends(endpoint: Endpoint, content: str = CONTENT, path: str = PATH) -> tuple[int, Mapping[str, Any]]:
    return await endpoint.post(content.encode(), path)


async def test_a_report_is_sent_until_the_status_has_it(of_evaluation: Endpoint) -> None:
    assert await sends(of_evaluation) == (200, {"stored": False})
    assert of_evaluation.sent.find("team-a", ATTEMPT) == REPORT
    assert of_evaluation.notified == [(OWNER, 0)]
    of_evaluation.kube.answers[FOUND] = {"status": {"sentReport": {**REPORT.to_wire(), "digest": "sha256:other"}}}
    assert await sends(of_evaluation) == (200, {"stored": False})
    of_evaluation.kube.answers[FOUND] = {"status": {"sentReport": REPORT.to_wire()}}
    assert await sends(of_evaluation) == (200, {"stored": True})
    assert of_evaluation.sent.find("team-a", ATTEMPT) is None


async def test_an_operator_that_has_just_started_knows_what_the_one_before_it_has_stored(
    of_evaluation: Endpoint,
) -> None:
    of_evaluation.kube.answers[FOUND] = {"status": {"sentReport": REPORT.to_wire()}}
    assert await sends(of_evaluation) == (200, {"stored": True})
    assert of_evaluation.notified == []


async def test_only_the_pod_of_an_evaluation_sends_one_and_only_its_own(endpoint: Endpoint) -> None:
    of_job = await endpoint.post(CONTENT.encode(), f"{reporting.PATH}/report")
    assert of_job == (403, {"error": "only the Pod of an Evaluation sends its report"})
    assert (await sends(endpoint))[0] == 403
    assert (await endpoint.post(CONTENT.encode(), PATH, headers={}))[0] == 401
    assert endpoint.sent.find("team-a", ATTEMPT) is None


@pytest.mark.parametrize(
    ("content", "code"),
    [("{", 400), ("{}", 400), (" " * SENT_REPORT_BYTES, 400), (" " * (SENT_REPORT_BYTES + 1), 413)],
    ids=["half", "without scores", "blank", "too large"],
)
async def test_what_is_no_report_is_refused(of_evaluation: Endpoint, content: str, code: int) -> None:
    assert (await sends(of_evaluation, content))[0] == code
    assert (of_evaluation.sent.find("team-a", ATTEMPT), of_evaluation.notified) == (None, [])


async def test_a_pod_that_sends_others_all_the_time_is_told_to_wait(of_evaluation: Endpoint) -> None:
    """Each is a write of the status."""
    codes = [(await sends(of_evaluation))[0] for _ in range(12)]
    assert codes == [200] * 10 + [429] * 2


def test_of_too_many_reports_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.progress.sent_reports._REPORTS_KEPT", 2)
    sent = SentReports()
    for job in ("a", "b", "a", "c"):
        sent.put("team-a", REPORT.model_copy(update={"job_name": job}))
    assert [sent.find("team-a", job) is not None for job in "abc"] == [True, False, True]
    assert sent.find("team-b", "a") is None
