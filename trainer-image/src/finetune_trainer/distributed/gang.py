"""The processes that train one model together: the rank of this one, and how all of them agree.

Every method but `last_step` must be called by all processes of the gang, in the same order. A second thread must use
its own handle from `for_another_thread()`. A known failure of one process is raised in all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.process.failures import DiagnosedError, DisruptedError, first_line
from finetune_trainer.process.progress_log import log_progress

T = TypeVar("T")

JOIN_SECONDS = 15 * 60  # Pods of a gang may start minutes apart: images are pulled, nodes are added
COLLECTIVE_SECONDS = 60 * 60  # a checkpoint of a large model is uploaded while the others wait
LAST_STEP = "finetune/last-step"


class Gang:
    """One process's view of the gang. Of a gang of one, every method returns at once."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.alone = ranks.world_size == 1
        self._group: Any = None  # torch's default
        self._store: Any = None if self.alone else _join(ranks)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.ranks.rank == 0

    @property
    def leads_node(self) -> bool:
        """Whether this is the first process of its node, the one that fills the node's disk."""
        return self.ranks.local_rank == 0

    def for_another_thread(self) -> Gang:
        """The same gang for another thread, with a process group of its own, so that neither thread waits for the
        other."""
        other = copy.copy(self)
        if not self.alone:
            import torch.distributed

            other._group = torch.distributed.new_group(
                backend="gloo", timeout=timedelta(seconds=COLLECTIVE_SECONDS), group_desc="background"
            )
        return other

    def from_leader(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0, and return its result on every process."""
        answers = self.gather(work if self.leads else lambda: None)
        answer: T = answers[0]
        return answer

    def on_each_node(self, work: Callable[[], object]) -> None:
        """Run `work` in the first process of each node, and wait until all are done."""

        def fill() -> None:
            if self.leads_node:
                work()

        self.gather(fill)

    def gather(self, work: Callable[[], Any]) -> list[Any]:
        """Run `work` on every process, and return all results on every process, by rank."""
        if self.alone:
            return [work()]
        import torch.distributed

        mine: Any
        try:
            mine = work()
        except DiagnosedError as error:
            mine = error.failure
        except DisruptedError as error:
            mine = error
        answers: list[Any] = [None] * self.ranks.world_size
        torch.distributed.all_gather_object(answers, mine, group=self._group)
        for rank, answer in enumerate(answers):
            if isinstance(answer, Failure):
                raise DiagnosedError.of(answer.model_copy(update={"rank": rank}))
            if isinstance(answer, DisruptedError):
                raise answer
        return answers

    def last_step(self, step: int, asked: bool) -> int | None:
        """The step after which all processes stop, as soon as one has `asked`; None while none has.

        To be asked at the end of every step. No process may end a step before all have asked at the end of the one
        before: gradients or losses that are gathered see to that. So no process is past the step after the one at which
        the first process asks, which is the step that all agree on. It costs a question to rank 0's store, where a
        reduction over the gang at every step would cost all of them ten times as much.
        """
        if self.alone:
            return step if asked else None
        if asked:
            return int(self._store.compare_set(LAST_STEP, "", str(step + 1)))
        return int(self._store.get(LAST_STEP)) if self._store.check([LAST_STEP]) else None

    def leave(self) -> None:
        """Wait for everyone, then end the process group: left to the interpreter's exit, that may crash."""
        if self.alone:
            return
        import torch.distributed

        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _join(ranks: Ranks) -> Any:
    """Initialize the process group; returns the store that all processes share."""
    import torch
    import torch.distributed

    distributed: Any = torch.distributed  # its stubs do not name all of it
    try:
        with log_progress(f"waiting for the {ranks.world_size} processes of the gang"):
            store = distributed.TCPStore(
                ranks.host,
                ranks.port,
                ranks.world_size,
                is_master=ranks.rank == 0 and not ranks.agent_has_store,
                timeout=timedelta(seconds=JOIN_SECONDS),
            )
    except distributed.DistError as error:
        raise DiagnosedError(
            Reason.FAILED,
            f"The {ranks.world_size} processes of the gang did not meet at {ranks.host}:{ranks.port} within "
            f"{JOIN_SECONDS} seconds: {first_line(error)} Check whether all of its Pods are running.",
            retryable=True,
        ) from error
    torch.distributed.init_process_group(
        backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=timedelta(seconds=COLLECTIVE_SECONDS),
    )
    return store.clone()  # the process group keeps the other for itself
