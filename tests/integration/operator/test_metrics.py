"""What the operator tells of itself and of its jobs."""

from __future__ import annotations

from collections.abc import Callable

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.operator import played
from tests.integration.operator.api import Api, wait_for
from tests.integration.operator.finetunejobs.test_progress import report, run_configuration, token
from tests.integration.operator.jobs import JOB, TRAIN_REPORT, starts_training
from tests.integration.operator.process import OperatorProcess

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(operator: OperatorProcess) -> Samples:
    """Every sample of ours, by name and labels' values, in the order of the labels' names."""
    text = urllib3.request("GET", operator.metrics_url, timeout=10).data.decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("finetune_")
    }


def expect_forgotten(operator: OperatorProcess, kind: str, wake: Callable[[], object]) -> None:
    """Wait until nothing more is known of a finished object than its version: at a look, it has to be asked for.

    `wake` leads to such a look, by a change of something else that means nothing.
    """
    looks = ("finetune_operator_reconciliations_total", (kind, "ok"))
    asked = ("finetune_operator_api_requests_total", ("200", f"{kind.lower()}s", "get"))

    def is_asked_for() -> bool:
        before = samples(operator)
        wake()
        wait_for(lambda: samples(operator).get(looks, 0) > before.get(looks, 0), "it has looked")
        return samples(operator).get(asked, 0) > before.get(asked, 0)

    wait_for(is_asked_for, f"nothing is known of the {kind}")


def test_reconciliations_and_requests_are_counted(api: Api, operator: OperatorProcess) -> None:
    ok = ("finetune_operator_reconciliations_total", ("FineTuneJob", "ok"))
    written = ("finetune_operator_api_requests_total", ("200", "finetunejobs/status", "patch"))
    before = samples(operator)
    api.create("FineTuneJob", "router", JOB)
    api.wait_reason("FineTuneJob", "router", "Validating")
    for counter in (written, ok):
        wait_for(lambda one=counter: samples(operator).get(one, 0) > before.get(one, 0), f"{counter} is counted")  # type: ignore[misc]
    found = samples(operator)
    assert found["finetune_operator_queue_depth", ("FineTuneJob",)] >= 0
    assert found["finetune_operator_queue_latency_seconds_count", ("FineTuneJob",)] > 0
    assert found["finetune_operator_reconcile_seconds_count", ("FineTuneJob",)] > 0
    assert found["finetune_operator_last_successful_reconcile_timestamp_seconds", ("FineTuneJob",)] > 1.7e9
    assert found["finetune_operator_leader", ()] == 1
    assert any(name == "finetune_operator_build_info" for name, _ in found)


def test_a_job_that_trains_is_seen_and_vanishes_when_it_ends(api: Api, operator: OperatorProcess) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, job)
    run, ca = run_configuration(api, train)
    assert run.progress is not None
    assert report(run.progress.url, ca, token(api, pods[0]), step=300, loss=1.25) == 200
    me = ("router", api.namespace)
    wait_for(lambda: ("finetune_job_step", me) in samples(operator), "the step is shown")
    found = samples(operator)
    assert (found["finetune_job_step", me], found["finetune_job_total_steps", me]) == (300, 750)
    assert found["finetune_job_loss", me] == 1.25
    assert found["finetune_jobs", (api.namespace, "Training")] == 1

    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
    api.wait_reason("FineTuneJob", "router", "Succeeded")
    wait_for(lambda: not [name for name, labels in samples(operator) if me == labels], "nothing of the job is shown")
    assert samples(operator)["finetune_jobs", (api.namespace, "Succeeded")] == 1

    api.delete("FineTuneJob", "router")
    wait_for(lambda: ("finetune_jobs", (api.namespace, "Succeeded")) not in samples(operator), "it is not counted")
