"""What a sweep that evaluates its trials asks the API server for: as much for a late trial as for an early one."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.integration.operator import played
from tests.integration.operator.api import Object
from tests.integration.operator.finetunesweeps.test_requests import PLAYED_SECONDS, TICK_SECONDS, Counted, counted
from tests.integration.operator.finetunesweeps.trials import SWEEP
from tests.integration.operator.jobs import evaluation_report
from tests.integration.operator.lives import Stage
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE

TRIALS = 12
EARLY, LATE = (2, 6), (8, 12)
"""Numbers of finished trials: what four trials cost after the first two, and after eight."""
MOST_FINISHED_LATE = 2
"""An end is seen a little later than it is written."""


def play_until_over(found: Counted) -> list[Counter[str]]:
    """Play all Pods until the sweep is over; returns what was asked for until so many trials had finished."""
    snapshots: list[Counter[str]] = []
    end = time.monotonic() + PLAYED_SECONDS
    while True:
        found.operator.keep_running()
        status = found.api.get("FineTuneSweep", "router").get("status", {})
        while len(snapshots) <= status.get("finished", 0):
            snapshots.append(of_the_sweep(found.requests))
        if status.get("phase") == "Succeeded":
            return snapshots
        assert time.monotonic() < end, status
        phases = {
            job["metadata"]["uid"]: job.get("status", {}).get("phase", "") for job in found.api.items("FineTuneJob")
        }
        for pod in found.api.items("Pod"):
            if "deletionTimestamp" not in pod["metadata"]:
                play(found, pod, phases)
        time.sleep(TICK_SECONDS)


def play(found: Counted, pod: Object, phases: dict[str, str]) -> None:
    if pod["metadata"]["labels"]["finetune.dev/role"] != "evaluate":
        found.play(pod, phases)
    elif pod["status"]["phase"] == "Pending":
        played.ends(found.api, pod, evaluation_report(tuned=0.75))


def of_the_sweep(requests: Counter[str]) -> Counter[str]:
    """What is read, created, and written of the sweep; what jobs and Evaluations write of their own is not counted."""
    return Counter(
        {
            request: count
            for request, count in requests.items()
            if request.startswith(("GET", "POST")) or "finetunesweeps" in request
        }
    )


def test_a_late_trial_costs_no_more_requests_than_an_early_one(quiet_stage: Stage, tmp_path: Path) -> None:
    with counted(quiet_stage, tmp_path) as sweep:
        spec = {**SWEEP, "objective": OBJECTIVE, "budget": {"trials": TRIALS}, "parallel": 1}
        sweep.api.create("FineTuneSweep", "router", spec)
        snapshots = play_until_over(sweep)
    early, late = (snapshots[last] - snapshots[first] for first, last in (EARLY, LATE))
    assert late.total() <= early.total() + MOST_FINISHED_LATE, f"{early}\n{late}"
