"""The progress endpoint: what is taken, and how often a job is woken by it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.finetunejob import CheckpointStatus, Progress
from finetune_api.pod_contracts.progress import PROGRESS_BODY_BYTES, CheckpointReport
from finetune_operator.core.ownership import Owner
from finetune_operator.progress import server
from finetune_operator.progress.endpoint import ProgressEndpoint
from finetune_operator.progress.store import ProgressStore, ShownProgress
from tests.unit.operator.progress.reporting import ATTEMPT, OWNER, PATH, REPORT, SENT, TOKEN, Endpoint
from tests.unit.operator.states import merged

SHOWN = Progress(
    step=300,
    total_steps=750,
    percent=40,
    loss=1.25,
    estimated_remaining_seconds=90,
    last_updated_time=SENT.replace(microsecond=0),
)


async def test_a_report_of_a_jobs_own_pod_is_shown(endpoint: Endpoint) -> None:
    assert await endpoint.post() == (200, {})
    assert endpoint.shown() == ShownProgress(SHOWN)
    assert endpoint.notified == [(OWNER, 0)]
    (review,) = [request.body for request in endpoint.kube.requests if request.method == "POST"]
    assert review is not None
    assert review["spec"] == {"token": TOKEN, "audiences": ["finetune.dev/progress"]}


async def test_a_report_of_a_node_with_a_wrong_clock_is_of_the_moment_of_its_arrival(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By it the operator tells which attempt a step is of."""
    monkeypatch.setattr(server, "CLOCK_SKEW", timedelta(minutes=1))
    assert await endpoint.post() == (200, {})
    shown = endpoint.shown()
    assert shown is not None
    assert shown.progress is not None
    assert datetime.now(UTC) - shown.progress.last_updated_time < timedelta(minutes=10)


LEDGER = {
    "checkpoints": [{"step": 100, "uri": "s3://m/step-000100", "committedTime": "2026-11-22T11:59:00Z"}],
    "checkpointSeconds": 2.5,
}


async def test_the_ledger_of_checkpoints_comes_with_it_and_stays_when_a_report_has_none(endpoint: Endpoint) -> None:
    assert await endpoint.post({**REPORT, "ledger": LEDGER}) == (200, {})
    expected = CheckpointReport(
        checkpoints=[
            CheckpointStatus(
                step=100, uri="s3://m/step-000100", committed_time=datetime(2026, 11, 22, 11, 59, tzinfo=UTC)
            )
        ],
        checkpoint_seconds=2.5,
    )
    assert endpoint.shown() == ShownProgress(SHOWN, expected)
    assert await endpoint.post() == (200, {})
    assert endpoint.shown() == ShownProgress(SHOWN, expected)
    without_steps = {"trainerStatus": {**REPORT["trainerStatus"], "metrics": []}, "ledger": {"checkpoints": []}}
    assert await endpoint.post(without_steps) == (200, {})
    assert endpoint.store._reports["team-a", ATTEMPT].newest == ShownProgress(SHOWN, CheckpointReport())


async def test_fields_that_a_newer_trainer_adds_are_left_out_at_every_level(endpoint: Endpoint) -> None:
    """Its Pods outlive a rollback of the operator, and go on being shown."""

    def with_more(value: Any) -> Any:
        if isinstance(value, list):
            return [with_more(item) for item in value]
        return (
            {key: with_more(item) for key, item in value.items()} | {"new": [1]} if isinstance(value, dict) else value
        )

    sent = {**REPORT, "ledger": LEDGER, "candidates": [{"candidate": "tuned", "outputs": 1, "total": 2}]}
    assert await endpoint.post(sent) == (200, {})
    shown = endpoint.shown()
    assert shown is not None and shown.candidates is not None and shown.checkpoint_report is not None
    endpoint.store._reports.clear()
    assert await endpoint.post(with_more(sent)) == (200, {})
    assert endpoint.shown() == shown


# 400 and 413: nothing that can be read.


def report(**trainer_status: Any) -> dict[str, Any]:
    return merged(REPORT, {"trainerStatus": trainer_status})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        {},
        {"trainerStatus": {}},
        report(progressPercentage=101),
        report(estimatedRemainingSeconds=-1),
        report(estimatedRemainingSeconds=10**30),
        report(lastUpdatedTime="yesterday"),
        report(lastUpdatedTime="2026-11-22T12:00:00"),
        report(lastUpdatedTime="0001-01-01T00:00:00+14:00"),
        report(metrics=[{"name": "loss", "value": "1"}] * 129),
        report(metrics=[{"name": "x" * 129, "value": "1"}]),
        report(metrics=[{"name": "loss", "value": 1}]),
    ],
)
async def test_what_is_no_report_is_refused(endpoint: Endpoint, body: Any) -> None:
    code, answer = await endpoint.post(body)
    assert code == 400
    assert answer["error"].startswith("not a progress report")
    assert (endpoint.shown(), endpoint.notified) == (None, [])


