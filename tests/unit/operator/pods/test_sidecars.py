"""Pods with containers that are not ours: what counts is our container, the rest is ended or named."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.evaluation.plan import plan as plan_evaluation
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.job_outcome import (
    failure,
    is_disruption,
    job_finished,
    job_succeeded,
    outcome,
    sidecar_message,
)
from finetune_operator.pods.observed import PodView, pod_view
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    SCORES,
    evaluation_job_name,
    evaluation_status,
    observed_evaluation,
)
from tests.unit.operator.pod_objects import SCHEDULED, container, pod_object, terminated, waiting
from tests.unit.operator.states import (
    LINE_7,
    NETWORK_FAILURE,
    NOW,
    PREFLIGHT_1,
    PREFLIGHT_REPORT,
    TRAIN_1,
    TRAIN_REPORT,
    ago,
    attempt_status,
    decided,
    failed_pod,
    job,
    job_status,
    observed_job,
    of_job,
    pod,
    preflight_status,
    succeeded_pod,
    told,
    trained_status,
)

EVALUATE_1 = evaluation_job_name()
RUNNING = {"startedAt": "2026-11-22T11:59:00Z"}


def lingering(job_name: str, answer: Any, index: int = 0, seconds: float = 11, exit_code: int = 0) -> PodView:
    """Ours has ended so long ago; a proxy goes on."""
    message = told(answer) if answer else ""
    return pod(
        job_name,
        index,
        exit_code=exit_code,
        message=message,
        ended_time=ago(seconds),
        foreign_running=("istio-proxy",),
    )


def test_a_pod_is_read_by_our_container() -> None:
    status = {
        "phase": "Running",
        "conditions": [SCHEDULED],
        "initContainerStatuses": [
            container("istio-init", terminated=terminated(0)),
            container("native", running=RUNNING),
        ],
        "containerStatuses": [
            container("istio-proxy", running=RUNNING),
            container("trainer", terminated=terminated(0, message=told(TRAIN_REPORT))),
        ],
    }
    view = pod_view(pod_object(status))
    assert (view.exit_code, view.message, view.is_terminal) == (0, told(TRAIN_REPORT), False)
    assert view.foreign_running == ("native", "istio-proxy")
    assert "istio-proxy" in sidecar_message([view])


@pytest.mark.parametrize("code", [137, 143])
def test_a_native_sidecar_that_is_stopped_says_nothing_of_ours(code: int) -> None:
    status = {
        "phase": "Succeeded",
        "initContainerStatuses": [container("native", terminated=terminated(code))],
        "containerStatuses": [container("trainer", terminated=terminated(0, message=told(TRAIN_REPORT)))],
    }
    view = pod_view(pod_object(status))
    assert (view.exit_code, view.foreign_failure) == (0, "")
    assert outcome([view]) == TRAIN_REPORT


def test_a_foreign_container_that_fails_is_named_and_no_disruption() -> None:
    status = {
        "phase": "Failed",
        "initContainerStatuses": [container("istio-init", terminated=terminated(1, message="iptables: denied"))],
        "containerStatuses": [container("trainer")],
    }
    view = pod_view(pod_object(status))
    assert not is_disruption([view], 1)
    said = failure([view], "")
    assert said.reason == "PodRejected"
    assert "'istio-init', which was injected, ended with exit code 1. iptables: denied" in said.message


def beside(code: int, ours: dict[str, Any]) -> PodView:
    """A Pod that failed by a container that is not ours, which ended with this code."""
    theirs = container("proxy", terminated=terminated(code, message="upstream gone"))
    status = {"phase": "Failed", "containerStatuses": [theirs, container("trainer", terminated=ours)]}
    return pod_view(pod_object(status))


@pytest.mark.parametrize("code", [1, 137, 143])
@pytest.mark.parametrize("state", ["Active", "Failed"])
def test_what_a_foreign_container_ends_with_overrules_no_success_of_ours(code: int, state: Any) -> None:
    def there(name: str, answer: Any) -> tuple[PodView, ...]:
        view = beside(code, terminated(0, message=told(answer)))
        return (replace(view, job_name=name, job_uid=f"uid-of-{name}"),)

    trained = decide_at(observed_job(trained_status(), job(TRAIN_1, "Failed"), pods=there(TRAIN_1, TRAIN_REPORT)))
    assert (trained.decision.phase, trained.status.result) == ("Succeeded", TRAIN_REPORT.result)
    read = job(PREFLIGHT_1, state, role="preflight")
    before = job_status(preflight=preflight_status())
    preflight = decide_at(observed_job(before, read, pods=there(PREFLIGHT_1, PREFLIGHT_REPORT)))
    assert (preflight.status.preflight.succeeded, preflight.status.failure) == (True, None)
    judged = job(EVALUATE_1, state)
    pods = there(EVALUATE_1, EVALUATION_REPORT)
    evaluated = decided(plan_evaluation(observed_evaluation(evaluation_status(), judged, pods=pods), NOW))
    assert (evaluated.decision.phase, evaluated.status.results) == ("Passed", SCORES)


@pytest.mark.parametrize("code", [1, 143])
def test_a_failed_job_is_no_success_unless_all_of_ours_are_there_and_ended_well(code: int) -> None:
    one = replace(beside(code, terminated(0, message=told(TRAIN_REPORT))), job_name=TRAIN_1, index=0)
    gang = job(TRAIN_1, "Failed", parallelism=2)
    assert not job_succeeded(gang, [one], NOW), "the other one is gone"
    assert not job_succeeded(gang, [one, failed_pod(TRAIN_1, NETWORK_FAILURE, 1)], NOW)
    assert job_succeeded(gang, [one, succeeded_pod(TRAIN_1, TRAIN_REPORT, 1)], NOW)


def unpullable_beside(ours: dict[str, Any], name: str) -> PodView:
    """A Pod on its node for an hour, to which somebody added a container whose image does not exist."""
    status = {
        "phase": "Pending",
        "conditions": [{**SCHEDULED, "lastTransitionTime": "2026-11-22T11:00:00Z"}],
        "containerStatuses": [
            container("trainer", **ours),
            container("proxy", waiting=waiting("ImagePullBackOff", 'Back-off pulling image "mesh/proxy:9"')),
        ],
    }
    return replace(pod_view(pod_object(status)), job_name=name, job_uid=f"uid-of-{name}")


@pytest.mark.parametrize("phase", ["Queued", "Training"])
def test_a_training_beside_a_container_that_does_not_start_goes_on_and_names_it(phase: str) -> None:
    pods = (unpullable_beside({"running": RUNNING}, TRAIN_1),)
    made = job(TRAIN_1, digest="as another class made it")
    result = decide_at(observed_job(trained_status(phase=phase), made, pods=pods))
    assert (result.decision.phase, result.decision.reason, result.decision.stalled) == ("Training", "Training", False)
    assert result.decision.writes == result.decision.deletes == ()
    assert "proxy of Pod" in result.message
    assert "does not start (ImagePullBackOff: Back-off pulling image" in result.message
    assert "spec.images" not in result.message


def test_preflight_and_evaluation_beside_a_container_that_does_not_start_go_on_too() -> None:
    pods = (unpullable_beside({"running": RUNNING}, PREFLIGHT_1),)
    made = job(PREFLIGHT_1, role="preflight", digest="as another class made it")
    read = decide_at(observed_job(job_status(preflight=preflight_status()), made, pods=pods))
    assert (read.decision.phase, read.decision.writes, read.decision.stalled) == ("Validating", (), False)
    assert "proxy of Pod" in read.message
    pods = (unpullable_beside({"running": RUNNING}, EVALUATE_1),)
    judged = decided(plan_evaluation(observed_evaluation(evaluation_status(), job(EVALUATE_1), pods=pods), NOW))
    assert (judged.decision.phase, judged.decision.stalled) == ("Evaluating", False)
    assert "proxy of Pod" in judged.message


def test_a_training_beside_a_container_that_does_not_start_ends_as_ours_does() -> None:
    ours = {"terminated": terminated(0, message=told(TRAIN_REPORT))}
    view = replace(unpullable_beside(ours, TRAIN_1), ended_time=ago(11))
    assert decide_at(observed_job(trained_status(), job(TRAIN_1), pods=(view,))).decision.phase == "Succeeded"


def test_a_foreign_image_that_keeps_ours_from_starting_is_named_as_what_it_is() -> None:
    pods = (unpullable_beside({"waiting": waiting("PodInitializing")}, TRAIN_1),)
    result = decide_at(observed_job(trained_status(phase="Queued"), job(TRAIN_1), pods=pods))
    assert result.decision.reason == "ImagePullFailed"
    assert "container 'proxy', which was injected" in result.message
    assert "spec.images" not in result.message


def decide_at(observed: ObservedFineTuneJob) -> Any:
    return decided(plan(observed, NOW))


def test_a_training_with_a_sidecar_succeeds_and_its_job_is_ended() -> None:
    status = trained_status(attempt_status())
    pods = (lingering(TRAIN_1, TRAIN_REPORT),)
    done = decide_at(observed_job(status, job(TRAIN_1), pods=pods))
    assert (done.decision.phase, done.decision.ready) == ("Succeeded", True)
    after = decide_at(observed_job(done.status, job(TRAIN_1), pods=pods))
    assert after.decision.deletes == of_job(TRAIN_1)


def test_it_is_named_while_the_kubelet_may_still_say_that_the_pod_has_ended() -> None:
    waits = decide_at(observed_job(trained_status(), job(TRAIN_1), pods=(lingering(TRAIN_1, TRAIN_REPORT, seconds=4),)))
    assert (waits.decision.phase, waits.decision.again_in) == ("Training", 6)
    assert "istio-proxy of Pod" in waits.message


def test_a_gang_fails_though_its_pods_go_on() -> None:
    gang = job(TRAIN_1, parallelism=2)
    first = lingering(TRAIN_1, NETWORK_FAILURE, 0, seconds=61, exit_code=1)
    assert job_finished(gang, [first, pod(TRAIN_1, 1)], NOW), "the other one does not notice"
    assert not job_finished(gang, [replace(first, ended_time=ago(30)), pod(TRAIN_1, 1)], NOW)
    failed = decide_at(observed_job(trained_status(), gang, pods=(first, pod(TRAIN_1, 1))))
    assert failed.status.failure.reason == "StorageUnreachable"
    assert failed.status.attempt.retries == 1


@pytest.mark.parametrize(
    ("exit_code", "seconds", "again_in"),
    [(0, 4, 6), (0, 30, None), (1, 4, 6), (1, 30, 30)],
    ids=["ended", "ended and awaits the others", "failed", "failed and the others may notice"],
)
def test_a_gang_of_which_one_has_ended_is_looked_at_again_only_when_that_changes_something(
    exit_code: int, seconds: float, again_in: float | None
) -> None:
    ended = lingering(TRAIN_1, TRAIN_REPORT if exit_code == 0 else NETWORK_FAILURE, 0, seconds, exit_code)
    waits = decide_at(observed_job(trained_status(), job(TRAIN_1, parallelism=2), pods=(ended, pod(TRAIN_1, 1))))
    assert (waits.decision.phase, waits.decision.again_in) == ("Training", again_in)


@pytest.mark.parametrize(("answer", "phase"), [(PREFLIGHT_REPORT, "Queued"), (LINE_7, "Validating")])
def test_a_preflight_with_a_sidecar_is_heard(answer: Any, phase: str) -> None:
    code = 0 if answer is PREFLIGHT_REPORT else 1
    pods = (lingering(PREFLIGHT_1, answer, exit_code=code),)
    heard = decide_at(
        observed_job(job_status(preflight=preflight_status()), job(PREFLIGHT_1, role="preflight"), pods=pods)
    )
    assert heard.decision.phase == phase
    assert heard.status.preflight.succeeded is (code == 0)
    later = NOW + timedelta(seconds=1)
    assert plan(observed_job(heard.status, job(PREFLIGHT_1, role="preflight"), pods=pods), later).delete
