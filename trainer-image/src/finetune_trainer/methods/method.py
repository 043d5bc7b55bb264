"""What a training method provides. docs/how-to/add-a-method.md tells how to write one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finetune_api.finetunejob import Adapter, ResolvedHyperparameters
from finetune_trainer.data.encode import tokenization
from finetune_trainer.data.read.examples import Example
from finetune_trainer.model.loading import LocalModel
from finetune_trainer.model.memory import MethodMemory

Row = dict[str, Any]
"""A row of the method's dataset: lists of token ids by column; of a vision-language model a text and image files."""


class FormatError(ValueError):
    """An example of a format that the method does not train on."""


@dataclass(frozen=True)
class Question:
    """A prompt for the report's samples, and the answer that the example gives to it: token ids."""

    prompt: list[int]
    reference: list[int]


@dataclass(frozen=True)
class TrainerParts:
    """What every method builds its Trainer from."""

    hyperparameters: ResolvedHyperparameters
    adapter: Adapter
    source: LocalModel
    """The model's files, from which a method may load it once more."""
    model: Any
    """The model that is trained, in memory."""
    processor: Any
    """Its tokenizer, or the processor of a vision-language model."""
    training: Any
    """A `datasets.Dataset` of `rows`, not truncated."""
    validation: Any | None
    arguments: dict[str, Any]
    """For TrainingArguments: those that all methods share."""
    collator: Any | None
    """That of a vision-language model; None: the Trainer's own."""
    callbacks: list[Any]


class Method(Protocol):
    """A training method.

    A `processor` is the model's tokenizer, or the processor of a vision-language model; `images` are the local files of
    an example's images. Imports nothing of torch: preflight asks a method about datasets before it loads a model.
    """

    @property
    def memory(self) -> MethodMemory:
        """What the method needs on an accelerator beside the model and its optimizer."""
        ...

    @property
    def packs(self) -> bool:
        """Whether short rows may share one row of `maxLength` tokens (`hyperparameters.packing`)."""
        ...

    @property
    def logged(self) -> dict[str, str]:
        """Metrics of the Trainer's log that are shown beside the loss, by the name to show."""
        ...

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[tokenization.Sequence]:
        """The sequences that the model computes for an example, not truncated. Raises TemplateError."""
        ...

    def row_lengths(self, processor: Any, sequences: Sequence[tokenization.Sequence], max_length: int) -> list[int]:
        """The number of tokens of each row that `rows` makes of an example and training keeps."""
        ...

    def refusal(self, sequences: Sequence[tokenization.Sequence], max_length: int) -> str:
        """Why an example that has loss within `max_length` tokens still teaches nothing; empty if it does teach."""
        ...

    def columns(self, processor: Any) -> Any:
        """The columns of the rows, as `datasets.Features`."""
        ...

    def rows(self, processor: Any, example: Example, images: Sequence[Path], *, training: bool) -> Iterator[Row]:
        """The rows of an example, not truncated. Raises FormatError, or TemplateError.

        `training`: False for validation, whose loss must not depend on the method's settings, so that runs with
        different ones can be compared.
        """
        ...

    def has_loss(self, row: Row, max_length: int) -> bool:
        """Whether anything is learned from the first `max_length` tokens of a row."""
        ...

    def without_loss(self, row: Row) -> Row:
        """The columns to change in a row so that nothing is learned from it: it then fills up a batch."""
        ...

    def question(self, row: Row) -> Question | None:
        """A sample's prompt and reference from a row of text; None where the row has no answer."""
        ...

    def build_trainer(self, parts: TrainerParts) -> Any:
        """A transformers Trainer with the mixins Resumable and SharedBatches. Loads torch and TRL."""
        ...
