"""A command's success or failure as a termination message and an exit code.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from finetune_api.base import STORED, ApiModel
from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import (
    EXIT_DISRUPTED,
    EXIT_FAILED,
    EXIT_SUCCEEDED,
    TERMINATION_MESSAGE_PATH,
    DatasetReport,
    EvaluationReport,
    Failure,
    PreflightReport,
    TrainReport,
    parse_termination_message,
)
from finetune_api.pod_contracts.run import RUN_DIGEST_VARIABLE, TrainRun
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.supervision.diagnosis import diagnose

Report = PreflightReport | DatasetReport | TrainReport | EvaluationReport
Run = TypeVar("Run", bound=ApiModel)

LOG_LINES = 40
PEER_SECONDS = 1.0
"""A process that lost a peer waits this long before it exits: torchrun's agent and the Job see the peer first."""
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def conclude(command: Callable[[], Report | None], rank: int | None = None, run: TrainRun | None = None) -> int:
    """Run a command, and write its termination message. Returns the exit code. `rank`: that of this process."""
    try:
        report = command()
    except DisruptedError:
        return EXIT_DISRUPTED
    except Exception as error:
        return conclude_failure(error, rank, run)
    if report is not None:
        _write_termination_message(to_termination_message(report))
    return EXIT_SUCCEEDED


def conclude_failure(error: Exception, rank: int | None = None, run: TrainRun | None = None) -> int:
    """Write the termination message of a failure. Returns the exit code."""
    failure = diagnose(error, run)
    if failure.rank is None:
        failure = failure.model_copy(update={"rank": rank})
    _print_failure(failure)
    if failure.lost_peer:
        time.sleep(PEER_SECONDS)
    if not (failure.lost_peer and _earlier_message()):
        _write_termination_message(to_termination_message(failure))
    return EXIT_FAILED


def conclude_for(failure: Failure, log: str) -> int:
    """Write the termination message for a process that ended without one, with the last lines of its log."""
    said = parse_termination_message(_earlier_message())
    if isinstance(said, Failure) and not said.lost_peer and not _explains(failure, said):
        failure = said
    else:
        _print_failure(failure)
    _write_termination_message(to_termination_message(failure.model_copy(update={"log": last_lines(log)})))
    return EXIT_FAILED


def last_lines(log: str) -> str | None:
    """The end of a log, without colors; None when it is empty."""
    lines = _ESCAPE.sub("", log).strip().splitlines()[-LOG_LINES:]
    return "\n".join(lines)[-4096:] or None


def run_command(kind: type[Run], file: Path, command: Callable[[Run, Path], Report | None]) -> int:
    """Run a command on the run configuration in `file`, in a directory of its own; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="finetune-") as directory:
        return conclude(lambda: command(read_run(kind, file), Path(directory)))


def read_run(kind: type[Run], file: Path) -> Run:
    """The run configuration in a file. Raises DiagnosedError (InvalidSpec) naming what is wrong in it."""
    try:
        content = file.read_bytes()
        _refuse_another(file, content)
        return kind.model_validate_json(content, context=STORED)
    except OSError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"{file} can't be read: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        # Written by an operator of another version: another image of the class reads it, with the same spec.
        message = f"{file} is no {kind.__name__}: {where}: {problem['msg']}"
        raise DiagnosedError(Reason.INVALID_SPEC, message, retryable=True) from error


def _refuse_another(file: Path, content: bytes) -> None:
    """Refuse what was put into the ConfigMap's place before the Pod started."""
    wanted = os.environ.get(RUN_DIGEST_VARIABLE)
    if wanted is None or wanted == f"sha256:{hashlib.sha256(content).hexdigest()}":
        return
    raise DiagnosedError(
        Reason.INVALID_SPEC,
        f"{file} is not what the operator wrote: the Pod's ConfigMap was replaced.",
        retryable=True,
        suggestion="Delete that ConfigMap, and find out who may write ConfigMaps in this namespace.",
    )


def _explains(failure: Failure, said: Failure) -> bool:
    """Whether this is the cause of what a process reported: if a helper is killed for memory, it only sees an error."""
    return failure.reason is Reason.OUT_OF_MEMORY and said.reason is Reason.FAILED


def _print_failure(failure: Failure) -> None:
    text = f"{failure.message} {failure.suggestion}" if failure.suggestion else failure.message
    sys.stderr.write(f"{failure.reason.value}: {text}\n")


def _earlier_message() -> str:
    """What a process of this container has reported at its end."""
    try:
        return Path(TERMINATION_MESSAGE_PATH).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _write_termination_message(message: str) -> None:
    """Where there is a file for it: on a laptop there is none."""
    file = Path(TERMINATION_MESSAGE_PATH)
    if file.exists() and os.access(file, os.W_OK):
        file.write_text(message, encoding="utf-8")
