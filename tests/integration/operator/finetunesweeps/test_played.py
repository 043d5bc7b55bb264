"""What ends trials and the search, on a real API server: pruning, failures, the budget. The trials are played."""

from __future__ import annotations

from tests.integration.operator.api import Api, condition, stalled
from tests.integration.operator.finetunesweeps.trials import SWEEP, Searched, has_ended, trials
from tests.unit.operator.finetunesweep.sweeps import TEMPLATE

GPUS = {
    "storage": {"bucket": "models", "credentialsSecretName": "s3-credentials"},
    "sources": {"models": ["s3://models/*"], "datasets": ["s3://data/*"]},
    "accelerator": {"resourceName": "nvidia.com/gpu", "countPerNode": 4},
}


HOUR = [{"number": 1, "outcome": "Succeeded", "startTime": "2026-11-27T12:00:00Z", "endTime": "2026-11-27T13:00:00Z"}]


def test_of_nine_trials_at_ten_steps_only_three_go_on(searched: Searched) -> None:
    """D2. The best ones come last: none of them is compared with too few."""
    api = searched.api
    prune = {"asha": {"minimumSteps": 10, "reductionFactor": 3}}
    api.create("FineTuneSweep", "router", {**SWEEP, "budget": {"trials": 9}, "parallel": 9, "prune": prune})
    searched.trial(9)
    for trial in reversed(trials(api)):
        progress = {"step": 10, "totalSteps": 90, "percent": 11, "evalLoss": trial["number"] / 10, "evalStep": 10}
        moment = {"lastUpdatedTime": "2026-11-27T12:00:00Z"}
        status = {"phase": "Training", "runId": "1", "progress": {**progress, **moment}}
        api.put_status("FineTuneJob", trial["fineTuneJobName"], status)
    searched.wait(lambda: [one["state"] for one in trials(api)].count("Pruned") == 6, "six pruned trials")
    assert [one["state"] for one in trials(api)[:3]] == ["Running"] * 3, "those with the lowest losses"
    names = {one["fineTuneJobName"] for one in trials(api) if one["state"] == "Pruned"}
    searched.wait(lambda: cancelled(api) == names, "their jobs to be cancelled, and no others")


def cancelled(api: Api) -> set[str]:
    return {job["metadata"]["name"] for job in api.items("FineTuneJob") if job["spec"]["cancel"]}


def test_three_failed_trials_end_the_search(searched: Searched) -> None:
    """D3."""
    api = searched.api
    api.create("FineTuneSweep", "router", {**SWEEP, "budget": {"trials": 20, "failures": 3}})
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "CUDAOutOfMemory",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-27T12:00:00Z",
    }
    for number in (1, 2):
        has_ended(api, searched.trial(number), "Failed", conditions=[ready])
    searched.trial(4)
    assert [one["state"] for one in trials(api)] == ["Failed", "Failed", "Running", "Running"], "it goes on"
    has_ended(api, searched.trial(3), "Failed", conditions=[ready])
    over = searched.sweep("TrialsFailed")
    assert (over["status"]["phase"], condition(over, "Failed")["status"]) == ("Failed", "True")
    assert "3 of 4 trials failed" in stalled(over)[1]
    assert "CUDAOutOfMemory" in stalled(over)[1]
    assert api.get("FineTuneJob", trials(api)[3]["fineTuneJobName"])["spec"]["cancel"] is True


def test_a_trial_that_would_exceed_the_budget_is_not_started(searched: Searched) -> None:
    """D4: each takes an hour on four accelerators, and ten hours are allowed."""
    api = searched.api
    api.create("FineTuneClass", f"gpus-{api.namespace}", GPUS)
    template = {"spec": {**TEMPLATE, "className": f"gpus-{api.namespace}"}}
    budget = {"trials": 20, "acceleratorHours": 10}
    api.create("FineTuneSweep", "router", {**SWEEP, "template": template, "budget": budget, "parallel": 1})
    for number in (1, 2):
        has_ended(api, searched.trial(number), endedAttempts=HOUR)
    over = searched.sweep("Succeeded")
    assert [one["acceleratorSeconds"] for one in trials(api)] == [4 * 3600, 4 * 3600]
    assert len(api.items("FineTuneJob")) == 2
    assert over["status"]["best"]["score"] == min(one["score"] for one in trials(api))
    assert "Another trial would exceed budget.acceleratorHours." in condition(over, "Ready")["message"]
    api.request("DELETE", f"{api.path('FineTuneClass')}/gpus-{api.namespace}")


def test_a_limit_that_is_set_later_counts_the_hours_before_it(searched: Searched) -> None:
    """Each trial takes an hour on four accelerators: the third would be at twelve hours."""
    api = searched.api
    api.create("FineTuneClass", f"gpus-{api.namespace}", GPUS)
    template = {"spec": {**TEMPLATE, "className": f"gpus-{api.namespace}"}}
    api.create("FineTuneSweep", "router", {**SWEEP, "template": template, "budget": {"trials": 20}, "parallel": 1})
    has_ended(api, searched.trial(1), endedAttempts=HOUR)
    second = searched.trial(2)
    api.patch("FineTuneSweep", "router", {"spec": {"budget": {"acceleratorHours": 10}}})
    has_ended(api, second, endedAttempts=HOUR)
    searched.sweep("Succeeded")
    assert [one["acceleratorSeconds"] for one in trials(api)] == [4 * 3600, 4 * 3600]
    api.request("DELETE", f"{api.path('FineTuneClass')}/gpus-{api.namespace}")
