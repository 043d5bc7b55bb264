"""What a sweep reads of a trial's FineTuneJob: whether it is still that trial, and how long it ran."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepSpec, SizedModel, TrialStatus
from finetune_operator.core.conditions import stalled
from finetune_operator.finetunesweep.objects import evaluation_spec, trial_job
from finetune_operator.finetunesweep.observed import TrialJob
from finetune_operator.finetunesweep.views.evaluation import on_holdout, with_evaluation
from finetune_operator.finetunesweep.views.job import view
from tests.unit.operator.finetunesweep.sweeps import NOW, OBJECTIVE, OWNER, TEMPLATE, SweepWorld, sweep_spec
from tests.unit.operator.states import RESOLVED

COMPARED = sweep_spec(objective=OBJECTIVE)
MEASURED = COMPARED.objective.evaluation


def viewed(changes: dict[str, Any], spec: FineTuneSweepSpec | None = None, **status: Any) -> TrialJob:
    world = SweepWorld(spec or sweep_spec(), models=MODELS)
    world.settle()
    trial = world.trial(1)
    body = trial_job(OWNER, world.spec, trial)
    body["metadata"]["resourceVersion"] = "7"
    body["spec"] = {**body["spec"], **changes}
    body["status"] = {"phase": "Training", "runId": "1", **status}
    return view(body, trial, world.spec.template, NOW)


MODELS = (SizedModel(name="one", uri="s3://models/one", parameters=1),)
GATES = {"gates": [{"grader": "exact", "minimum": 0.4}]}
FROZEN = {"hyperparameters": {"epochs": 1, "batchSize": 8, "maxLength": 512}}
CURVE = sweep_spec(FROZEN).model_copy(update={"mode": "LearningCurve", "search": None})
SMALLEST = FineTuneSweepSpec.from_wire(
    {
        "mode": "SmallestModel",
        "template": {"spec": {"dataset": TEMPLATE["dataset"]}},
        "objective": OBJECTIVE,
        "smallestModel": GATES,
    }
)
LEAKED = {"dataset": {"training": {"uri": "s3://data/test.jsonl"}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"runId": "2"},
        {"hyperparameters": {"learningRate": 0.5}},
        {"model": {"uri": "s3://models/another"}},
        {"adapter": {"type": "Full"}},
        {"checkpoints": {"best": {"metric": "EvalLoss"}}},
        {"parallelism": {"nodes": 2}},
        LEAKED,
    ],
    ids=str,
)
def test_a_trial_that_somebody_changed_has_failed(changes: dict[str, Any]) -> None:
    """Or that somebody else has made, with the sweep's name for it and the sweep as its owner."""
    found = viewed(changes)
    assert (found.phase, found.reason, found.may_be_changed) == ("Failed", "SpecChanged", False)


def test_in_every_mode_a_trial_trains_what_the_sweep_made_it_for() -> None:
    assert viewed({}, CURVE).phase == viewed({}, SMALLEST).phase == "Training"
    assert viewed({"model": {"uri": "s3://models/larger"}}, SMALLEST).reason == "SpecChanged"
    dataset = {**TEMPLATE["dataset"], "training": {"uri": "s3://data/train.jsonl", "limit": {"percent": 50}}}
    assert viewed({"dataset": dataset}, CURVE).reason == "SpecChanged", "the first trial of a curve has all examples"


def test_before_another_run_begins_its_template_says_nothing_of_the_trials_of_the_one_before() -> None:
    world = SweepWorld(sweep_spec())
    world.settle()
    trial = world.trial(1)
    body = {**trial_job(OWNER, world.spec, trial), "status": {"phase": "Training", "runId": "1"}}
    body["metadata"]["resourceVersion"] = "7"
    another = sweep_spec(LEAKED)
    assert view(body, trial, another.template, NOW).may_be_changed is False
    assert view(body, trial, None, NOW).may_be_changed, "it is cancelled"


@pytest.mark.parametrize(
    "changes", [{}, {"runId": "1"}, {"suspend": True}, {"retryLimit": 5}, {"className": "gpus"}], ids=str
)
def test_what_may_change_within_a_run_changes_no_trial(changes: dict[str, Any]) -> None:
    """A policy of the cluster may name the class where the template leaves that open."""
    assert viewed(changes).phase == "Training"


def test_a_class_that_the_template_names_stays() -> None:
    assert viewed({"className": "gpus"}, sweep_spec({"className": "cpu"})).reason == "SpecChanged"


def test_the_result_of_another_run_is_none_of_the_trials() -> None:
    """Somebody changed runId and set it back while no operator looked: the status is that of the other run."""
    found = viewed({}, runId="2")
    assert (found.phase, found.reason) == ("Failed", "SpecChanged")


