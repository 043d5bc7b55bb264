"""The diagnosis of an exception, or of the end of a process.

An unknown failure may be temporary, so it is retried. So is a lack of memory, which fragmentation or a neighbour may
have caused (the operator retries that once).
"""

from __future__ import annotations

import traceback

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.process.failures import DiagnosedError, first_line
from finetune_trainer.supervision.suggestions import more_accelerator_memory, more_memory

TRACEBACK_LINES = 12
LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "recvValue failed",
    "ncclRemoteError",
    "remote process exited",
)
TIMED_OUT = ("Timed out waiting", "collective operation timeout", "Socket Timeout")
"""Of gloo, of NCCL's watchdog in torch, and of torch's store."""


def diagnose(error: Exception, run: TrainRun | None = None) -> Failure:
    """The failure that an exception means, with a suggestion by the run's values."""
    if isinstance(error, DiagnosedError):
        return error.failure
    if type(error).__name__ == "OutOfMemoryError":  # torch's; named, for torch is not imported here
        return Failure(
            reason=Reason.CUDA_OUT_OF_MEMORY,
            message=first_line(error),
            suggestion=more_accelerator_memory(run),
            retryable=True,
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return _out_of_memory(first_line(error), run)
    if isinstance(error, RuntimeError) and _has_any(str(error), TIMED_OUT):
        return _timed_out(first_line(error))
    if lost_a_peer(error):
        return _peer_ended(first_line(error))
    last = "".join(traceback.format_exception(error)).strip().splitlines()[-TRACEBACK_LINES:]
    return Failure(reason=Reason.FAILED, message="\n".join(last)[-4000:], retryable=True)


def diagnose_end(how: str, log: str) -> Failure:
    """The failure of a process that ended without a diagnosis; its log may show one (a library's own watchdog)."""
    for line in reversed(log.splitlines()):
        if _has_any(line, TIMED_OUT):
            return _timed_out(line.strip()[:1000])
        if _has_any(line, LOST_PEER):
            return _peer_ended(line.strip()[:1000])
    return Failure(reason=Reason.FAILED, message=f"The trainer {how}; its log may say why.", retryable=True)


def diagnose_oom_kill(run: TrainRun | None) -> Failure:
    """The failure of a process that the kernel killed."""
    return _out_of_memory("A process of the trainer was killed for using more memory than the container's limit.", run)


def lost_a_peer(error: Exception) -> bool:
    """Whether the error is a consequence of another process's end."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in kinds or (isinstance(error, RuntimeError) and _has_any(str(error), LOST_PEER))


def _has_any(text: str, signs: tuple[str, ...]) -> bool:
    return any(sign in text for sign in signs)


def _out_of_memory(message: str, run: TrainRun | None) -> Failure:
    return Failure(reason=Reason.OUT_OF_MEMORY, message=message, suggestion=more_memory(run), retryable=True)


def _timed_out(message: str) -> Failure:
    return Failure(
        reason=Reason.NCCL_TIMEOUT,
        message=f"The processes of the gang could not exchange data in time: {message}",
        suggestion="Look at the network between the nodes of the Pods, and at the Pods' logs for a rank that hangs.",
        retryable=True,
    )


def _peer_ended(message: str) -> Failure:
    return Failure(
        reason=Reason.FAILED,
        message=f"Another process of the gang ended; its Pod says why. Here: {message}",
        retryable=True,
        lost_peer=True,
    )
