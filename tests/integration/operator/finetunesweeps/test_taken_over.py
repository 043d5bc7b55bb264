"""What others do to the objects of a sweep, on a real API server: they are known by name and owner, and compared."""

from __future__ import annotations

from finetune_api.finetunesweep import TrialStatus
from finetune_operator.core.ownership import owner_of
from finetune_operator.finetunesweep.objects import trial_evaluation, trial_job, trial_name
from tests.integration.operator.api import Object, condition
from tests.integration.operator.finetunesweeps.trials import (
    SWEEP,
    Searched,
    evaluation_of,
    has_been_evaluated,
    has_ended,
    trials,
)
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, SweepWorld, sweep_spec

ONE: Object = {**SWEEP, "budget": {"trials": 1}}


def test_an_evaluation_counts_whose_labels_somebody_has_removed(searched: Searched) -> None:
    api = searched.api
    api.create("FineTuneSweep", "router", {**ONE, "objective": OBJECTIVE})
    trial = searched.trial(1)
    has_ended(api, trial)
    searched.wait(lambda: bool(api.items("Evaluation")), "its evaluation")
    evaluation = evaluation_of(api, trial)
    labels = dict.fromkeys(evaluation["metadata"]["labels"])
    api.patch("Evaluation", evaluation["metadata"]["name"], {"metadata": {"labels": labels}})
    searched.operator.kill()  # the next one has never seen the labels
    has_been_evaluated(api, evaluation, 0.7)
    assert searched.sweep("Succeeded")["status"]["best"]["score"] == 0.7


def test_an_evaluation_of_a_trials_name_and_owner_on_other_examples_has_no_score_for_the_trial(
    searched: Searched,
) -> None:
    api = searched.api
    owner = owner_of(api.create("FineTuneSweep", "router", {**ONE, "objective": OBJECTIVE}))
    trial = searched.trial(1)
    compared = sweep_spec({"className": "cpu"}, objective=OBJECTIVE)
    named = TrialStatus.from_wire({**trial, "state": "Running"})
    forged = trial_evaluation(owner, compared, compared.measured, named, 1)
    forged["spec"]["dataset"] = {"uri": "s3://data/train.jsonl"}
    made = api.request("POST", api.path("Evaluation"), forged)
    has_been_evaluated(api, made, 0.9)
    has_ended(api, trial)
    assert "with SpecChanged" in condition(searched.sweep("TrialsFailed"), "Ready")["message"]
    assert not api.get("Evaluation", made["metadata"]["name"])["spec"].get("cancel"), "it is left alone"


def test_a_job_of_a_trials_name_and_owner_that_trains_on_other_examples_is_not_the_trial(searched: Searched) -> None:
    """The name is known as soon as the sweep is suspended before its first trial is created."""
    api = searched.api
    owner = owner_of(api.create("FineTuneSweep", "router", {**ONE, "suspend": True}))
    planned = SweepWorld(sweep_spec({"className": "cpu"}, budget=ONE["budget"]))
    planned.settle()
    trial = planned.trial(1).model_copy(update={"fine_tune_job_name": trial_name(owner, 1, 1)})
    forged = trial_job(owner, planned.spec, trial)
    forged["spec"]["dataset"]["training"]["uri"] = "s3://data/test.jsonl"
    api.request("POST", api.path("FineTuneJob"), forged)
    api.patch("FineTuneSweep", "router", {"spec": {"suspend": False}})
    told = "with SpecChanged: it or its Evaluation has another spec than the sweep gives it, or another runId."
    assert told in condition(searched.sweep("TrialsFailed"), "Ready")["message"]
    assert [one["fineTuneJobName"] for one in trials(api)] == [trial.fine_tune_job_name]
    assert not api.get("FineTuneJob", trial.fine_tune_job_name)["spec"].get("cancel"), "it is left alone"