def test_a_loss_is_told_with_its_step_and_how_many_steps_lie_between_two() -> None:
    progress: dict[str, Any] = {"step": 45, "totalSteps": 90, "percent": 50, "evalLoss": 0.5, "evalStep": 40}
    progress["lastUpdatedTime"] = "2026-11-27T12:00:00Z"
    found = viewed({}, progress=progress, resolved={**RESOLVED.to_wire(), "checkpointEverySteps": 20})
    assert (found.eval_loss, found.eval_step, found.eval_every) == (0.5, 40, 20)


def attempt(number: int, outcome: str, *, waited: int, ran: int) -> dict[str, Any]:
    """It ended at noon."""
    began = NOW - timedelta(seconds=ran)
    times = {"startTime": began - timedelta(seconds=waited), "podsStartTime": began, "endTime": NOW}
    return {"number": number, "outcome": outcome, **{name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items()}}


def test_a_trial_has_run_as_long_as_the_pods_of_all_its_attempts() -> None:
    """Ten are listed; the seconds of those before are kept. Time in a queue takes no accelerator."""
    ended = [attempt(number, "Disrupted", waited=500, ran=10) for number in range(5, 15)]
    assert viewed({}, endedAttempts=ended, earlierAttemptsSeconds=40).seconds == 140
    running = {"number": 15, "jobName": "router-train-1", "classGeneration": 1, "startTime": "2026-11-27T11:00:00Z"}
    assert viewed({}, endedAttempts=ended, attempt=running).seconds == 100, "it still waits in the queue"
    running["podsStartTime"] = "2026-11-27T11:59:00Z"
    assert viewed({}, endedAttempts=ended, attempt=running).seconds == 160
    assert viewed({}, endedAttempts=ended, attempt={**running, "number": 14}).seconds == 100, "it is in the list"


def test_the_attempt_that_succeeded_is_also_counted_by_itself() -> None:
    ended = [attempt(1, "Disrupted", waited=500, ran=1000), attempt(2, "Succeeded", waited=5, ran=600)]
    found = viewed({}, endedAttempts=ended)
    assert (found.seconds, found.attempt_seconds) == (1600, 600)
    assert viewed({}, endedAttempts=ended[:1]).attempt_seconds is None


TRAINED = TrialJob("7", "Succeeded", eval_loss=0.5, completed=NOW)


def evaluated(
    phase: str, grader: str = "exact", run_id: str = "1", measured: str | None = None, **spec: Any
) -> TrialJob:
    score = {"candidate": "tuned", "grader": grader, "score": 0.7, "low": 0.6, "high": 0.8, "examples": 250}
    made = evaluation_spec(COMPARED, MEASURED, "router-trial-1")
    body = {
        "metadata": {"name": "router-evaluation-1", "resourceVersion": "9"},
        "spec": {**made, **spec},
        "status": {"phase": phase, "runId": run_id, "results": [{**score, "candidate": "baseline"}, score]},
    }
    if measured is not None:
        body["status"]["candidateDigests"] = {"tuned": measured}
    return with_evaluation(replace(TRAINED, digest="sha256:second"), body, "exact", made, NOW)


def test_a_trial_that_trains_has_no_evaluation_to_look_at() -> None:
    running = TrialJob("7", "Training")
    assert with_evaluation(running, None, "exact", None, NOW) == running


def test_a_trial_that_has_trained_is_not_over_before_it_is_evaluated() -> None:
    waits = with_evaluation(TRAINED, None, "exact", None, NOW)
    assert (waits.phase, waits.has_trained, waits.may_be_changed, waits.completed) == ("Evaluating", True, False, None)
    runs = evaluated("Waiting")
    assert (runs.phase, runs.evaluation_name, runs.resource_version) == ("Evaluating", "router-evaluation-1", "9")


@pytest.mark.parametrize("phase", ["Passed", "GateFailed", "Inconclusive"])
def test_its_score_is_that_of_the_grader(phase: str) -> None:
    found = evaluated(phase)
    assert found.score is not None
    assert (found.phase, found.score.score, found.score.low) == ("Succeeded", 0.7, 0.6)
    assert evaluated(phase, "another").score is None


@pytest.mark.parametrize("phase", ["Failed", "Cancelled", "Suspended"])
def test_an_evaluation_that_did_not_succeed_is_the_trials_end(phase: str) -> None:
    assert evaluated(phase).phase == phase


