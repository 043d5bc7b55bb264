"""The sweeps that the tests make, and what becomes of their trials, which are played."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_api.finetunejob import CheckpointStatus, FileStatistics
from finetune_api.pod_contracts.outcome import TrainReport
from tests.integration.operator import played
from tests.integration.operator.api import WAIT_SECONDS, Api, Object, condition, wait_for
from tests.integration.operator.forked_operator import ForkedOperator
from tests.integration.operator.jobs import PREFLIGHT_REPORT, RESULT
from tests.unit.operator.finetunesweep.sweeps import RANK, RATE, TEMPLATE, loss

SEARCH_SECONDS = 60.0
SWEEP: Object = {
    "template": {"spec": {**TEMPLATE, "className": "cpu"}},
    "search": {"parameters": [RATE, RANK]},
    "budget": {"trials": 4},
}


@dataclass
class Searched:
    """A namespace, and the operator of its sweeps."""

    api: Api
    operator: ForkedOperator

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Until something is true, with the operator kept running. Raises AssertionError."""

        def polled() -> bool:
            self.operator.keep_running()
            return until()

        wait_for(polled, what, SEARCH_SECONDS)

    def trial(self, number: int) -> Object:
        """The trial of this number, once its job is there."""

        def is_there() -> bool:
            found = trials(self.api)
            return len(found) >= number and self.api.exists("FineTuneJob", found[number - 1]["fineTuneJobName"])

        self.wait(is_there, f"trial {number}")
        return trials(self.api)[number - 1]

    def sweep(self, reason: str) -> Object:
        """The sweep, once the reason of its Ready condition is this one."""
        self.wait(lambda: condition(self.api.get("FineTuneSweep", "router"), "Ready").get("reason") == reason, reason)
        return self.api.get("FineTuneSweep", "router")


def trials(api: Api, name: str = "router") -> list[Object]:
    found: list[Object] = api.get("FineTuneSweep", name).get("status", {}).get("trials", [])
    return found


def wait_trial(api: Api, number: int, seconds: float = WAIT_SECONDS) -> Object:
    """The trial of this number, once its job is there."""
    wait_for(
        lambda: len(trials(api)) >= number and api.exists("FineTuneJob", trials(api)[number - 1]["fineTuneJobName"]),
        f"trial {number}",
        seconds,
    )
    return trials(api)[number - 1]


def trains(api: Api, trial: Object, eval_loss: float, examples: int = 1500) -> None:
    """Play the Pods of a trial up to a result with this loss."""
    job = api.get("FineTuneJob", trial["fineTuneJobName"])
    (pod,) = api.wait_children(job, "preflight", "Pod")
    statistics = FileStatistics(examples=examples, tokens=90_000, max_tokens=120)
    dataset = PREFLIGHT_REPORT.dataset.model_copy(update={"training": statistics})
    played.ends(api, pod, PREFLIGHT_REPORT.model_copy(update={"dataset": dataset}))
    (pod,) = api.wait_children(job, "train", "Pod")
    played.runs(api, pod)
    api.wait_reason("FineTuneJob", trial["fineTuneJobName"], "Training")
    base = job["spec"]["model"]["uri"]
    result = RESULT.model_copy(update={"eval_loss": eval_loss, "base_model_uri": base})
    checkpoint = CheckpointStatus(step=750, uri="s3://models/finetune/checkpoints/step-000750")
    played.ends(api, pod, TrainReport(result=result, checkpoints=[checkpoint]))


def evaluation_of(api: Api, trial: Object) -> Object:
    """The Evaluation of a trial that has trained."""
    name, found = trial["fineTuneJobName"], list[Object]()

    def is_there() -> bool:
        of = {one["spec"]["candidates"][0]["model"]["fineTuneJobRef"]["name"]: one for one in api.items("Evaluation")}
        found.extend([of[name]] if name in of else [])
        return bool(found)

    wait_for(is_there, f"the evaluation of {name}")
    return found[0]


def has_ended(api: Api, trial: Object, phase: str = "Succeeded", **more: Any) -> None:
    """The job of a trial says that it has ended, as the operator would write it."""
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    status = {"phase": phase, "runId": "1", "completionTime": moment, **more}
    if phase == "Succeeded":
        status["result"] = {**RESULT.to_wire(), "evalLoss": loss(trial["values"])}
    api.put_status("FineTuneJob", trial["fineTuneJobName"], status)


def reports(api: Api, trial: Object, step: int, eval_loss: float) -> None:
    """The job of a trial tells its validation loss at a step."""
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    progress = {"step": step, "totalSteps": 90, "percent": 11, "evalLoss": eval_loss, "evalStep": step}
    status = {"phase": "Training", "runId": "1", "progress": {**progress, "lastUpdatedTime": moment}}
    api.put_status("FineTuneJob", trial["fineTuneJobName"], status)


def has_been_evaluated(api: Api, evaluation: Object, score: float) -> None:
    """An Evaluation of a trial says that it has ended, as the operator would write it."""
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    bounds = {"low": score - 0.05, "high": score + 0.05, "examples": 250}
    status = {
        "phase": "Passed",
        "runId": "1",
        "completionTime": moment,
        "candidateDigests": {"tuned": RESULT.digest},
        "results": [{"candidate": "tuned", "grader": "exact", "score": score, **bounds}],
    }
    api.put_status("Evaluation", evaluation["metadata"]["name"], status)


def pause(seconds: float) -> None:
    """For an operator that is to be killed at some moment or other."""
    time.sleep(seconds)
