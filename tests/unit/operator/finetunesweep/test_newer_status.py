"""Another version of the operator wrote the status of a sweep, or of a trial's job."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finetune_api.finetunesweep import FineTuneSweepStatus, has_values, with_values
from finetune_api.lifecycle import UnreadableStatusError
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, SweepWorld, sweep_spec

HOLDOUT = {**OBJECTIVE, "evaluation": {**OBJECTIVE["evaluation"], "holdout": {"uri": "s3://data/holdout.jsonl"}}}


def newer(world: SweepWorld) -> dict[str, Any]:
    """The status with a field more in each trial and in the best one."""
    wire = world.status.to_wire()
    for one in (*wire["trials"], wire["best"]):
        one["addedLater"] = one["number"]
    return wire


def test_what_a_newer_version_added_to_trials_is_kept_while_the_search_goes_on() -> None:
    world = SweepWorld(sweep_spec())
    world.settle()
    world.ends(1, eval_loss=0.1)
    world.settle()
    world.status = FineTuneSweepStatus.read(newer(world))
    world.ends(2, eval_loss=0.2)
    world.settle()
    wire = world.status.to_wire()
    assert [one.get("addedLater") for one in wire["trials"]] == [1, 2, 3, None]
    assert (wire["best"]["number"], wire["best"]["addedLater"]) == (1, 1)
    world.ends(3, eval_loss=0.01)
    world.settle()
    best = world.status.to_wire()["best"]
    assert (best["number"], "addedLater" in best) == (3, False), "it was said of another trial"


def test_a_trial_in_an_unknown_state_may_run_so_nothing_is_decided() -> None:
    """Else its job would train on with nobody to end it, and the search end without its loss."""
    world = SweepWorld(sweep_spec())
    world.settle()
    wire = world.status.to_wire()
    wire["trials"][1]["state"] = "Paused"
    with pytest.raises(UnreadableStatusError, match=r"status\.trials\.1\.state is 'Paused'"):
        FineTuneSweepStatus.read(wire)


@pytest.mark.parametrize("path", ["hyperparameters.learningRate.start", "dataset.mix"])
def test_a_value_at_a_path_that_only_a_newer_version_searches_changes_no_trial(path: str) -> None:
    spec = {"hyperparameters": {"learningRate": 0.1}}
    known = {"hyperparameters.learningRate": 0.1}
    assert has_values(spec, {**known, path: 1})
    assert not has_values(spec, {"hyperparameters.learningRate": 0.2, path: 1})
    assert with_values(spec, {path: 1}) is not spec, "it can be written"


def test_losses_that_an_older_version_kept_without_their_steps_are_forgotten() -> None:
    """Some of them were losses of much later steps."""
    world = SweepWorld(sweep_spec(prune={"asha": {"minimumSteps": 10}}))
    world.settle()
    wire = world.status.to_wire()
    wire["trials"][0]["rungs"] = [0.5, 0.05]
    world.status = FineTuneSweepStatus.read(wire)
    world.reports(1, 30, 0.4, every=10)
    world.settle()
    assert world.rungs(1) == {30: 0.4}


def pruning() -> SweepWorld:
    world = SweepWorld(sweep_spec(prune={"asha": {"minimumSteps": 10}}, parallel=3))
    world.settle()
    world.reports(2, 10, 0.5)
    world.reports(3, 10, 0.6)
    world.ends(1)
    world.settle()
    return world


def searched() -> SweepWorld:
    world = SweepWorld(sweep_spec(budget={"trials": 2}))
    world.settle()
    world.ends(1)
    world.ends(2)
    world.settle()
    return world


def scored() -> SweepWorld:
    world = SweepWorld(sweep_spec(objective=HOLDOUT, budget={"trials": 2}))
    world.settle()
    for number, score in ((1, 0.5), (2, 0.55)):
        world.has_trained(number)
        world.settle()
        world.is_evaluated(number, score)
        world.settle()
    return world


def measured_again() -> SweepWorld:
    world = scored()
    world.holdout_ends()
    world.settle()
    return world


def places(node: Any, place: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Of every field of a status, but its conditions."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        if name != "conditions":
            yield (*place, name)
            yield from places(child, (*place, name))


def without(node: Any, place: tuple[int | str, ...]) -> Any:
    found = copy.deepcopy(node)
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    del inner[place[-1]]
    return found


@pytest.mark.parametrize("started", [pruning, searched, scored, measured_again], ids=lambda one: one.__name__)
def test_a_status_without_any_of_its_fields_is_read_or_refused_and_never_raises(
    started: Callable[[], SweepWorld],
) -> None:
    """Another version may not write it. A finished sweep is planned again, too, for its message."""
    world = started()
    wire, spec, jobs, holdout = world.status.to_wire(), world.spec, dict(world.jobs), world.holdout
    for place in places(wire):
        try:
            status = FineTuneSweepStatus.read(without(wire, place))
        except UnreadableStatusError:
            continue
        again = SweepWorld(spec, status, world.now, dict(jobs), holdout=holdout)
        again.reconcile()
        again.reconcile()