@pytest.mark.parametrize(("extra", "code"), [(0, 400), (1, 413)])
async def test_a_body_that_is_too_large_is_not_read(endpoint: Endpoint, extra: int, code: int) -> None:
    assert (await endpoint.post(b" " * (PROGRESS_BODY_BYTES + extra)))[0] == code


# What is taken, and how often.


@pytest.mark.parametrize("body", [report(metrics=[]), report(unknownField=1, metrics=[{"name": "loss", "value": "1"}])])
async def test_a_report_without_a_step_is_taken_and_shows_nothing(endpoint: Endpoint, body: dict[str, Any]) -> None:
    """KubeflowCallback sends such ones, too, at the start."""
    assert (await endpoint.post(body))[0] == 200
    assert (endpoint.shown(), endpoint.notified) == (None, [])


async def test_a_job_is_woken_when_the_report_can_be_shown(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: now)
    for step, moment in enumerate((1000.0, 1004.0, 1009.0)):
        now = moment
        metrics = [{"name": "current_step", "value": str(step)}, {"name": "total_steps", "value": "750"}]
        assert (await endpoint.post(report(metrics=metrics)))[0] == 200
    assert [delay for _, delay in endpoint.notified] == [0, 6, 1]


@pytest.mark.parametrize(
    ("reported", "looked", "steps"),
    [
        ([0], [0, 5, 500], [0, 0, 0]),
        ([0, 4, 9], [1, 9.9, 10, 15], [0, 0, 9, 9]),
        (range(40), range(40), [0] * 10 + [10] * 10 + [20] * 10 + [30] * 10),
        ([0, 100], [0, 100], [0, 100]),
    ],
    ids=["one report", "the newest after ten seconds", "reports all the time", "after a long silence"],
)
def test_what_is_shown_changes_at_most_every_ten_seconds(
    reported: Iterable[float], looked: Iterable[float], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a Pod reports, and however often the job is looked at: each change is a write of its status."""
    now = 0.0
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: now)
    store, seen = ProgressStore(), []
    moments = sorted([*((moment, 0) for moment in reported), *((moment, 1) for moment in looked)])
    for now, look in moments:
        if look:
            shown = store.shown("team-a", ATTEMPT)
            assert shown is not None and shown.progress is not None
            seen.append(shown.progress.step)
        else:
            store.put("team-a", ATTEMPT, ShownProgress(SHOWN.model_copy(update={"step": int(now)})))
    assert seen == steps


def test_the_last_report_of_an_attempt_that_has_ended_is_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its Pods saved last, and their last step: nothing may wake the job after they have ended."""
    monkeypatch.setattr("finetune_operator.progress.store.time.monotonic", lambda: 0.0)
    store = ProgressStore()
    last = SHOWN.model_copy(update={"step": 301})
    for progress in (SHOWN, last):
        store.put("team-a", ATTEMPT, ShownProgress(progress))
    assert store.shown("team-a", ATTEMPT) == ShownProgress(SHOWN)
    assert store.seconds_until_newer("team-a", ATTEMPT) == 10
    assert store.shown("team-a", ATTEMPT, is_running=False) == ShownProgress(last)
    assert store.seconds_until_newer("team-a", ATTEMPT) is None


def test_the_store_forgets_the_attempt_that_was_silent_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.progress.store._ATTEMPTS_KEPT", 2)
    store = ProgressStore()
    for attempt in ("a", "b", "a", "c"):
        store.put("team-a", attempt, ShownProgress(SHOWN))
    assert [store.shown("team-a", attempt) is not None for attempt in "abc"] == [True, False, True]
    assert store.shown("team-b", "a") is None


def test_pods_are_told_an_address_that_names_namespace_job_and_attempt() -> None:
    owner = Owner("FineTuneJob", "team-a", "router", "uid-1")
    assert (
        ProgressEndpoint("https://finetune.svc:8443/", "PEM").url_for(owner, ATTEMPT)
        == f"https://finetune.svc:8443{PATH}"
    )
