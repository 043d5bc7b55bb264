"""A search from its first trial to its end, whatever happens to trials and to the operator."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.conditions import stalled
from finetune_operator.core.plan import Plan
from tests.unit.operator.finetunesweep.sweeps import NOW, RANK, RATE, SweepWorld, sweep_spec


def started(**changes: Any) -> SweepWorld:
    world = SweepWorld(sweep_spec(**changes))
    world.settle()
    return world


def ready_message(world: SweepWorld) -> str:
    return next(one for one in world.status.conditions if one.type == "Ready").message


def finish(world: SweepWorld) -> None:
    """Every trial succeeds, always the one that began first."""
    while world.status.completion_time is None:
        running = [trial.number for trial in world.status.trials if trial.state == "Running"]
        world.ends(running[0])
        world.settle()


def test_trials_are_jobs_of_the_template_with_the_values_that_are_tried() -> None:
    world = started(parallel=2)
    assert world.states() == ["Running", "Running"]
    job, trial = world.created[0], world.trial(1)
    assert job["metadata"]["name"] == trial.fine_tune_job_name
    assert [owner["uid"] for owner in job["metadata"]["ownerReferences"] if owner["controller"]] == ["5a3c"]
    assert job["spec"]["hyperparameters"] == {"learningRate": trial.values["hyperparameters.learningRate"]}
    assert job["spec"]["adapter"]["lora"] == {"rank": trial.values["adapter.lora.rank"]}
    assert job["spec"]["model"] == {"uri": "s3://models/base"}
    assert world.reason() == ("False", "Searching")


def test_a_trial_is_in_the_status_before_its_job_is_created() -> None:
    world = SweepWorld(sweep_spec())
    decided = world.reconcile()
    assert (len(decided.create), len(decided.create_recorded), len(decided.status.trials)) == (0, 2, 2)
    assert world.reconcile() == Plan(world.status, creates_each=True), "no further request"


def test_ends_within_ten_seconds_are_written_together() -> None:
    world = started(parallel=4, budget={"trials": 9})
    world.ends(1)
    world.settle()
    for seconds in (0, 4, 4):
        running = next(trial.number for trial in world.status.trials if trial.state == "Running")
        world.ends(running + seconds // 4, after=timedelta(seconds=seconds))
        decided = world.reconcile()
        assert decided.requeue_at == NOW + timedelta(seconds=20)
        assert world.states() == ["Succeeded"] + ["Running"] * 4, "none takes its place yet"
    world.now = NOW + timedelta(seconds=20)
    world.settle()
    assert world.states() == ["Succeeded"] * 3 + ["Running"] * 4


def test_when_every_trial_has_ended_nothing_is_waited_for() -> None:
    world = started(budget={"trials": 2})
    for number in (1, 2):
        world.ends(number, after=timedelta())
        world.settle()
    assert world.status.phase == "Succeeded"


def test_a_clock_that_was_wrong_delays_no_record() -> None:
    world = started()
    world.ends(1)
    world.settle()
    world.now -= timedelta(days=1)
    world.ends(2)
    world.settle()
    assert world.states() == ["Succeeded", "Succeeded", "Running", "Running"]


def test_the_first_end_is_written_together_with_those_that_come_soon_after_it() -> None:
    world = started(parallel=4, budget={"trials": 9})
    for number, seconds in ((1, 2), (2, 3)):
        world.ends(number, after=timedelta(seconds=seconds))
        assert world.reconcile().requeue_at == NOW + timedelta(seconds=10)
    world.now = NOW + timedelta(seconds=10)
    world.settle()
    assert world.states() == ["Succeeded"] * 2 + ["Running"] * 4


def test_a_search_ends_with_the_best_of_its_trials() -> None:
    world = started(budget={"trials": 5})
    finish(world)
    best = min(world.status.trials, key=lambda trial: trial.score or 0)
    assert world.status.best is not None
    assert (world.status.best.number, world.status.best.score) == (best.number, best.score)
    assert (world.status.finished, world.status.running, world.status.remaining) == (5, 0, 0)
    assert (world.status.phase, world.reason()) == ("Succeeded", ("True", "Succeeded"))


def test_a_grid_ends_with_its_last_combination() -> None:
    world = SweepWorld(sweep_spec(search={"algorithm": "Grid", "parameters": [RANK]}))
    world.settle()
    assert (world.status.running, world.status.remaining) == (2, 1)
    for number in (1, 2, 3):
        world.ends(number, eval_loss=0.5)
        world.settle()
    assert world.status.phase == "Succeeded"


@pytest.fixture(scope="module")
def undisturbed() -> SweepWorld:
    """A search of 14 trials with an operator that nobody kills."""
    world = started(budget={"trials": 14})
    finish(world)
    return world


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=10, max_size=80))
def test_an_operator_that_is_killed_anywhere_tries_the_same_values(undisturbed: SweepWorld, kills: list[int]) -> None:
    """As long as trials end in the same order: no trial is lost, none is made twice, all have the same values."""
    killed = SweepWorld(sweep_spec(budget={"trials": 14}))
    deaths = iter(kills)
    for number in range(15):
        if number:
            killed.ends(number)
        for death in [next(deaths, 99), next(deaths, 99), next(deaths, 99)]:
            killed.reconcile(killed_after=death)
        killed.settle()
    assert [trial.values for trial in killed.status.trials] == [trial.values for trial in undisturbed.status.trials]
    assert [trial.score for trial in killed.status.trials] == [trial.score for trial in undisturbed.status.trials]
    assert [job["metadata"]["name"] for job in killed.created] == [
        trial.fine_tune_job_name for trial in killed.status.trials
    ]
    assert killed.status.best == undisturbed.status.best


def test_trials_that_ended_while_no_operator_ran_are_learned_from_in_their_order() -> None:
    one, late = (started(parallel=3, search={"parameters": [RATE, RANK]}, budget={"trials": 30}) for _ in range(2))
    for begin in range(1, 25, 3):
        for number in (begin + 2, begin, begin + 1):
            for world in (one, late):
                world.ends(number)
            one.settle()
        late.settle()
    assert [trial.values for trial in one.status.trials] == [trial.values for trial in late.status.trials]


def test_a_failed_trial_has_no_score_and_the_search_goes_on() -> None:
    world = started(budget={"trials": 4})
    world.ends(1, "Failed", reason="CUDAOutOfMemory")
    world.settle()
    assert (world.trial(1).state, world.trial(1).score, world.trial(1).reason) == ("Failed", None, "CUDAOutOfMemory")
    assert (world.status.finished, world.status.running) == (1, 2)
    assert world.reason() == ("False", "Searching")


def test_too_many_failed_trials_end_the_search_and_what_still_runs() -> None:
    world = started(budget={"failures": 3})
    for number in (1, 2, 3):
        world.ends(number, "Failed", reason="DatasetInvalid")
        world.settle()
    assert world.states() == ["Failed", "Failed", "Failed", "Cancelled"]
    assert world.jobs[world.trial(4).fine_tune_job_name].is_cancelled
    assert world.status.phase == "Failed"
    for kind, expected in (("Ready", "False"), ("Stalled", "True"), ("Failed", "True")):
        assert world.reason(kind) == (expected, "TrialsFailed")
    ready = next(one for one in world.status.conditions if one.type == "Ready")
    assert "3 of 4 trials failed, the last one" in ready.message
    assert "DatasetInvalid" in ready.message


def test_a_trial_that_measured_no_validation_loss_has_failed() -> None:
    world = started()
    world.ends(1, eval_loss=None)
    world.settle()
    assert (world.trial(1).state, world.trial(1).reason) == ("Failed", "NoValidationLoss")


def test_a_trial_that_would_exceed_the_accelerator_hours_is_not_started() -> None:
    """Each takes an hour on four accelerators: two are within ten hours, and a third would not be."""
    world = SweepWorld(sweep_spec(parallel=1, budget={"acceleratorHours": 10}), accelerators=4)
    world.settle()
    world.ends(1)
    world.settle()
    assert world.status.running == 1
    world.ends(2)
    world.settle()
    assert world.states() == ["Succeeded", "Succeeded"]
    assert (world.status.phase, world.reason()) == ("Succeeded", ("True", "Succeeded"))
    ready = next(one for one in world.status.conditions if one.type == "Ready")
    assert "budget.acceleratorHours" in ready.message


def test_hours_that_cannot_be_counted_start_nothing() -> None:
    world = SweepWorld(sweep_spec({"activeDeadlineSeconds": 3600}, budget={"acceleratorHours": 10}))
    world.accelerators = stalled(Reason.CLASS_NOT_FOUND, "There is no default class. Set spec.className.")
    world.settle()
    (told,) = [one for one in world.status.conditions if one.type == "Stalled"]
    assert told.message.endswith("Set spec.template.spec.className.")
    assert not world.status.trials
    assert world.reason("Stalled") == ("True", "ClassNotFound")
    world.accelerators = 4
    world.settle()
    assert world.states() == ["Running", "Running"]


def test_a_trial_that_ends_while_hours_cannot_be_counted_is_recorded_once_they_can() -> None:
    world = SweepWorld(sweep_spec(parallel=1, budget={"acceleratorHours": 10}), accelerators=4)
    world.settle()
    world.accelerators = stalled(Reason.CLASS_NOT_FOUND, "There is no class.")
    world.ends(1)
    world.settle()
    assert world.states() == ["Running"]
    world.accelerators = 4
    world.settle()
    assert (world.trial(1).state, world.trial(1).accelerator_seconds) == ("Succeeded", 4 * 3600)


def test_suspended_trials_keep_their_place_and_none_starts() -> None:
    world = started(budget={"trials": 5})
    world.spec = world.spec.model_copy(update={"suspend": True})
    decided = world.reconcile()
    assert [body["spec"] for body in decided.merge] == [{"suspend": True}] * 2
    assert world.status.phase == "Running", "their Pods are still stopping"
    world.settle()
    assert (world.status.phase, world.reason()) == ("Suspended", ("False", "Suspended"))
    (ready,) = [one for one in world.status.conditions if one.type == "Ready"]
    assert "2 trials that have begun are suspended too, and no other starts." in ready.message
    assert (world.status.finished, world.status.running) == (0, 0)
    world.ends(1)
    world.settle()
    assert world.states() == ["Succeeded", "Running"], "one had ended already; none takes its place"
    world.spec = world.spec.model_copy(update={"suspend": False})
    world.settle()
    assert world.states() == ["Succeeded", "Running", "Running"]
    assert not any(world.jobs[trial.fine_tune_job_name].is_suspended for trial in world.status.trials[1:])


def test_a_trial_that_was_not_created_yet_waits_for_the_end_of_the_suspension() -> None:
    world = SweepWorld(sweep_spec())
    world.reconcile(killed_after=1)
    world.spec = world.spec.model_copy(update={"suspend": True})
    world.settle()
    assert not world.created
    assert world.status.phase == "Suspended"


def test_while_a_quota_refuses_one_trial_the_other_is_followed_to_its_end() -> None:
    world = SweepWorld(sweep_spec(parallel=2, budget={"trials": 4}), quota=1)
    world.settle()
    assert (world.states(), len(world.jobs)) == (["Running", "Running"], 1)
    world.ends(1)
    world.settle()
    assert world.states() == ["Succeeded", "Running", "Running"]
    assert (world.status.finished, len(world.jobs)) == (1, 1)
    world.quota = 3
    world.settle()
    assert len(world.jobs) == 3


def test_while_a_quota_refuses_one_trial_the_others_are_pruned_and_suspended() -> None:
    world = SweepWorld(sweep_spec(parallel=4, prune={"asha": {"minimumSteps": 10}}), quota=3)
    world.settle()
    for number in (1, 2, 3):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.settle()
    assert world.states()[:4] == ["Running", "Pruned", "Pruned", "Running"]
    assert [job.is_cancelled for job in world.jobs.values()] == [False, True, True]
    world.spec = world.spec.model_copy(update={"suspend": True})
    world.settle()
    assert world.jobs[world.trial(1).fine_tune_job_name].is_suspended
    assert world.status.phase == "Suspended"
    world.spec = world.spec.model_copy(update={"suspend": False})
    world.settle()
    assert not world.jobs[world.trial(1).fine_tune_job_name].is_suspended
    assert world.status.phase == "Running"


def test_a_cancelled_search_cancels_its_trials_and_keeps_the_best() -> None:
    world = started()
    world.ends(1)
    world.settle()
    world.spec = world.spec.model_copy(update={"cancel": True})
    world.settle()
    assert world.states() == ["Succeeded", "Cancelled", "Cancelled"]
    assert all(job.is_cancelled for name, job in world.jobs.items() if name != world.trial(1).fine_tune_job_name)
    assert (world.status.phase, world.reason("Failed")) == ("Cancelled", ("True", "Cancelled"))
    assert world.status.best is not None


def test_a_trial_that_somebody_cancelled_is_no_failure() -> None:
    world = started()
    world.ends(1, "Cancelled")
    world.settle()
    assert world.states() == ["Cancelled", "Running", "Running"]


def test_if_all_trials_were_cancelled_there_is_no_model() -> None:
    world = started(budget={"trials": 2})
    for number in (1, 2):
        world.ends(number, "Cancelled")
    world.settle()
    assert (world.status.phase, world.reason()) == ("Failed", ("False", "TrialsFailed"))


def test_another_run_id_cancels_what_runs_and_starts_over_with_other_names() -> None:
    world = started()
    before = [trial.fine_tune_job_name for trial in world.status.trials]
    world.spec = world.spec.model_copy(update={"run_id": "2"})
    world.settle()
    assert all(world.jobs[name].is_cancelled for name in before)
    assert world.states() == ["Running", "Running"]
    assert not {trial.fine_tune_job_name for trial in world.status.trials} & set(before)
    assert (world.status.run_id, world.status.run_number) == ("2", 2)


def test_a_finished_search_stays_as_it_is_whatever_its_budget_becomes() -> None:
    world = started(budget={"trials": 2})
    finish(world)
    before = world.status
    world.spec = sweep_spec(budget={"trials": 50}, parallel=9)
    world.settle()
    assert (world.status.trials, world.status.phase) == (before.trials, "Succeeded")


def test_a_trial_whose_job_was_deleted_is_made_again() -> None:
    world = started()
    job = world.jobs.pop(world.trial(1).fine_tune_job_name)
    world.settle()
    assert world.jobs[world.trial(1).fine_tune_job_name].phase == job.phase
    assert world.created[-1]["spec"] == world.created[0]["spec"]


def test_while_every_trial_is_stalled_so_is_the_search() -> None:
    world = started()
    for trial in world.status.trials:
        world.jobs[trial.fine_tune_job_name] = world.jobs[trial.fine_tune_job_name].__class__(
            "1", "Queued", reason="Unschedulable", message="Raise spec.className's limit.", is_stalled=True
        )
    world.settle()
    (told,) = [one for one in world.status.conditions if one.type == "Stalled"]
    assert told.message.endswith(" Raise spec.template.spec.className's limit."), "which is where it is set"
    assert world.reason("Stalled") == ("True", "Unschedulable")
    assert world.status.phase == "Running"
    world.reports(1, 1, 0.5)
    name = world.trial(1).fine_tune_job_name
    world.jobs[name] = world.jobs[name].__class__("2", "Training", reason="Training")
    world.settle()
    assert world.reason("Stalled") == ("False", "Progressing")


def test_two_hundred_trials_fit_into_a_status() -> None:
    world = SweepWorld(sweep_spec(search={"algorithm": "Random"}, budget={"trials": 200}, parallel=50))
    world.settle()
    finish(world)
    assert len(world.status.trials) == 200
    assert len(json.dumps(world.status.to_wire())) < 80_000


def test_the_status_is_read_as_it_is_written() -> None:
    world = started()
    world.ends(1)
    world.settle()
    assert FineTuneSweepStatus.read(world.status.to_wire()) == world.status
    assert world.status.start_time == NOW


def test_the_best_score_has_six_digits() -> None:
    world = started(budget={"trials": 1})
    world.ends(1, eval_loss=6.716799304409948)
    world.settle()
    assert world.status.best is not None and world.status.best.score == 6.7168


@pytest.mark.parametrize(
    ("parallel", "told"),
    [
        (1, "Waiting for trial {0!r} to save and stop."),
        (2, "Waiting for 2 trials, among them trial {0!r}, to save and stop."),
    ],
)
def test_the_trials_that_still_save_are_counted(parallel: int, told: str) -> None:
    world = started(parallel=parallel)
    world.spec = world.spec.model_copy(update={"suspend": True})
    world.reconcile()
    assert told.format(world.trial(1).fine_tune_job_name) in ready_message(world)