def test_an_evaluation_that_measures_something_else_by_now_has_failed_as_a_trials() -> None:
    graders = [{"name": "exact", "type": "StringCheck", "stringCheck": {"ignoreCase": True}}]
    changed = [evaluated("Passed", dataset={"uri": "s3://data/train.jsonl"}), evaluated("Passed", graders=graders)]
    for found in (evaluated("Passed", runId="2"), evaluated("Passed", run_id="2"), *changed):
        assert (found.phase, found.reason) == ("Failed", "SpecChanged")
        assert not found.may_be_changed, "somebody has taken it over"


def test_what_changes_no_score_of_an_evaluation_may_change() -> None:
    assert evaluated("Passed", retryLimit=9, className="gpus", budget={"requests": 9}).phase == "Succeeded"


def holdout(phase: str, measured: str | None, trained: TrialJob | None, **spec: Any) -> TrialJob:
    """The Evaluation of a trial whose model was `sha256:first`; `trained`: what its job has by now."""
    trial = TrialStatus(number=1, fine_tune_job_name="router-trial-1", state="Succeeded", digest="sha256:first")
    made = evaluation_spec(COMPARED, MEASURED, "router-trial-1")
    score = {"candidate": "tuned", "grader": "exact", "score": 0.7, "low": 0.6, "high": 0.8, "examples": 250}
    status: dict[str, Any] = {"phase": phase, "runId": "1", "results": [score]}
    if measured is not None:
        status["candidateDigests"] = {"tuned": measured}
    meta = {"name": "router-holdout-1", "resourceVersion": "9"}
    body = {"metadata": meta, "spec": {**made, **spec}, "status": status}
    return on_holdout(trial, trained, body, "exact", made, NOW)


SAME = replace(TRAINED, digest="sha256:first")


def test_the_score_on_the_holdout_examples_is_that_of_the_model_that_was_chosen() -> None:
    """Whatever its job has trained since."""
    for trained in (SAME, replace(TRAINED, digest="sha256:second"), None):
        found = holdout("Passed", "sha256:first", trained)
        assert (found.phase, found.score and found.score.score) == ("Succeeded", 0.7)


@pytest.mark.parametrize("phase", ["Waiting", "Evaluating", "Passed"])
def test_without_the_model_that_was_chosen_there_is_none_and_nothing_waits_for_it(phase: str) -> None:
    again = holdout(phase, "sha256:second", replace(TRAINED, digest="sha256:second"))
    assert (again.phase, again.reason, again.score) == ("Failed", "SpecChanged", None)
    another_run = TrialJob("7", "Failed", reason="SpecChanged", is_ours=False)
    assert holdout(phase, None if phase == "Waiting" else "sha256:second", another_run).reason == "SpecChanged"
    gone = holdout(phase, None if phase == "Waiting" else "sha256:second", None)
    assert (gone.phase, gone.reason, gone.may_be_changed) == ("Failed", "ReferenceNotFound", True)
    assert gone.completed is None, "it is cancelled"


def test_an_evaluation_on_the_holdout_examples_that_goes_on_is_waited_for() -> None:
    assert holdout("Evaluating", "sha256:first", SAME).phase == "Evaluating"
    assert holdout("Waiting", None, SAME).phase == "Evaluating"
    unreadable = TrialJob("7", None, is_stalled=True)
    assert holdout("Waiting", None, unreadable).phase == "Evaluating", "what its job has is not known"


def test_one_that_measures_something_else_by_now_has_no_score() -> None:
    found = holdout("Passed", "sha256:first", SAME, dataset={"uri": "s3://data/train.jsonl"})
    assert (found.phase, found.reason, found.may_be_changed) == ("Failed", "SpecChanged", False)


def test_a_score_of_what_the_trial_had_trained_before_it_was_made_again_is_not_its_score() -> None:
    """Its job was deleted, and made again, before the end was recorded. The Evaluation starts over by itself."""
    waits = evaluated("Passed", measured="sha256:first")
    assert (waits.phase, waits.score, waits.completed) == ("Evaluating", None, None)
    known = evaluated("Passed", measured="sha256:second")
    assert (known.phase, known.digest) == ("Succeeded", "sha256:second")
    assert known.score is not None


def test_a_job_that_somebody_took_over_is_left_alone() -> None:
    """Its end waits for the record; meanwhile the sweep is suspended, or another run begins."""
    for change in ({"suspend": True}, {"run_id": "2"}):
        world = SweepWorld(sweep_spec(parallel=2))
        world.settle()
        world.ends(1, "Failed", reason="SpecChanged", is_ours=False, after=timedelta(seconds=3))
        world.accelerators = stalled(Reason.CLASS_NOT_FOUND, "There is no class.")
        world.spec = world.spec.model_copy(update=change)
        name = world.trial(1).fine_tune_job_name
        written = [body["metadata"]["name"] for body in world.reconcile().merge]
        assert name not in written
        assert len(written) == 1, "the other trial is still the sweep's"
