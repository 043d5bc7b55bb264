"""The API server refuses the job of a trial: a webhook or a policy has something against its values."""

from __future__ import annotations

from tests.unit.operator.finetunesweep.sweeps import SweepWorld, sweep_spec


def test_a_trial_that_is_refused_holds_up_none_that_is_not() -> None:
    world = SweepWorld(sweep_spec(parallel=2, budget={"trials": 4}), refused=frozenset({1}))
    world.settle()
    assert set(world.jobs) == {world.trial(2).fine_tune_job_name}
    for number in (2, 3, 4):
        world.ends(number)
        world.settle()
    assert world.states() == ["Running", "Succeeded", "Succeeded", "Succeeded"]
    assert (world.status.phase, world.status.running) == ("Running", 1), "the refused one is still tried"
    world.refused = frozenset()
    world.settle()
    world.ends(1)
    world.settle()
    assert world.status.phase == "Succeeded"
