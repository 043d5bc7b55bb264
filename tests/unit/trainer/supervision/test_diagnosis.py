"""Which failure an exception, or the end of a process, stands for."""

from __future__ import annotations

import pytest

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.supervision.diagnosis import diagnose, diagnose_end, diagnose_oom_kill


class OutOfMemoryError(RuntimeError):
    """As torch's, by its name."""


class DistError(RuntimeError):
    """As torch's, by its name."""


class DistBackendError(DistError):
    """As torch's, by its name."""


GLOO_TIMEOUT = "[unbound_buffer.cc:84] Timed out waiting 3600000ms for recv operation to complete"
NCCL_TIMEOUT = (
    "[rank1]:[E] [PG 0 Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE) ran "
    "for 3600001 milliseconds before timing out."
)
NCCL_PEER = "NCCL error: remote process exited or there was a network error, NCCL version 2.27.5"


@pytest.mark.parametrize(
    ("error", "reason", "retryable", "lost_peer"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), Reason.CUDA_OUT_OF_MEMORY, True, False),
        (MemoryError(), Reason.OUT_OF_MEMORY, True, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), Reason.OUT_OF_MEMORY, True, False),
        (RuntimeError("[pair.cc:561] Connection closed by peer [10.0.0.2]:1"), Reason.FAILED, True, True),
        (DistBackendError(NCCL_PEER), Reason.FAILED, True, True),
        (RuntimeError(GLOO_TIMEOUT), Reason.NCCL_TIMEOUT, True, False),
        (DistBackendError(NCCL_TIMEOUT), Reason.NCCL_TIMEOUT, True, False),
        (ValueError("Timed out waiting for a table"), Reason.FAILED, True, False),
        (DiagnosedError(Reason.LOSS_NOT_FINITE, "loss became nan"), Reason.LOSS_NOT_FINITE, False, False),
    ],
    ids=[
        "accelerator memory",
        "memory",
        "memory of torch",
        "a peer's end in gloo",
        "a peer's end in NCCL",
        "a timeout in gloo",
        "a timeout in NCCL",
        "another timeout",
        "what is diagnosed already",
    ],
)
def test_what_an_exception_stands_for(error: Exception, reason: Reason, retryable: bool, lost_peer: bool) -> None:
    found = diagnose(error)
    assert (found.reason, found.retryable, found.lost_peer) == (reason, retryable, lost_peer)


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (OutOfMemoryError("CUDA out of memory."), "a FineTuneClass with larger accelerators"),
        (MemoryError(), "resources.memory of the FineTuneClass"),
    ],
)
def test_for_memory_it_suggests_fields_to_change(error: Exception, field: str) -> None:
    found = diagnose(error)
    assert found.suggestion is not None
    assert "hyperparameters.batchSize" in found.suggestion
    assert "adapter.type" in found.suggestion
    assert field in found.suggestion


@pytest.mark.parametrize(
    ("log", "reason", "lost_peer", "told"),
    [
        ("", Reason.FAILED, False, "The trainer crashed with SIGABRT"),
        (f"step 1\n{NCCL_TIMEOUT}\nterminate called\n", Reason.NCCL_TIMEOUT, False, "SeqNum=7"),
        (f"step 1\n{NCCL_PEER}\nterminate called\n", Reason.FAILED, True, "remote process exited"),
    ],
    ids=["silent", "NCCL's watchdog waited too long", "NCCL's watchdog lost a peer"],
)
def test_what_the_end_of_a_process_stands_for(log: str, reason: Reason, lost_peer: bool, told: str) -> None:
    found = diagnose_end("crashed with SIGABRT", log)
    assert (found.reason, found.lost_peer, found.retryable) == (reason, lost_peer, True)
    assert told in found.message


def test_a_process_that_the_kernel_killed_needs_more_memory() -> None:
    found = diagnose_oom_kill(None)
    assert found.reason is Reason.OUT_OF_MEMORY
    assert found.suggestion is not None
    assert "resources.memory" in found.suggestion
