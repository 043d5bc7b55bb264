"""FineTuneJob, whatever happens in whatever order: users, kubelets, Kueue and crashes of the operator, drawn at random.

What must hold after every step is below; and from every state the run still gets to its end.
"""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from finetune_operator.pods.leftovers import all_pods_ended
from finetune_operator.pods.observed import PodView, is_lost
from tests.unit.operator.states import CLASS_NOT_FOUND, NETWORK_FAILURE, resolved_class, told
from tests.unit.operator.world import World

STEPS_TO_THE_END = 60


class FineTuneJobLife(RuleBasedStateMachine):
    """One object's life."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.new_world()
        self.runs = 1
        self.failures_played = 0
        self.disruptions_played = 0
        self.made_by_run: dict[str, set[str]] = {}

    def new_world(self) -> World:
        return World()

    # The operator, alive or killed.

    @rule()
    def reconcile(self) -> None:
        self.world.reconcile()

    @rule(writes=st.integers(0, 4))
    def killed_in_the_middle_of_a_reconciliation(self, writes: int) -> None:
        self.world.reconcile(killed_after=writes)

    @rule()
    def an_operator_of_before_there_was_a_state_wrote_the_status(self) -> None:
        attempt = self.world.status.attempt
        if attempt is not None:
            self.world.status = self.world.status.model_copy(
                update={"attempt": attempt.model_copy(update={"state": None})}
            )

    # Kubernetes.

    @rule()
    def jobs_are_controlled(self) -> None:
        self.world.control_jobs()

    @rule()
    def garbage_is_collected(self) -> None:
        self.world.collect_garbage()

    @rule()
    def pods_start(self) -> None:
        self.world.start_pods()

    @rule()
    def deleted_pods_end(self) -> None:
        self.world.end_deleted_pods()

    @rule(role=st.sampled_from(["preflight", "train"]))
    def pods_succeed(self, role: str) -> None:
        self.world.succeed(role)

    @initialize(rounds=st.integers(0, 9))
    def all_went_well(self, rounds: int) -> None:
        self.all_goes_well(rounds)

    @rule(rounds=st.integers(1, 9))
    def all_goes_well(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.goes_on()

    @rule(seconds=st.sampled_from([1, 15, 150, 700]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    # What goes wrong.

    @precondition(lambda self: self.training())
    @rule()
    def a_rank_fails(self) -> None:
        self.failures_played += 1
        self.world.end_pod(self.training()[0], exit_code=1, message=told(NETWORK_FAILURE))

    @precondition(lambda self: self.training())
    @rule()
    def a_pod_is_preempted(self) -> None:
        self.disruptions_played += 1
        reason = "PreemptionByScheduler: a Pod of higher priority"
        self.world.end_pod(self.training()[-1], exit_code=143, disrupted=True, disruption=reason)

    @precondition(lambda self: self.training())
    @rule()
    def a_node_is_lost(self) -> None:
        self.disruptions_played += 1
        self.world.lose(self.training()[-1])

    @precondition(lambda self: self.preflights())
    @rule()
    def somebody_deletes_the_preflight_pod(self) -> None:
        self.world.delete_pod(self.preflights()[0])

    @precondition(lambda self: self.preflights())
    @rule()
    def the_node_of_the_preflight_is_lost(self) -> None:
        self.world.lose(self.preflights()[0])

    @precondition(lambda self: self.training())
    @rule()
    def kueue_takes_the_quota_back(self) -> None:
        self.disruptions_played += 1
        self.world.set_suspended(True)

    @rule()
    def kueue_gives_quota(self) -> None:
        self.world.set_suspended(False)

    @precondition(lambda self: self.training())
    @rule()
    def somebody_deletes_the_job(self) -> None:
        self.disruptions_played += 1
        job = self.world.jobs[self.training()[0].job_name]
        self.world.delete_job(job.name, job.uid)

    # What people do.

    @rule(suspend=st.booleans())
    def suspend_or_resume(self, suspend: bool) -> None:
        self.world.spec = self.world.spec.model_copy(update={"suspend": suspend})

    @rule()
    def run_again(self) -> None:
        self.runs += 1
        self.world.spec = self.world.spec.model_copy(update={"run_id": str(self.runs)})

    @rule(queue=st.booleans(), exists=st.booleans(), nodes=st.integers(1, 2))
    def the_class_changes(self, queue: bool, exists: bool, nodes: int) -> None:
        scheduling = {"queueName": "gpus"} if queue else {}
        found = resolved_class(scheduling=scheduling, limits={"nodes": nodes})
        self.world.class_ = found if exists else CLASS_NOT_FOUND

    # What always holds.

    @invariant()
    def pods_of_two_jobs_never_run_side_by_side(self) -> None:
        now = self.world.now
        running = {
            view.job_name for view in self.world.pods.values() if not view.is_terminal and not is_lost(view, now)
        }
        assert len(running) <= 1, running

    @invariant()
    def one_job_has_work_to_do(self) -> None:
        """A Job whose Pods have all ended only waits for its controller to count them."""
        ended = {job.name for job in self.world.jobs.values() if all_pods_ended(job, self.world.pods.values())}
        active = [job.name for job in self.world.jobs.values() if job.state == "Active" and job.name not in ended]
        assert len(active) <= 1, active

    @invariant()
    def only_what_happened_is_counted(self) -> None:
        """Neither a crash, nor a suspension, nor another run is a failure or a disruption."""
        attempt = self.world.status.attempt
        if attempt is not None:
            assert attempt.retries <= self.failures_played
            assert attempt.disruptions <= self.disruptions_played

    @invariant()
    def phase_and_conditions_say_the_same(self) -> None:
        """Also of a job that is suspended once it has ended."""
        status, spec = self.world.status, self.world.spec
        held = {condition.type for condition in status.conditions if condition.status == "True"}
        if status.run_id == spec.run_id and status.phase in ("Succeeded", "Failed", "Cancelled"):
            assert held == ({"Ready"} if status.phase == "Succeeded" else {"Stalled", "Failed"}), status
        else:
            assert status.run_id != spec.run_id or not held & {"Ready", "Failed"}, status

    @invariant()
    def every_attempt_that_ended_is_recorded_once(self) -> None:
        numbers = [ended.number for ended in self.world.status.ended_attempts]
        assert numbers == sorted(set(numbers)), numbers

    def teardown(self) -> None:
        """From wherever it stands, with everybody willing, the run gets to its end."""
        world = self.world
        world.class_ = resolved_class()
        world.spec = world.spec.model_copy(update={"suspend": False})
        for _ in range(STEPS_TO_THE_END):
            world.set_suspended(False)
            world.goes_on()
            world.succeed("train")
            world.now += timedelta(seconds=100)
            if world.status.phase in ("Succeeded", "Failed", "Cancelled") and world.status.run_id == world.spec.run_id:
                break
        else:
            raise AssertionError(f"does not end: {world}")
        assert world.status.phase == "Succeeded" or self.failures_played > world.spec.retry_limit
        end = world.status
        world.reconcile()
        world.reconcile()
        assert world.status == end
        assert world.reconcile() == 0

    def preflights(self) -> list[PodView]:
        """The Pods of preflights that have not ended."""
        views = [view for view in self.world.reachable() if view.role == "preflight"]
        return [view for view in views if view.deletion_time is None and not view.is_terminal]

    def training(self) -> list[PodView]:
        """The Pods that train, if the operator knows that they do."""
        attempt = self.world.status.attempt
        if attempt is None or attempt.pods_start_time is None:
            return []
        return [
            view
            for view in self.world.reachable()
            if view.phase == "Running"
            and view.deletion_time is None
            and view.job_name == attempt.job_name
            and view.job_name in self.world.jobs
        ]


TestFineTuneJobLife = FineTuneJobLife.TestCase
TestFineTuneJobLife.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
