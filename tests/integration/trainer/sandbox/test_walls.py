"""Where a wall does not hold, nothing is graded without it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.graders import Grader, GraderErrorCode
from finetune_grading.judge import StopGradingError
from finetune_grading.sample import Row, Sample
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.sandbox import running_process
from finetune_trainer.sandbox.client import PythonSandbox, sandbox_of
from finetune_trainer.sandbox.self_test import Walls, walls_of
from tests.integration.trainer.sandbox.sandboxed import RunningSandbox, error_of

GRADE_1 = "def grade(sample, item):\n    return 1\n"
MAIN = "from finetune_trainer.sandbox.code_process import main; main(int(sys.argv[1]))"


def without(monkeypatch: pytest.MonkeyPatch, wall: str) -> None:
    """Start processes that leave out a wall."""
    monkeypatch.setattr(running_process, "_PROGRAM", f"import resource, sys; {OWN}; {wall}; {MAIN}")


OWN = "from finetune_trainer.sandbox import landlock, seccomp"


def test_all_walls_hold_here(tmp_path: Path) -> None:
    walls = walls_of(tmp_path)
    assert (walls.problem, walls.landlock_abi >= 1) == (None, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wall", "holes"),
    [
        ("landlock.restrict = lambda *a: 1", "reading a file, reading /proc, writing a file"),
        ("seccomp.restrict = lambda: None", "a UDP socket"),
        ("resource.setrlimit = lambda *a: None", "two GiB of memory"),
    ],
    ids=["files", "system calls", "memory"],
)
def test_the_self_test_finds_each_wall_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wall: str, holes: str
) -> None:
    without(monkeypatch, wall)
    problem = walls_of(tmp_path).problem
    assert problem is not None
    assert problem.startswith("the self-test succeeded in what must be refused: ")
    assert holes in problem


@pytest.mark.parametrize(
    ("wall", "problem"),
    [
        ("landlock.abi = lambda: 0", "the kernel has no Landlock"),
        ("seccomp.platform.machine = lambda: 'riscv64'", "there is no filter for riscv64"),
        ("seccomp._MODE_FILTER = 77", "Invalid argument"),
        ("sys.exit(3)", "a process of the sandbox does not start: Its process ended with exit code 3"),
    ],
)
def test_a_wall_that_can_not_be_put_up_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wall: str, problem: str
) -> None:
    without(monkeypatch, wall)
    assert problem in str(walls_of(tmp_path).problem)


def test_a_python_that_does_not_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(running_process.sys, "executable", "/no/python")
    assert walls_of(tmp_path).problem == (
        "Python does not start in the sandbox: [Errno 2] No such file or directory: '/no/python'"
    )
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_graded_in_a_sandbox_that_does_not_hold(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox.server, "walls", Walls(problem="the self-test succeeded in what must be refused: x"))
    with pytest.raises(DiagnosedError) as caught:
        asyncio.run(PythonSandbox(str(sandbox.path)).check())
    failure = caught.value.failure
    assert (failure.reason, failure.retryable) == (Reason.SANDBOX_UNAVAILABLE, False)
    assert "nothing was graded without it: the self-test succeeded in what must be refused: x" in failure.message
    assert failure.suggestion is not None
    with pytest.raises(StopGradingError):
        sandbox.grade(GRADE_1)


def test_a_wall_that_falls_between_rows_ends_the_grading(
    sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "landlock.abi = lambda: 0")
    with pytest.raises(StopGradingError) as caught:
        sandbox.grade(GRADE_1)
    assert isinstance(caught.value.__cause__, DiagnosedError)
    assert caught.value.__cause__.failure.reason is Reason.SANDBOX_UNAVAILABLE


def test_a_sandbox_that_does_not_answer_is_unavailable_and_may_heal(tmp_path: Path) -> None:
    with pytest.raises(DiagnosedError) as caught:
        asyncio.run(PythonSandbox(str(tmp_path / "none"), connect_seconds=0.5).check())
    assert (caught.value.failure.reason, caught.value.failure.retryable) == (Reason.SANDBOX_UNAVAILABLE, True)


def test_a_run_without_a_sandbox_is_refused() -> None:
    grader = Grader.from_wire({"name": "code", "type": "Python", "python": {"source": GRADE_1}})
    with pytest.raises(DiagnosedError, match="the Pod has no sandbox") as caught:
        sandbox_of([grader], None)
    assert caught.value.failure.reason is Reason.SANDBOX_UNAVAILABLE


def test_the_output_at_which_the_sandbox_was_killed_may_be_tried_again(sandbox: RunningSandbox) -> None:
    """As when its container ran out of memory: it starts again, and the next output is graded."""
    grader = sandbox.grader(GRADE_1)
    rows = [Row({}, Sample("")), Row({}, Sample(""))]

    async def grade() -> list[object]:
        async with grader.runner.run(grader.source, 60) as code:
            _, writer = await code.connect()  # type: ignore[attr-defined]
            writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            return [await grader._grade_row(code, row, 0) for row in rows]

    first, second = asyncio.run(grade())
    assert error_of(first).startswith(GraderErrorCode.PYTHON_GRADER_SERVER_ERROR)  # type: ignore[arg-type]
    assert first.error.passing  # type: ignore[attr-defined]
    assert second.score == 1.0  # type: ignore[attr-defined]
