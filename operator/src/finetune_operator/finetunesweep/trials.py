"""The trials of a sweep as a sequence: how each ended, and when the next one may begin. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from finetune_api.base import LINE_LENGTH
from finetune_api.finetunesweep import (
    BestTrial,
    FineTuneSweepSpec,
    FineTuneSweepStatus,
    RungStatus,
    TrialState,
    TrialStatus,
    Value,
)
from finetune_operator.finetunesweep.learning_curve.verdict import curve_values
from finetune_operator.finetunesweep.objects import trial_name
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, TrialJob
from finetune_operator.finetunesweep.search.best import as_best, best_trial
from finetune_operator.finetunesweep.search.pruning import TrialRungs, rung_step, rungs_at, trials_to_prune
from finetune_operator.finetunesweep.search.suggest import combinations, suggest
from finetune_operator.finetunesweep.smallest_model.candidates import MODEL
from finetune_operator.finetunesweep.smallest_model.choice import SMALLER_PASSED, larger, smallest

ENDED: Mapping[str, TrialState] = {"Succeeded": "Succeeded", "Failed": "Failed", "Cancelled": "Cancelled"}
NO_LOSS, NO_SCORE = "NoValidationLoss", "NoScore"
STOPPING = "Stopping"
"""The reason of a pruned trial until its job is known to be cancelled."""
HOUR_SECONDS = 3600
MOST_SUGGESTED_AT_ONCE = 4
"""A suggestion takes tens of milliseconds with many trials, in which other objects wait."""
NOT_SUGGESTED = 10
"""TPE draws the values of so many trials at random, which takes no time: all that begin at once share a write."""


def running(status: FineTuneSweepStatus) -> list[TrialStatus]:
    """The trials that have not ended."""
    return [trial for trial in status.trials if trial.state == "Running"]


def stopping(status: FineTuneSweepStatus) -> list[TrialStatus]:
    """The trials that are pruned, and whose jobs are to be cancelled.

    That they are is in the status before their jobs are cancelled: else an operator that was killed in between would
    find a cancelled job, and could not tell whether a person had cancelled it.
    """
    return [trial for trial in status.trials if trial.state == "Pruned" and trial.reason == STOPPING]


def to_be_cancelled(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> dict[str, TrialJob]:
    """The jobs of these trials that go on, by name."""
    seen = {trial.fine_tune_job_name: observed.jobs.get(trial.fine_tune_job_name) for trial in stopping(status)}
    return {
        name: job
        for name, job in seen.items()
        if job is not None and job.may_be_changed and not job.is_cancelled and job.phase not in ENDED
    }


def are_pruned_now(status: FineTuneSweepStatus, known: FineTuneSweepStatus) -> bool:
    """Whether there are such trials that the known status does not have: it is written before anything is cancelled."""
    return any(trial not in stopping(known) for trial in stopping(status))


def have_stopped(*trials: TrialStatus) -> list[TrialStatus]:
    """The same pruned trials, with nothing left to do."""
    return [trial.model_copy(update={"reason": None}) for trial in trials]


def failures(status: FineTuneSweepStatus) -> int:
    """How many trials have failed."""
    return sum(trial.state == "Failed" for trial in status.trials)


def has_failed(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> bool:
    """Whether so many trials have failed that the sweep fails: what they have in common is wrong.

    Not once it has what it was made for: a model that passes, or scores of all trials that there were to be.
    """
    if failures(status) < spec.budget.failures:
        return False
    if spec.smallest_model is not None:
        return smallest(status.trials) is None
    is_whole = not running(status) and len(status.trials) >= most_trials(spec, status)
    return not (is_whole and any(trial.score is not None for trial in status.trials))


def ended_in_order(status: FineTuneSweepStatus, jobs: Mapping[str, TrialJob]) -> list[TrialStatus]:
    """The running trials whose jobs have ended, in the order of their ends, in which the search learns."""
    found = [
        trial
        for trial in running(status)
        if trial.fine_tune_job_name in jobs and jobs[trial.fine_tune_job_name].phase in ENDED
    ]
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(found, key=lambda trial: (jobs[trial.fine_tune_job_name].completed or latest, trial.number))


def with_end(
    spec: FineTuneSweepSpec, status: FineTuneSweepStatus, trial: TrialStatus, job: TrialJob, accelerators: int | None
) -> FineTuneSweepStatus:
    """The status in which the trial has ended as its job has."""
    state, reason = ENDED[job.phase or ""], None
    score = _score(spec, job) if state == "Succeeded" else None
    if state == "Cancelled" and spec.smallest_model is not None and trial in larger(status):
        reason = SMALLER_PASSED  # by an operator that was killed before it could say so
    if state == "Succeeded" and score is None:
        state, reason = "Failed", NO_LOSS if spec.measured is None else NO_SCORE
    elif state == "Failed":
        reason = job.reason[:LINE_LENGTH]
    return replaced(status, ended(trial, job, accelerators, state, **(score or {}), reason=reason))


def _score(spec: FineTuneSweepSpec, job: TrialJob) -> dict[str, float] | None:
    if spec.measured is None:
        return None if job.eval_loss is None else {"score": job.eval_loss}
    found = job.score
    return None if found is None else {"score": found.score, "low": found.low, "high": found.high}


def ended(
    trial: TrialStatus,
    job: TrialJob | None,
    accelerators: int | None,
    state: TrialState,
    *,
    score: float | None = None,
    low: float | None = None,
    high: float | None = None,
    reason: str | None = None,
) -> TrialStatus:
    """The trial that has ended so. `accelerators`: of a trial that an older version began; None if not known."""
    seconds, of_attempt = (0, None) if job is None else (job.seconds, job.attempt_seconds)
    count = accelerators if trial.accelerators is None else trial.accelerators
    return trial.model_copy(
        update={
            "state": state,
            "score": score,
            "low": low,
            "high": high,
            "reason": reason,
            "evaluation_name": None if job is None else job.evaluation_name,
            "digest": None if job is None else job.digest,
            "examples": None if job is None else job.examples,
            "verdict": None if job is None or state != "Succeeded" else job.verdict,
            "outputs": None if job is None else job.outputs,
            "seconds": seconds,
            "attempt_seconds": None if of_attempt == seconds else of_attempt,
            "accelerator_seconds": None if count is None else seconds * count,
        }
    )


def with_rungs(spec: FineTuneSweepSpec, trial: TrialStatus, job: TrialJob) -> TrialStatus:
    """The trial with its loss at each rung whose first evaluation, at it or after it, is the most recent one.

    The loss at a rung whose evaluation nobody saw in time stays unknown: that of a later step is lower, and would prune
    every trial that comes after. An evaluation of an unknown step adds no rung, for the same reason.
    """
    if spec.prune is None or job.eval_loss is None or job.eval_step is None:
        return trial
    every = job.eval_every or 1
    before = (job.eval_step - 1) // every * every
    reached = [rung_step(spec.prune, rung) for rung in range(rungs_at(spec.prune, job.eval_step))]
    known = max((rung.step for rung in trial.rungs), default=0)
    new = [RungStatus(step=step, loss=job.eval_loss) for step in reached if step > max(known, before)]
    if not new and reached and reached[-1] > known:
        new = [RungStatus(step=reached[-1])]
    return trial.model_copy(update={"rungs": [*trial.rungs, *new]}) if new else trial


def pruned(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> list[TrialStatus]:
    """The running trials that others have beaten."""
    if spec.prune is None:
        return []
    known = [
        TrialRungs(trial.number, {rung.step: rung.loss for rung in trial.rungs}, trial.state == "Succeeded")
        for trial in status.trials
    ]
    lost = trials_to_prune(spec.prune, known)
    return [trial for trial in running(status) if trial.number in lost]


def replaced(status: FineTuneSweepStatus, *trials: TrialStatus) -> FineTuneSweepStatus:
    """The status with these trials in place of those of the same numbers."""
    new = {trial.number: trial for trial in trials}
    return status.model_copy(update={"trials": [new.get(trial.number, trial) for trial in status.trials]})


def with_next_trials(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> FineTuneSweepStatus:
    """The status with the trials that may begin now, in their order; of many that TPE chooses for, the first few."""
    spec, accelerators = observed.spec, observed.accelerators
    most = len(status.trials) + spec.width
    if spec.search is not None and spec.search.algorithm == "TPE":
        most = max(len(status.trials) + MOST_SUGGESTED_AT_ONCE, NOT_SUGGESTED)
    while len(status.trials) < most and has_room(observed, status):
        number = len(status.trials) + 1
        trial = TrialStatus(
            number=number,
            fine_tune_job_name=trial_name(observed.owner, status.run_number, number),
            values=_values(spec, status, number),
            model=status.models[number - 1].name if spec.smallest_model is not None else None,
            state="Running",
            accelerators=accelerators if isinstance(accelerators, int) else None,
        )
        status = status.model_copy(update={"trials": [*status.trials, trial]})
    return status


def has_room(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> bool:
    """Whether another trial may begin beside those that run."""
    spec, alive = observed.spec, running(status)
    if len(alive) >= spec.width or not may_begin(spec, status, used_by_running(observed, status)):
        return False
    is_limited = spec.budget.accelerator_hours is not None and any(one.accelerators != 0 for one in alive)
    return not is_limited or needed_by_one(spec, status) is not None


def may_begin(spec: FineTuneSweepSpec, status: FineTuneSweepStatus, used: Mapping[int, int] | None = None) -> bool:
    """Whether the budget allows another trial, and it is needed. `used`: by those that run (`used_by_running`)."""
    return (
        len(status.trials) < most_trials(spec, status)
        and (spec.smallest_model is None or smallest(status.trials) is None)
        and failures(status) < spec.budget.failures
        and not accelerator_hours_are_used_up(spec, status, used)
    )


def most_trials(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> int:
    """How many trials there are if nothing ends the sweep before."""
    if spec.smallest_model is not None:
        return min(spec.budget.trials, len(status.models))
    possible = len(curve_values(spec)) if spec.search is None else combinations(spec.search)
    return min(spec.budget.trials, possible or spec.budget.trials)


def _values(spec: FineTuneSweepSpec, status: FineTuneSweepStatus, number: int) -> dict[str, Value]:
    if spec.smallest_model is not None:
        return {MODEL: status.models[number - 1].uri}
    if spec.search is None:
        return curve_values(spec)[number - 1]
    return suggest(spec.search, status.trials, number, spec.sign)


def accelerator_hours_are_used_up(
    spec: FineTuneSweepSpec, status: FineTuneSweepStatus, used: Mapping[int, int] | None = None
) -> bool:
    """Whether another trial would exceed them. `used`: by those that run; without it, as if these had just begun."""
    limit, need, going = spec.budget.accelerator_hours, needed_by_one(spec, status), used or {}
    if limit is None:
        return False
    before = [trial.accelerator_seconds or 0 for trial in status.trials]
    if need is None:  # no less than one that did not get to its end
        need = max(before, default=0)
    total = sum(before) + sum(max(need, going.get(trial.number, 0)) for trial in running(status)) + need
    return total > limit * HOUR_SECONDS


def needed_by_one(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> float | None:
    """The accelerator seconds of a trial, as far as that is known; pruned and failed ones say less than one needs."""
    complete = [trial.accelerator_seconds for trial in status.trials if trial.state == "Succeeded"]
    measured = [seconds for seconds in complete if seconds]
    if measured:
        return sum(measured) / len(measured)
    deadline = spec.template.spec.active_deadline_seconds
    counts = [trial.accelerators for trial in status.trials if trial.accelerators is not None]
    return None if deadline is None or not counts else float(deadline * counts[-1])


def used_by_running(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> dict[int, int]:
    """The accelerator seconds so far of the trials that run, by number."""
    seen = [(trial, observed.jobs.get(trial.fine_tune_job_name)) for trial in running(status)]
    return {trial.number: job.seconds * (trial.accelerators or 0) for trial, job in seen if job is not None}


def left_out(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> str:
    """Which trials the budget did not allow, as the end of a message; empty if there are none."""
    are_used_up = accelerator_hours_are_used_up(spec, status)
    exceeded = "nother trial would exceed budget.acceleratorHours."
    if spec.search is not None:
        return f" A{exceeded}" if are_used_up and len(status.trials) < most_trials(spec, status) else ""
    planned = len(status.models) if spec.smallest_model is not None else len(curve_values(spec))
    left, most = planned - len(status.trials), spec.budget.trials
    if left <= 0 or not (are_used_up or len(status.trials) >= most):
        return ""
    why = f"a{exceeded}" if are_used_up else f"budget.trials is {most}."
    what = ("larger model", "larger models") if spec.smallest_model is not None else ("more trial", "more trials")
    return f" {left} {what[left > 1]} {'was' if left == 1 else 'were'} not tried: {why}"


def _best(spec: FineTuneSweepSpec, status: FineTuneSweepStatus) -> BestTrial | None:
    if spec.mode == "LearningCurve":
        return None  # its trials differ in their data: the best of them says nothing
    if spec.smallest_model is None:
        return best_trial(status.trials, spec.sign)
    chosen = smallest(status.trials)
    return None if chosen is None else as_best(chosen)


def counted(
    spec: FineTuneSweepSpec,
    status: FineTuneSweepStatus,
    *,
    is_over: bool = False,
    suspended: int = 0,
    used: Mapping[int, int] | None = None,
) -> FineTuneSweepStatus:
    """The status with its numbers and its best trial; `suspended`: how many of those that have not ended."""
    left = 0 if is_over or not may_begin(spec, status, used) else most_trials(spec, status) - len(status.trials)
    alive, before, best = len(running(status)), status.best, _best(spec, status)
    if best is not None and before is not None and before.number == best.number:
        best = best.over(before)
    return status.model_copy(
        update={
            "finished": len(status.trials) - alive,
            "running": alive - suspended,
            "remaining": left,
            "best": best,
        }
    )
