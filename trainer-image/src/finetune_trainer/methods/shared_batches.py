"""The same batches on any number of processes, even when the last batch of an epoch can't be divided evenly.

accelerate pads such a batch with examples from the start of the epoch, which then count twice. Here it is padded with
examples that have no loss (blanks), so that a step learns from the same examples as on one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler

from finetune_trainer.methods.method import Row


class BlanksLast(Sampler[int]):
    """The order of an epoch on one process, followed by the blanks, which come after the examples in the dataset."""

    def __init__(self, examples: int, blanks: int) -> None:
        self._order = SeedableRandomSampler(range(examples))
        self._blanks = range(examples, examples + blanks)

    def __iter__(self) -> Iterator[int]:
        yield from self._order
        yield from self._blanks

    def __len__(self) -> int:
        return self._blanks.stop

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for the next epoch. accelerate calls this."""
        self._order.set_epoch(epoch)


class LimitedWarmup:
    """A mixin that goes before a Trainer class."""

    args: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Limit the warm-up to one step less than all: it starts at rate 0, and a run of one step would learn
        nothing."""
        self.args.warmup_steps = min(self.args.get_warmup_steps(num_training_steps), num_training_steps - 1)
        return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]


class SharedBatches(LimitedWarmup):
    """A mixin that goes before a Trainer class. `share_batches` must be called once the Trainer is built."""

    train_dataset: Any
    eval_dataset: Any
    examples: int
    """The number of training examples without blanks."""

    def share_batches(self, without_loss: Callable[[Row], Row]) -> None:
        """Pad the datasets with blanks; a single process trains without, as TRL does. `without_loss`: the method's."""
        processes = self.args.world_size
        self.examples = len(self.train_dataset)
        if processes > 1:
            self.train_dataset = filled(self.train_dataset, processes * self.args.train_batch_size, without_loss)
        if self.eval_dataset is not None:
            self.eval_dataset = filled(self.eval_dataset, processes * self.args.eval_batch_size, without_loss)

    def get_train_dataloader(self) -> Any:
        """TRL's dataloader, with BlanksLast as its sampler if there are blanks."""
        loader = super().get_train_dataloader()  # type: ignore[misc]
        blanks = len(self.train_dataset) - self.examples
        if blanks:
            loader.set_sampler(BlanksLast(self.examples, blanks))
        return loader


def filled(dataset: Dataset, multiple: int, without_loss: Callable[[Row], Row]) -> Dataset:
    """The dataset, followed by as many blanks as make its length a multiple of `multiple`."""
    missing = -len(dataset) % multiple
    if not missing:
        return dataset
    first = dataset.select([0])
    blank = first.map(without_loss, features=dataset.features, load_from_cache_file=False, keep_in_memory=True)
    return concatenate_datasets([dataset, *[blank] * missing])
