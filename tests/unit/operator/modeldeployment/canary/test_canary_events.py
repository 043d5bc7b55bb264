"""The Events of a canary: one for each transition, with the numbers, each told once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import TrafficBatch, TrafficCounts, TrafficReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import EventNote, progressing
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from tests.unit.operator.deployment_states import after, answering
from tests.unit.operator.modeldeployment.canary.test_canary import asked, behind_gateway, with_next
from tests.unit.operator.states import NOW

STEPS = [{"percent": 10, "minimumRequests": 100}, {"percent": 50, "minimumRequests": 100}]


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def reported(observed: ObservedModelDeployment, requests: int, errors: int = 0) -> ObservedModelDeployment:
    """What a gateway counted next: as much of both."""
    canary = observed.status.canary
    assert canary is not None
    batch = TrafficBatch(
        sequence=1 + sum(one.sequence for one in canary.sources),
        stable=TrafficCounts(requests=requests),
        canary=TrafficCounts(requests=requests, errors=errors),
    )
    return replace(observed, reports=(TrafficReport(source="0" * 32, split=canary.split, batch=batch),))


class Life:
    """A ModelDeployment, look by look; `told` has every Event."""

    def __init__(self, observed: ObservedModelDeployment) -> None:
        self.observed = observed
        self.told: list[EventNote] = []

    def look(self, seconds: float = 0) -> list[EventNote]:
        done = plan(self.observed, later(seconds))
        self.told += done.events
        found = replace(after(self.observed, done), reports=())
        canary = found.of_role("Deployment", "canary")
        pods = answering(canary, canary["spec"]["replicas"]) if canary is not None else ()
        self.observed = replace(found, canary_pods=pods)
        return list(done.events)

    @property
    def reasons(self) -> list[str]:
        return [one.reason for one in self.told]


def begun() -> Life:
    life = Life(replace(with_next(behind_gateway()), spec=asked(steps=STEPS)))
    life.look()
    life.look()
    assert life.observed.status.canary is not None and life.observed.status.canary.percent == 10
    return life


def test_each_transition_of_a_canary_that_is_promoted_has_one_event_with_its_numbers() -> None:
    life = begun()
    for seconds in (10, 20):
        life.observed = reported(life.observed, 300)
        life.look(seconds)
    life.look(60)
    life.look(61)
    assert life.reasons == [
        *("CanaryStarted", "CanaryShareChanged", "CanaryShareChanged", "CanaryPassed"),
        "RollingOut",
    ]
    assert {one.type for one in life.told} == {"Normal"}
    started, first, second, passed, _ = (one.message for one in life.told)
    assert started.endswith("It is to get 10 %, 50 % of the requests, in this order.")
    assert "gets 10 % of the requests from now on: step 1 of 2, at least 100 requests." in first
    assert "The step before passed" not in first
    assert "gets 50 % of the requests from now on: step 2 of 2" in second
    assert "The step before passed: ErrorRate was 0; that of the model that serves, 0 (" in second
    assert "passed step 2 of 2 after 300 requests that it answered: ErrorRate was 0;" in passed


def test_looks_that_change_nothing_tell_nothing() -> None:
    life = begun()
    for seconds in (5, 10, 15):
        life.observed = reported(life.observed, 7)
        assert life.look(seconds) == []


def test_a_rollback_is_reported_once_as_a_warning_with_why() -> None:
    life = begun()
    life.observed = reported(life.observed, 300, errors=90)
    (told,) = life.look(10)
    assert (told.type, told.reason) == ("Warning", "RolledBack")
    assert "ErrorRate was 0.3; that of the model that serves, 0" in told.message
    assert life.look(60) == []
    assert life.look(61) == []


def test_a_rollback_is_reported_also_while_the_object_waits_for_something_else() -> None:
    life = begun()
    life.observed = replace(
        reported(life.observed, 300, errors=90), model=progressing(Reason.WAITING_FOR_MODEL, "The job runs.")
    )
    assert "RolledBack" in [one.reason for one in life.look(10)]


def test_a_share_that_is_changed_within_a_step_is_reported() -> None:
    life = begun()
    life.observed = replace(life.observed, spec=asked(steps=[{**STEPS[0], "percent": 20}, STEPS[1]]))
    (told,) = life.look(10)
    assert told.reason == "CanaryShareChanged"
    assert "gets 20 % of the requests from now on: step 1 of 2" in told.message


def test_one_that_is_withdrawn_and_the_one_after_it_are_reported() -> None:
    life = begun()
    life.observed = with_next(life.observed, ModelSource(uri="s3://models/router/3", digest="sha256:cc"))
    (told,) = life.look(10)
    assert (told.type, told.reason) == ("Normal", "CanaryWithdrawn")
    assert "'sha256:bb' ends undecided" in told.message
    life.look(60)
    (following,) = life.look(61)
    assert following.reason == "CanaryStarted"
    assert "'sha256:cc'" in following.message
