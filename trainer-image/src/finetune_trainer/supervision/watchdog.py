"""When a process without progress is stalled, and when a process that was asked to stop can't.

A process is compared with itself: silence counts by the usual time between its beats, so slow steps are not a stall.
In a gang all wait for the one that hangs. That one has to speak first, since the Job ends the others with its failure:
so a process that may only be waiting is given longer than one that is known to be stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from finetune_trainer.process.heartbeats import Beat, Phase

ENDED = ("", "Z", "X")
STOPPED = ("T", "t")


def process_state(pid: int) -> str:
    """The state in which the kernel has the process; empty when it is gone. See proc(5), /proc/PID/stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


@dataclass(frozen=True)
class Limits:
    """Seconds of silence.

    training: at least so long, or `factor` times the longest silence of late; until that is known, `first_steps`
      (kernels are compiled and tuned).
    stopped: of a process in state T, in any phase.
    waiting: extra time for a process that is not stopped itself, since it may be waiting for one that is.
    stopping: for the end of the step after a SIGTERM, at least; or three times the longest silence of late.
    """

    training: float = 60.0
    factor: float = 10.0
    first_steps: float = 30 * 60.0
    known_gaps: int = 6
    evaluating: float = 10 * 60.0
    saving: float = 60 * 60.0
    starting: float = 60 * 60.0
    stopped: float = 60.0
    waiting: float = 15.0
    stopping: float = 15.0


@dataclass
class Watchdog:
    """Looks at the beats of a node's processes once a second."""

    limits: Limits = Limits()
    state_of: Callable[[int], str] = process_state
    _stopped_since: dict[int, float] = field(default_factory=dict)

    def find_stall(self, beats: Sequence[Beat], now: float) -> Failure | None:
        """The diagnosis of the first process that is stalled: one that is stopped, else the furthest behind."""
        found = [stall for beat in beats for stall in (self._judge(beat, now),) if stall is not None]
        return min(found, key=lambda stall: (not stall.stopped, stall.step or 0, stall.rank or 0), default=None)

    def is_stuck_stopping(self, beats: Sequence[Beat], asked: float, now: float) -> bool:
        """Whether a node that was asked to stop at the time `asked` waits in its step for a process that is gone."""
        training = [beat for beat in beats if beat.phase in (Phase.STARTING, Phase.TRAINING)]
        if len(training) < len(beats):
            return False
        silent = now - max([asked, *(beat.time for beat in training)])
        return silent >= max([self.limits.stopping, *(3 * beat.slowest for beat in training)])

    def _judge(self, beat: Beat, now: float) -> Failure | None:
        state = self.state_of(beat.pid)
        if state in ENDED:
            return None  # whoever started it reports its end
        if state not in STOPPED:
            self._stopped_since.pop(beat.pid, None)
            return _stall(beat, now) if now - beat.time >= self.limits.waiting + allowed(beat, self.limits) else None
        since = self._stopped_since.setdefault(beat.pid, now)
        held = min(now - since, now - beat.time)
        return _stall(beat, now, stopped=True) if held >= self.limits.stopped else None


def allowed(beat: Beat, limits: Limits) -> float:
    """How long a process may be silent after this beat."""
    match beat.phase:
        case Phase.STARTING:
            return limits.starting
        case Phase.EVALUATING:
            return limits.evaluating
        case Phase.SAVING:
            return limits.saving
        case Phase.TRAINING if beat.gaps < limits.known_gaps:
            return limits.first_steps
        case Phase.TRAINING:
            return max(limits.training, limits.factor * beat.slowest)


def _stall(beat: Beat, now: float, *, stopped: bool = False) -> Failure:
    usual = f"; of late it took {beat.slowest:.1f} seconds at most" if beat.gaps else ""
    where = f"in step {beat.step} ({beat.phase.name.lower()}{usual})"
    if stopped:
        cause = "Its process is stopped (SIGSTOP, or a debugger)."
        suggestion = "Look for what stops processes on the node of the Pod."
    else:
        cause = "It hangs, or waits for another process of the gang, for data, or for the storage."
        suggestion = (
            "Look at the node's accelerators and network. If a step may well take so long, lower "
            "hyperparameters.maxLength or batchSize."
        )
    return Failure(
        reason=Reason.TRAINING_STALLED,
        message=f"Rank {beat.rank} made no progress for {now - beat.time:.0f} seconds {where}. {cause}",
        rank=beat.rank,
        retryable=True,
        suggestion=suggestion,
        step=beat.step,
        stopped=stopped,
    )
