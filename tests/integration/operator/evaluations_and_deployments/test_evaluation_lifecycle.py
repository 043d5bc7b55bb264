"""An Evaluation is suspended, cancelled, limited and cleared away as a FineTuneJob is, and says how far it is."""

from __future__ import annotations

import secrets
import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3

from finetune_api.pod_contracts.run import EvaluateRun
from tests.integration.operator import played
from tests.integration.operator.api import WAIT_SECONDS, Api, Object, condition, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.finetunejobs.test_progress import token
from tests.integration.operator.jobs import EVALUATION, JOB, evaluation_report, starts_training
from tests.integration.operator.serving import is_trained

pytestmark = pytest.mark.usefixtures("operator")


def begins(api: Api, **changes: Any) -> tuple[Object, Object]:
    """An evaluation whose Pod runs."""
    is_trained(api)
    evaluation = api.create("Evaluation", "router", {**EVALUATION, **changes})
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    api.wait_reason("Evaluation", "router", "Evaluating")  # the status has its try
    played.runs(api, pod)
    return evaluation, pod


def set_spec(api: Api, **changes: Any) -> None:
    api.patch("Evaluation", "router", {"spec": changes})


def nothing_runs(api: Api, evaluation: Object) -> None:
    for kind in ("Job", "Pod"):
        wait_for(lambda kind=kind: api.children_of(evaluation, "evaluate", kind) == [], f"there is no {kind}")


def test_it_is_suspended_and_goes_on_by_another_try(api: Api) -> None:
    evaluation, pod = begins(api)
    set_spec(api, suspend=True)
    nothing_runs(api, evaluation)
    suspended = api.wait("Evaluation", "router", lambda found: found["status"].get("phase") == "Suspended")
    assert condition(suspended, "Ready")["reason"] == "Suspended"
    assert condition(suspended, "Stalled")["status"] == "False"
    set_spec(api, suspend=False)
    (again,) = api.wait_children(evaluation, "evaluate", "Pod")
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]
    played.ends(api, again, evaluation_report(tuned=0.75))
    done = api.wait_reason("Evaluation", "router", "Evaluated")["status"]
    assert (done["try"], done.get("retries", 0), done.get("disruptions", 0)) == (2, 0, 0)


def test_it_is_cancelled_until_another_run_id(api: Api) -> None:
    evaluation, _ = begins(api)
    set_spec(api, cancel=True)
    over = api.wait("Evaluation", "router", lambda found: found["status"].get("phase") == "Cancelled")
    assert condition(over, "Failed")["reason"] == "Cancelled"
    nothing_runs(api, evaluation)
    set_spec(api, cancel=False)
    seen = api.wait(
        "Evaluation",
        "router",
        lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"],
    )
    assert seen["status"]["phase"] == "Cancelled", "it is over for good"
    set_spec(api, runId="2")
    api.wait_children(evaluation, "evaluate", "Pod")
    again = api.wait("Evaluation", "router", lambda found: found["status"].get("phase") == "Evaluating")
    assert condition(again, "Failed") == {}


def test_its_deadline_ends_it_and_its_jobs_go_in_time(api: Api) -> None:
    evaluation, _ = begins(api)
    set_spec(api, activeDeadlineSeconds=1)
    over = api.wait_reason("Evaluation", "router", "DeadlineExceeded")
    assert over["status"]["phase"] == "Failed"
    nothing_runs(api, evaluation)


def test_the_jobs_of_one_that_is_over_go_and_its_scores_stay(api: Api) -> None:
    evaluation, pod = begins(api)
    played.ends(api, pod, evaluation_report(tuned=0.75))
    api.wait_reason("Evaluation", "router", "Evaluated")
    set_spec(api, ttlSecondsAfterFinished=0)
    nothing_runs(api, evaluation)
    kept = api.get("Evaluation", "router")["status"]
    assert (kept["phase"], len(kept["results"])) == ("Passed", 2)


def test_its_job_waits_in_the_queue_of_its_class(api: Api) -> None:
    name = f"queued-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, "scheduling": {"queueName": "team-a"}})
    is_trained(api)
    evaluation = api.create("Evaluation", "router", {**EVALUATION, "className": name})
    (job,) = api.wait_children(evaluation, "evaluate", "Job")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    waits = api.wait_reason("Evaluation", "router", "Queued")
    assert "queue 'team-a'" in condition(waits, "Ready")["message"]
    assert waits["status"]["phase"] == "Waiting"
    # What Kueue does once there is quota.
    api.patch("Job", job["metadata"]["name"], {"spec": {"suspend": False}})
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.runs(api, pod)
    api.wait_reason("Evaluation", "router", "Evaluating")


def report(url: str, ca: str, bearer: str, **more: Any) -> int:
    steps = [{"name": "current_step", "value": "30"}, {"name": "total_steps", "value": "80"}]
    now = datetime.now(UTC).isoformat()
    body = {"trainerStatus": {"lastUpdatedTime": now, "estimatedRemainingSeconds": 150, "metrics": steps}, **more}
    with urllib3.PoolManager(ssl_context=ssl.create_default_context(cadata=ca)) as client:
        headers = {"Authorization": f"Bearer {bearer}"}
        return client.request("POST", url, json=body, headers=headers, timeout=WAIT_SECONDS).status


def test_its_pod_reports_how_far_each_model_is_and_nobody_else_does(api: Api) -> None:
    _, pod = begins(api)
    data = api.get("ConfigMap", pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])["data"]
    run, ca = EvaluateRun.model_validate_json(data["run.json"]), data["progress-ca.crt"]
    assert run.progress is not None
    counts = [
        {"candidate": "baseline", "outputs": 20, "graded": 0, "total": 20},
        {"candidate": "tuned", "outputs": 10, "graded": 0, "total": 20},
    ]
    assert report(run.progress.url, ca, token(api, pod), candidates=counts) == 200
    shown = api.wait("Evaluation", "router", lambda found: "progress" in found["status"])["status"]["progress"]
    assert (shown["percent"], shown["estimatedRemaining"], shown["candidates"]) == (37, "2m30s", counts)

    other = api.create("FineTuneJob", "other", JOB)
    _, others = starts_training(api, other)
    assert report(run.progress.url, ca, token(api, others[0]), candidates=counts) == 403
    as_job = run.progress.url.replace("/evaluations/", "/finetunejobs/")
    assert report(as_job, ca, token(api, pod), candidates=counts) == 403
    assert report(run.progress.url, ca, token(api, pod), candidates=[{"candidate": "x", "total": -1}]) == 400
