"""The processes that train one model together: who this one is, and how all of them agree.

Every method must be called by all processes of the gang, in the same order. A known failure of one is raised
in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from finetune_api.conditions import Reason
from finetune_api.outcome import Failure
from finetune_trainer.failures import DiagnosedError, first_line
from finetune_trainer.heartbeat import heartbeat
from finetune_trainer.place import Place

T = TypeVar("T")

JOIN_SECONDS = 15 * 60  # Pods of a gang may start minutes apart: images are pulled, nodes are added
COLLECTIVE_SECONDS = 60 * 60  # a checkpoint of a large model is uploaded while the others wait


class Gang:
    """One process's view of the gang; alone, every method answers at once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.alone = place.world_size == 1
        if not self.alone:
            _join(place)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.place.rank == 0

    @property
    def leads_node(self) -> bool:
        """Whether this is the first process of its node, the one that fills the node's disk."""
        return self.place.local_rank == 0

    def from_leader(self, work: Callable[[], T]) -> T:
        """What `work` answers on rank 0, to everyone."""
        answers = self.gather(work if self.leads else lambda: None)
        answer: T = answers[0]
        return answer

    def on_each_node(self, work: Callable[[], object]) -> None:
        """Run `work` once on every node, and wait for all."""

        def fill() -> None:
            if self.leads_node:
                work()

        self.gather(fill)

    def gather(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` answers on every process, by rank."""
        if self.alone:
            return [work()]
        import torch.distributed

        mine: Any
        try:
            mine = work()
        except DiagnosedError as error:
            mine = error.failure
        answers: list[Any] = [None] * self.place.world_size
        torch.distributed.all_gather_object(answers, mine)
        for rank, answer in enumerate(answers):
            if isinstance(answer, Failure):
                raise DiagnosedError.of(answer.model_copy(update={"rank": rank}))
        return answers

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.alone:
            return flag
        import torch

        flags = torch.tensor([int(flag)])
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return bool(flags.item())

    def leave(self) -> None:
        """Wait for everyone, then end the process group: left to the interpreter's exit, that may crash."""
        if self.alone:
            return
        import torch.distributed

        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _join(place: Place) -> None:
    import torch
    import torch.distributed

    distributed: Any = torch.distributed  # its stubs do not name all of it
    try:
        with heartbeat(f"waiting for the {place.world_size} processes of the gang"):
            store = distributed.TCPStore(
                place.host,
                place.port,
                place.world_size,
                is_master=place.rank == 0 and not place.agent_has_store,
                timeout=timedelta(seconds=JOIN_SECONDS),
            )
    except distributed.DistError as error:
        raise DiagnosedError(
            Reason.FAILED,
            f"The {place.world_size} processes of the gang did not meet at {place.host}:{place.port} within "
            f"{JOIN_SECONDS} seconds: {first_line(error)} See whether each of the Pods runs.",
            retryable=True,
        ) from error
    torch.distributed.init_process_group(
        backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=timedelta(seconds=COLLECTIVE_SECONDS),
    )
