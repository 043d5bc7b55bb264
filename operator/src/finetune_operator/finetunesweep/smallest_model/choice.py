"""The smallest model that passes, and what it saves as far as that is known. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.evaluation import OutputsStatus
from finetune_api.finetunesweep import FineTuneSweepStatus, SizedModel, SmallestModel, TrialStatus

PASSED, INCONCLUSIVE = "Passed", "Inconclusive"
SMALLER_PASSED = "SmallerModelPassed"
"""Why a trial of a larger model is cancelled."""
_ANSWERS = 1000
_BY_CHANCE = 0.025
"""About how often a model passes whose mean is just below the threshold: by the bound of a 95 % interval."""


def smallest(trials: Sequence[TrialStatus]) -> TrialStatus | None:
    """The smallest that passed, and has a score; trials are in the order of size. None: no one has."""
    passed = (trial for trial in trials if trial.state == "Succeeded" and trial.verdict == PASSED)
    return next((trial for trial in passed if trial.score is not None), None)


def larger(status: FineTuneSweepStatus) -> list[TrialStatus]:
    """The running trials of models that are larger than one that passed."""
    passed = smallest(status.trials)
    running = [trial for trial in status.trials if trial.state == "Running"]
    return [] if passed is None else [trial for trial in running if trial.number > passed.number]


def chosen(status: FineTuneSweepStatus, best: TrialStatus) -> str:
    """Which model it is, and what it saves."""
    by_name = {model.name: model for model in status.models}
    model, largest = by_name.get(best.model or ""), status.models[-1] if status.models else None
    if model is None or largest is None:
        return f"FineTuneJob {best.fine_tune_job_name!r} has the smallest model that passes."
    size = f"{model.parameters:,} parameters"
    if model.name != largest.name:
        size += f"; {largest.name!r}, the largest, has {largest.parameters:,}"
    message = f"{model.name!r} is the smallest model that passes ({size}): FineTuneJob {best.fine_tune_job_name!r}."
    for trial in status.trials:
        if trial.number < best.number and trial.verdict is None:
            message += f" {trial.model!r} is smaller, and was not judged ({trial.reason or trial.state})."
    return f"{message}{_price(model, largest, best.outputs)}{_latency(status.trials, best)}"


def by_chance(asked: SmallestModel, trials: Sequence[TrialStatus], best: TrialStatus) -> str:
    """How likely one of several models passes by luck: each has a chance of its own."""
    judged = sum(trial.verdict is not None and trial.number <= best.number for trial in trials)
    if any(gate.decision == "PointEstimate" for gate in asked.gates):
        return " A gate with decision PointEstimate does not tell luck from a model that is good enough."
    if judged < 2:
        return ""
    return (
        f" Had none of the {judged} models been good enough, one would pass by chance in about "
        f"{judged * _BY_CHANCE:.1%} of such searches."
    )


def none_passed(status: FineTuneSweepStatus) -> str:
    """Why no model is chosen."""
    judged = [trial for trial in status.trials if trial.verdict is not None]
    unsure = [trial.model or "" for trial in judged if trial.verdict == INCONCLUSIVE]
    message = f"None of {len(status.trials)} models passes spec.smallestModel.gates."
    if len(status.trials) == 1:
        message = f"Model {status.trials[0].model!r} does not pass spec.smallestModel.gates."
    if unsure:
        message += f" Inconclusive: {', '.join(unsure)}. More examples to evaluate may decide that."
    if judged:
        message += f" `kubectl describe eval {judged[-1].evaluation_name}` says more of the largest one."
    return message


def _price(model: SizedModel, largest: SizedModel, outputs: OutputsStatus | None) -> str:
    """Only with the prices of both and measured tokens. The larger model's own tokens are not known."""
    if model.name == largest.name or model.prices is None or largest.prices is None or outputs is None:
        return ""
    if not outputs.count or outputs.prompt_tokens is None or outputs.completion_tokens is None:
        return ""
    ours, theirs = (
        (outputs.prompt_tokens * one.prompt_per_million + outputs.completion_tokens * one.completion_per_million)
        / 1_000_000
        * (_ANSWERS / outputs.count)
        for one in (model.prices, largest.prices)
    )
    price = f"{_ANSWERS:,} answers of as many tokens as it was measured with cost {ours:.3g}, and {theirs:.3g}"
    return f" By the class's prices, {price} with {largest.name!r}."


def _latency(trials: Sequence[TrialStatus], best: TrialStatus) -> str:
    """Only beside a larger model that was measured, too."""
    measured = [trial for trial in trials if trial.number > best.number and _milliseconds(trial) is not None]
    ours = _milliseconds(best)
    if ours is None or not measured:
        return ""
    other = measured[-1]
    return f" An answer took {ours} ms (median), and {_milliseconds(other)} ms with {other.model!r}."


def _milliseconds(trial: TrialStatus) -> int | None:
    return None if trial.outputs is None else trial.outputs.latency_milliseconds
