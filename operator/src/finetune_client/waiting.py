"""Whether a wait is over, and how: pure, with the caller's clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from finetune_client.errors import ApiError, DeletedError, RunFailedError, StalledError, WaitTimeoutError
from finetune_client.kinds import Contract
from finetune_view.fields import Fields
from finetune_view.next_step import command, next_steps
from finetune_view.object_view import ObjectView
from finetune_view.resource import MODEL_DEPLOYMENT

Until = Literal["Started", "Succeeded", "Ended"]
"""Started: its Pods run, or have run. Succeeded: it ended well (a deployment: its model serves, after a canary if it
has one). Ended: however it ended."""
DAY = 86400.0
STALLED_SECONDS = 300.0
LONGEST_OUTAGE_SECONDS = 600.0
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_RUNNING = frozenset({"Training", "Evaluating", "Running", "RollingOut", "Canary"})
_SPELLED = {"rerun": "rerun", "resume": "resume", "watch": "wait", "logs": "logs", "events": "events"}


@dataclass(frozen=True)
class Progress:
    """Where an object stands, for a person: `str()` is one line."""

    name: str
    phase: str
    reason: str
    message: str
    stalled: bool
    percent: int | None
    step: int | None
    total_steps: int | None
    loss: float | None
    eval_loss: float | None
    remaining: str
    reward: float | None = None
    valid_reward: float | None = None

    def __str__(self) -> str:
        parts = [self.name, self.phase or "not looked at yet"]
        if self.stalled:
            parts.append(f"stalled: {self.reason}: {self.message}")
        if self.percent is not None:
            parts.append(f"{self.percent}%")
        if self.step is not None:
            parts.append(f"step {self.step}/{self.total_steps}")
        parts += [f"{name} {value:.4g}" for name, value in self._measures if value is not None]
        return "  ".join([*parts, *([f"{self.remaining} left"] if self.remaining else [])])

    @property
    def _measures(self) -> tuple[tuple[str, float | None], ...]:
        rewards = (("reward", self.reward), ("validation reward", self.valid_reward))
        return *rewards, ("loss", self.loss), ("validation loss", self.eval_loss)


def progress_of(view: ObjectView) -> Progress:
    """What the object says now."""
    # Until the operator has seen a change, the status is of what was before it.
    progress = view.status.at("progress") if view.current else Fields(None)
    ready, stalled = view.condition("Ready"), view.condition("Stalled")
    condition = stalled if view.stalled else ready
    return Progress(
        name=view.name,
        phase=view.phase if view.current else "",
        reason=condition.reason,
        message=condition.message,
        stalled=view.stalled,
        percent=progress.whole("percent"),
        step=progress.whole("step"),
        total_steps=progress.whole("totalSteps"),
        loss=progress.number("loss"),
        eval_loss=progress.number("evalLoss"),
        remaining=progress.text("estimatedRemaining"),
        reward=progress.number("reward"),
        valid_reward=progress.number("validReward"),
    )


@dataclass
class Waiting:
    """One wait. `is_over` takes each state of the object."""

    contract: Contract
    uid: str
    until: Until
    stalled_after: float
    _stalled_since: float | None = None

    def is_over(self, view: ObjectView, now: float) -> bool:
        """Whether it is over. Raises RunFailedError, StalledError or DeletedError when it can't end well."""
        if view.uid != self.uid:
            raise DeletedError(f"{view.resource} was deleted, and another one of its name was created.")
        if view.outcome is not None:
            if view.outcome == "Failed" and self.until != "Ended":
                raise failed(self.contract, view)
            return True
        if self.until == "Started" and view.current and view.phase in _RUNNING:
            return True
        self._stalled_since = (
            (self._stalled_since if self._stalled_since is not None else now) if view.stalled else None
        )
        if self._stalled_since is not None and now - self._stalled_since >= self.stalled_after:
            raise stalled(self.contract, view, now - self._stalled_since)
        return False

    def seconds_left(self, now: float) -> float:
        """Until the next check, even if nothing changes."""
        return math.inf if self._stalled_since is None else self.stalled_after - (now - self._stalled_since)


def _advice(contract: Contract, view: ObjectView) -> list[str]:
    def spell(about: ObjectView, verb: str) -> str:
        return f"{contract.variable}.{_SPELLED[verb]}()" if verb in _SPELLED else command(about, verb)

    return next_steps(view, spell)


def failed(contract: Contract, view: ObjectView) -> RunFailedError:
    """The error of a run that is over and did not succeed."""
    ready = view.condition("Ready")
    verdict = "was cancelled" if view.phase == "Cancelled" else f"ended as {view.phase}"
    return RunFailedError(
        f"{view.resource} in {view.namespace} {verdict} ({ready.reason}): {ready.message}",
        reason=ready.reason,
        detail=ready.message,
        next_steps=_advice(contract, view),
        log=view.status.block("failure", "log").rstrip(),
    )


def stalled(contract: Contract, view: ObjectView, seconds: float) -> StalledError:
    """The error of a run that waits for someone."""
    condition = view.condition("Stalled")
    return StalledError(
        f"{view.resource} in {view.namespace} has been stalled for {seconds:.0f} s ({condition.reason}): "
        f"{condition.message}",
        reason=condition.reason,
        detail=condition.message,
        next_steps=_advice(contract, view),
    )


def _still(view: ObjectView) -> str:
    return "nothing runs until it is resumed" if view.phase == "Suspended" else "it goes on"


def timed_out(contract: Contract, view: ObjectView, until: Until, seconds: float) -> WaitTimeoutError:
    """The error of a wait whose time is over."""
    progress = progress_of(view)
    waited_for = "become available" if contract.kind is MODEL_DEPLOYMENT else until.lower()
    waited = f"has not {waited_for} after {seconds:g} s; {_still(view)}"
    return WaitTimeoutError(
        f"{view.resource} in {view.namespace} {waited}. Now: {progress}",
        reason=progress.reason,
        detail=progress.message,
        next_steps=_advice(contract, view),
    )


@dataclass
class Outage:
    """How long the API server has not answered. A refusal, and an outage beyond the limit, is raised."""

    limit: float = LONGEST_OUTAGE_SECONDS
    _since: float | None = None
    _failures: int = 0

    def answered(self) -> None:
        """There was an answer."""
        self._since, self._failures = None, 0

    def pause(self, error: ApiError, now: float) -> float:
        """How many seconds to wait before the next try. Raises the error when there is to be none."""
        self._since = now if self._since is None else self._since
        if not error.may_heal or now - self._since >= self.limit:
            raise error
        self._failures += 1
        return PAUSES[min(self._failures, len(PAUSES)) - 1]
