"""The self-test of the sandbox: walls that do not hold are found before any grader's code runs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.sandbox.running_process import EndedError, RunningProcess, SandboxError, TimedOutError

_TIMEOUT_SECONDS = 300
"""More than the client waits: a node that is too busy is no wall that does not hold."""
_WATCHED_SECONDS = 1
_ENDLESS = "def grade(sample, item):\n    while True:\n        pass\n"


@dataclass(frozen=True)
class Walls:
    """What the self-test found."""

    landlock_abi: int = 0
    problem: str | None = None
    """Why no code may run; None where every wall holds."""


def walls_of(scratch: Path) -> Walls:
    """Try to escape from a process of the sandbox, and to run for longer than is allowed."""
    secret = scratch / "not-for-graders"
    try:
        secret.write_text("secret")
        walls = _try_escapes(scratch, secret)
        return walls if walls.problem is not None else _try_watchdog(scratch, walls)
    except (SandboxError, OSError) as error:
        return Walls(problem=str(error))
    finally:
        secret.unlink(missing_ok=True)


def _try_escapes(scratch: Path, secret: Path) -> Walls:
    source = (Path(__file__).parent / "escapes.py").read_text()
    with closing(RunningProcess(source, _TIMEOUT_SECONDS, scratch)) as process:
        try:
            answer = process.grade({}, {"file": str(secret)})
        except (TimedOutError, EndedError) as error:
            return Walls(problem=f"the self-test did not end: {error}")
        if answer.score != 1:
            return Walls(problem=f"the self-test succeeded in what must be refused: {answer.error}")
        return Walls(process.landlock_abi)


def _try_watchdog(scratch: Path, walls: Walls) -> Walls:
    with closing(RunningProcess(_ENDLESS, _WATCHED_SECONDS, scratch)) as process:
        try:
            process.grade({}, {})
        except TimedOutError:
            return walls
    return Walls(problem="the self-test's endless loop was not stopped")
