"""Which values the next trial tries: a pure function of the search and of the trials before it.

Each trial has a sampler of its own, whose seed follows from the search's and the trial's number. So nothing but the
status has to be kept: whoever asks again, with the same trials, gets the same values.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.finetunesweep import Parameter, Search, TrialStatus, Value, is_whole

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

SIGNIFICANT_DIGITS = 6


def combinations(search: Search) -> int | None:
    """How many different trials there can be; None if ranges are searched."""
    if search.algorithm != "Grid":
        return None
    count = 1
    for parameter in search.parameters:
        count *= len(parameter.values)
    return count


def suggest(search: Search, trials: Sequence[TrialStatus], number: int, sign: int = 1) -> dict[str, Value]:
    """The values of the trial of this number, by path; `trials`: those before it, as they stand.

    `sign`: what a score is multiplied by, so that lower is better.
    """
    if search.algorithm == "Grid":
        grid = itertools.product(*(parameter.values for parameter in search.parameters))
        values = next(itertools.islice(grid, number - 1, None))
        return {parameter.path: value for parameter, value in zip(search.parameters, values, strict=True)}
    # Loaded with the first sweep: an operator without one does not pay for it.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    learns, seed = search.algorithm == "TPE", _seed(search, number)
    # A running trial counts as a bad one, so that those that run side by side differ.
    tpe = optuna.samplers.TPESampler
    sampler = tpe(seed=seed, constant_liar=True) if learns else optuna.samplers.RandomSampler(seed)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    distributions = {parameter.path: _distribution(parameter) for parameter in search.parameters}
    if learns:
        study.add_trials([_frozen(trial, distributions, sign) for trial in trials if _fits(trial, search)])
    asked = study.ask(distributions).params
    return {parameter.path: _rounded(parameter, asked[parameter.path]) for parameter in search.parameters}


def _seed(search: Search, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{search.seed}/{number}".encode()).digest()[:4])


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    bounds, is_log = parameter.bounds, parameter.log_uniform is not None
    if bounds is None:
        return CategoricalDistribution(parameter.values)
    if is_whole(parameter.path):
        return IntDistribution(int(bounds.minimum), int(bounds.maximum), log=is_log)
    return FloatDistribution(bounds.minimum, bounds.maximum, log=is_log)


def _frozen(trial: TrialStatus, distributions: Mapping[str, BaseDistribution], sign: int) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    state = {"Running": TrialState.RUNNING, "Succeeded": TrialState.COMPLETE, "Pruned": TrialState.PRUNED}
    return create_trial(
        state=state.get(trial.state, TrialState.FAIL),
        value=sign * trial.score if trial.state == "Succeeded" and trial.score is not None else None,
        params=dict(trial.values),
        distributions=dict(distributions),
        intermediate_values={rung.step: rung.loss for rung in trial.rungs if rung.loss is not None},
    )


def _fits(trial: TrialStatus, search: Search) -> bool:
    """Whether a trial has values that this search could have chosen; a status may be anybody's."""
    return (trial.state != "Succeeded" or trial.score is not None) and all(
        _is_of(parameter, trial.values.get(parameter.path)) for parameter in search.parameters
    )


def _is_of(parameter: Parameter, value: Any) -> bool:
    if parameter.bounds is None:
        return value in (parameter.values)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and parameter.bounds.minimum <= value <= parameter.bounds.maximum


def _rounded(parameter: Parameter, value: Value) -> Value:
    """A number of as many digits as a person reads, within its bounds."""
    bounds = parameter.bounds
    if bounds is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), bounds.minimum), bounds.maximum)
