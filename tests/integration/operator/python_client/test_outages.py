"""A wait survives what happens to watches: versions that are forgotten, connections that break, an API server that is
away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_client import ApiError, WaitTimeoutError
from tests.integration.operator import played
from tests.integration.operator.api import Api
from tests.integration.operator.api_proxy import Answer, CutWatch, Fault, Lane, LoseAnswer, Request, Reset
from tests.integration.operator.jobs import JOB, TRAIN_REPORT, starts_training

pytestmark = pytest.mark.usefixtures("operator")

SECONDS = 60.0
EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
GONE = json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n"


class Faults:
    """Spoils the first requests of a kind, one after another, and then none; `spoilt` counts them."""

    def __init__(self, watches: list[Fault], others: list[Fault]) -> None:
        self._watches, self._others = watches, others
        self.spoilt = 0

    def __call__(self, request: Request) -> Fault | None:
        waiting = self._watches if request.is_watch else self._others
        self.spoilt += bool(waiting)
        return waiting.pop(0) if waiting else None


@pytest.mark.parametrize(
    "faults",
    [
        Faults([CutWatch(0.2, GONE), CutWatch(0.2, GONE)], []),
        Faults([Answer(410, "Expired")], []),
        Faults([CutWatch(0.2)], [Reset(), Reset(), Answer(503, "ServiceUnavailable")]),
        Faults([CutWatch(0.2, b'{"type": "MODI')], [Answer(429, "TooManyRequests")]),
    ],
    ids=["forgotten", "refused", "restarted", "torn"],
)
def test_a_wait_goes_on_until_the_run_has_ended(connect: Any, lane: Lane, api: Api, faults: Faults) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    waited = connect(lane.kubeconfig).get("router")
    faults = Faults(list(faults._watches), list(faults._others))  # both clients have theirs
    wanted = len(faults._watches) + len(faults._others)

    def ends_after_all(request: Request) -> Fault | None:
        if (fault := faults(request)) is None and request.is_watch and faults.spoilt == wanted:
            lane.intercept = lambda request: None
            for pod in pods:
                played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
        return fault

    lane.intercept = ends_after_all
    assert waited.wait(timeout=SECONDS).phase == "Succeeded"
    assert faults.spoilt == wanted


def test_a_job_whose_creation_had_no_answer_is_created_once(connect: Any, lane: Lane, api: Api) -> None:
    lost = [LoseAnswer()]
    lane.intercept = lambda request: lost.pop() if request.method == "POST" and lost else None
    created = connect(lane.kubeconfig).create(JOB, name="router")
    assert not lost and created.uid == api.get("FineTuneJob", "router")["metadata"]["uid"]


def test_an_outage_does_not_outlast_the_wait(connect: Any, lane: Lane, api: Api) -> None:
    api.create("FineTuneJob", "router", JOB)
    waited = connect(lane.kubeconfig).get("router")
    lane.intercept = lambda request: Reset()
    with pytest.raises(WaitTimeoutError, match="it goes on"):
        waited.wait(timeout=1.0)
    with pytest.raises(ApiError, match=r"did not answer GET .*Check the kubeconfig and the network") as error:
        waited.refresh()
    assert error.value.may_heal
