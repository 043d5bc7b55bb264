"""The process's edge: a command's success or failure becomes a termination message and an exit code.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from finetune_api.base import ApiModel
from finetune_api.conditions import Reason
from finetune_api.outcome import (
    EXIT_DISRUPTED,
    EXIT_FAILED,
    EXIT_SUCCEEDED,
    TERMINATION_MESSAGE_PATH,
    EvaluationReport,
    Failure,
    PreflightReport,
    TrainReport,
    to_termination_message,
)
from finetune_trainer.failures import DiagnosedError, DisruptedError, first_line

Report = PreflightReport | TrainReport | EvaluationReport
Run = TypeVar("Run", bound=ApiModel)

TRACEBACK_LINES = 12
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "recvValue failed")


def conclude(command: Callable[[], Report | None], rank: int | None = None) -> int:
    """Run a command, tell how it ended, and answer the exit code. `rank`: which process of a gang this is."""
    try:
        report = command()
    except DisruptedError:
        return EXIT_DISRUPTED
    except Exception as error:
        return conclude_failure(error, rank)
    if report is not None:
        _write_termination_message(to_termination_message(report))
    return EXIT_SUCCEEDED


def conclude_failure(error: Exception, rank: int | None = None) -> int:
    """Tell what failed, and answer the exit code."""
    failure = diagnose(error)
    if failure.rank is None:
        failure = failure.model_copy(update={"rank": rank})
    sys.stderr.write(f"{failure.reason.value}: {failure.message}\n")
    _write_termination_message(to_termination_message(failure), keep_earlier=lost_a_peer(error))
    return EXIT_FAILED


def run_command(kind: type[Run], file: Path, command: Callable[[Run, Path], Report | None]) -> int:
    """Run a command on the run configuration in `file`, in a directory of its own; answers the exit code."""
    with tempfile.TemporaryDirectory(prefix="finetune-") as directory:
        return conclude(lambda: command(read_run(kind, file), Path(directory)))


def read_run(kind: type[Run], file: Path) -> Run:
    """The run configuration in a file. Raises DiagnosedError (InvalidSpec) naming what is wrong in it."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"{file} can't be read: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise DiagnosedError(Reason.INVALID_SPEC, f"{file} is no {kind.__name__}: {where}: {problem['msg']}") from error


def diagnose(error: Exception) -> Failure:
    """The failure that an exception stands for. An unknown one may pass, so it is tried again."""
    if isinstance(error, DiagnosedError):
        return error.failure
    if type(error).__name__ == "OutOfMemoryError":  # torch's; named, for torch is not imported here
        return Failure(
            reason=Reason.CUDA_OUT_OF_MEMORY,
            message=f"{first_line(error)} Lower hyperparameters.maxLength or batchSize, use LoRA, or use "
            "more or larger GPUs.",
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return Failure(
            reason=Reason.OUT_OF_MEMORY,
            message=f"{first_line(error)}: lower hyperparameters.maxLength or batchSize, or ask for more "
            "memory in the FineTuneClass.",
        )
    if lost_a_peer(error):
        return Failure(
            reason=Reason.FAILED,
            message=f"Another process of the gang ended; its Pod tells why. Here: {first_line(error)}",
            retryable=True,
            lost_peer=True,
        )
    last = "".join(traceback.format_exception(error)).strip().splitlines()[-TRACEBACK_LINES:]
    return Failure(reason=Reason.FAILED, message="\n".join(last)[-4000:], retryable=True)


def lost_a_peer(error: Exception) -> bool:
    """Whether this is what a process sees of another one's end."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in kinds or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_PEER))


def _write_termination_message(message: str, *, keep_earlier: bool = False) -> None:
    """Where there is a file for it: on a laptop there is none."""
    file = Path(TERMINATION_MESSAGE_PATH)
    if not file.exists() or not os.access(file, os.W_OK):
        return
    if keep_earlier and file.stat().st_size > 0:
        return
    file.write_text(message, encoding="utf-8")
