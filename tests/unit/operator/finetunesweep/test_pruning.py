"""Successive halving: of the trials at a rung, one in reductionFactor goes on. Median: who is not above it does."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetunesweep import ASHA, Median, Prune
from finetune_operator.finetunesweep.search.pruning import TrialRungs, rung_step, rungs_at, trials_to_prune

THIRDS = Prune(asha=ASHA(minimum_steps=10, reduction_factor=3))
MEDIAN = Prune(median=Median(minimum_steps=10, minimum_trials=3))
LOSSES = st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=4)


STEPS = (10, 30, 90, 270)


def runner(number: int, losses: Sequence[float | None], *, has_succeeded: bool = False) -> TrialRungs:
    """A trial with these losses at the first rungs."""
    return TrialRungs(number, dict(zip(STEPS, losses, strict=False)), has_succeeded)


def at_first_rung(*values: float) -> list[TrialRungs]:
    return [runner(number, [value]) for number, value in enumerate(values, 1)]


def test_rungs_are_at_10_30_and_90_steps() -> None:
    assert [rung_step(THIRDS, rung) for rung in range(3)] == [10, 30, 90]
    assert [rungs_at(THIRDS, step) for step in (0, 9, 10, 29, 30, 89, 90)] == [0, 0, 1, 1, 2, 2, 3]


def test_of_nine_trials_at_the_first_rung_the_best_three_go_on() -> None:
    trials = at_first_rung(0.9, 0.1, 0.8, 0.7, 0.2, 0.6, 0.3, 0.5, 0.4)
    assert trials_to_prune(THIRDS, trials) == {1, 3, 4, 6, 8, 9}


def test_two_trials_are_too_few_to_compare() -> None:
    assert trials_to_prune(THIRDS, at_first_rung(0.9, 0.1)) == frozenset()


def test_of_equal_trials_the_first_ones_go_on() -> None:
    assert trials_to_prune(THIRDS, at_first_rung(*[0.5] * 6)) == {3, 4, 5, 6}


def test_a_trial_is_judged_at_the_last_rung_that_it_has_reached() -> None:
    """The second was the worst of three at 10 steps; at 30 steps it is one of two."""
    trials = [runner(1, [0.1, 0.1]), runner(2, [0.9, 0.2]), runner(3, [0.5])]
    assert trials_to_prune(THIRDS, trials) == {3}


@given(st.lists(LOSSES, max_size=30), st.integers(2, 5))
def test_never_more_go_on_than_one_in_so_many_and_the_best_always_does(drawn: list[list[float]], factor: int) -> None:
    asha = Prune(asha=ASHA(minimum_steps=1, reduction_factor=factor))
    trials = [runner(number, losses) for number, losses in enumerate(drawn, 1)]
    lost = trials_to_prune(asha, trials)
    for step in STEPS:
        there = [trial for trial in trials if step in trial.losses]
        waiting = [trial for trial in there if max(trial.losses) == step]
        if len(there) >= factor:
            assert sum(trial.number not in lost for trial in waiting) <= len(there) // factor
        best = min(there, key=lambda trial: (trial.losses[step] or 0.0, trial.number), default=None)
        assert best is None or best not in waiting or best.number not in lost


@given(st.permutations(at_first_rung(0.9, 0.1, 0.8, 0.7, 0.2, 0.6, 0.3)))
def test_the_order_in_which_trials_come_does_not_matter(trials: list[TrialRungs]) -> None:
    assert trials_to_prune(THIRDS, trials) == {1, 3, 4, 6, 7}


def succeeded(*losses: list[float]) -> list[TrialRungs]:
    return [runner(number, of_trial, has_succeeded=True) for number, of_trial in enumerate(losses, 1)]


def test_the_median_is_compared_every_ten_steps() -> None:
    assert [rung_step(MEDIAN, rung) for rung in range(3)] == [10, 20, 30]
    assert [rungs_at(MEDIAN, step) for step in (9, 10, 19, 20, 10_000)] == [0, 1, 1, 2, 32]


def test_a_trial_above_the_median_of_those_that_succeeded_is_ended() -> None:
    known = succeeded([0.1], [0.2], [0.3])
    assert trials_to_prune(MEDIAN, [*known, runner(4, [0.25]), runner(5, [0.2]), runner(6, [0.15])]) & {4, 5, 6} == {4}


def test_before_so_many_trials_have_succeeded_none_is_ended() -> None:
    running = [runner(number, [0.1]) for number in (3, 4, 5)]
    assert not trials_to_prune(MEDIAN, [*succeeded([0.1], [0.2]), *running, runner(6, [9.9])])


def test_one_bad_evaluation_ends_no_trial_that_was_good_before() -> None:
    known = succeeded([0.5, 0.4], [0.6, 0.5], [0.7, 0.6])
    assert trials_to_prune(MEDIAN, [*known, runner(4, [0.45, 0.9]), runner(5, [0.55, 0.9])]) & {4, 5} == {5}


def test_a_trial_that_succeeded_earlier_than_that_is_not_compared_with() -> None:
    known = succeeded([0.1, 0.1], [0.1, 0.1], [0.1])
    assert not trials_to_prune(MEDIAN, [*known, runner(4, [0.9, 0.9])]) & {4}
    assert trials_to_prune(MEDIAN, [*known, runner(4, [0.9])]) & {4}


def test_a_loss_that_nobody_saw_is_compared_with_nothing() -> None:
    """The trial goes on, and is nobody's rival there."""
    for prune in (THIRDS, MEDIAN):
        known = succeeded([0.1, 0.1], [0.2, 0.2], [0.3, 0.3])
        assert not trials_to_prune(prune, [*known, runner(4, [0.9, None])]) & {4}
    unseen = [runner(number, [None, 0.01], has_succeeded=True) for number in (1, 2, 3)]
    assert not trials_to_prune(THIRDS, [*unseen, runner(4, [0.9])]) & {4}
    assert not trials_to_prune(MEDIAN, [*unseen, runner(4, [0.9])]) & {4}
