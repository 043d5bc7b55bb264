"""The watches of Jobs and Pods are open and say nothing: what runs unseen is neither replaced nor joined by another."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from finetune_operator.kube.cache import CONNECTED_SECONDS
from tests.unit.operator.finetunejob.test_machine import FineTuneJobLife
from tests.unit.operator.late_world import LateWorld
from tests.unit.operator.states import resolved_class
from tests.unit.operator.world import World


def trains_unseen() -> LateWorld:
    """The first attempt's Pods have started since the watches fell silent."""
    world = LateWorld()
    while not any(job.role == "train" for job in world.jobs.values()):
        world.goes_on()
    world.fall_silent()
    world.control_jobs()
    world.start_pods()
    world.now += timedelta(seconds=30)
    world.reconcile()
    return world


def running(world: World) -> set[str]:
    return {pod.job_name for pod in world.pods.values() if pod.role == "train" and not pod.is_terminal}


def test_an_attempt_that_trains_unseen_is_not_replaced_when_the_class_changes() -> None:
    world = trains_unseen()
    before = running(world)
    world.class_ = replace(resolved_class(images={"trainer": "example.com/trainer:2"}), generation=2)
    for _ in range(3):
        world.reconcile()
        world.now += timedelta(seconds=1)
    assert (running(world), world.status.phase, world.status.ended_attempts) == (before, "Training", [])


def test_a_job_is_not_called_suspended_before_the_pods_that_trained_unseen_have_ended() -> None:
    world = trains_unseen()
    world.spec = world.spec.model_copy(update={"suspend": True})
    for _ in range(3):
        world.reconcile()
        world.collect_garbage()
    assert (world.status.phase, len(running(world))) == ("Queued", 1)
    world.end_deleted_pods()
    world.now += timedelta(seconds=CONNECTED_SECONDS)
    world.reconcile()
    assert (world.status.phase, len(running(world))) == ("Suspended", 0)


def test_nothing_starts_beside_pods_that_end_unseen_when_the_job_is_resumed() -> None:
    world = trains_unseen()
    for suspend in (True, True, False, False):
        world.spec = world.spec.model_copy(update={"suspend": suspend})
        world.reconcile()
        world.collect_garbage()
        world.control_jobs()
    assert len(running(world)) == 1
    assert world.status.attempt is not None
    assert world.status.attempt.number == 1


def test_a_life_without_a_retry_needs_no_live_look() -> None:
    world = LateWorld()
    for _ in range(20):
        world.goes_on()
        world.succeed("train")
    assert (world.status.phase, world.live_looks) == ("Succeeded", 0)


class LifeBehindLateWatches(FineTuneJobLife):
    """Whatever happens in test_machine.py, and the watches tell of it late."""

    world: LateWorld

    def new_world(self) -> World:
        return LateWorld()

    @rule(jobs=st.booleans(), pods=st.booleans())
    def watches_fall_silent(self, jobs: bool, pods: bool) -> None:
        self.world.fall_silent(jobs=jobs, pods=pods)

    @rule(rounds=st.integers(1, 9), looks=st.lists(st.booleans(), min_size=2, max_size=6))
    def pods_start_unseen_and_the_job_is_suspended_and_resumed(self, rounds: int, looks: list[bool]) -> None:
        self.world.speak_again()
        for _ in range(rounds):
            if any(job.role == "train" and job.is_active for job in self.world.jobs.values()):
                break
            self.world.goes_on()
        self.world.fall_silent()
        self.world.control_jobs()
        self.world.start_pods()
        for suspend in (*looks, False):
            self.suspend_or_resume(suspend)
            self.world.reconcile()
            self.world.collect_garbage()

    @rule()
    def watches_speak_again(self) -> None:
        self.world.speak_again()

    def teardown(self) -> None:
        self.world.speak_again()
        super().teardown()


TestLifeBehindLateWatches = LifeBehindLateWatches.TestCase
TestLifeBehindLateWatches.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
