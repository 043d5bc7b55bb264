"""What a training method provides, and which methods there are, a line each (METHODS).

docs/how-to/add-a-method.md says how to write one. Imports nothing heavy: the command line and `validate` read METHODS.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from finetune_trainer.data.read.formats import Format, MethodFormats
from finetune_trainer.report.measures import LOSSES, Measure

if TYPE_CHECKING:
    from finetune_api import finetunejob as api
    from finetune_api.finetunejob import Adapter, ResolvedHyperparameters, RewardCalibration
    from finetune_api.pod_contracts.outcome import Failure
    from finetune_trainer.data.encode import tokenization
    from finetune_trainer.data.read.examples import Example
    from finetune_trainer.model.loading import LocalModel
    from finetune_trainer.model.memory import MethodMemory, ModelSize

Row = dict[str, Any]
"""A row of the method's dataset: lists of token ids by column; of a vision-language model a text and image files."""


@dataclass(frozen=True)
class RegisteredMethod:
    """Where a method is, and the formats of examples that it learns from, as its MethodRules in the API has them."""

    place: str
    """`module:Class` of the Method, which is made of the method's settings."""
    formats: tuple[Format, ...]


METHODS: dict[str, RegisteredMethod] = {
    "SFT": RegisteredMethod("finetune_trainer.methods.sft:SFTMethod", ("Chat", "PromptCompletion")),
    "DPO": RegisteredMethod("finetune_trainer.methods.dpo:DPOMethod", ("Preference",)),
    "RFT": RegisteredMethod("finetune_trainer.methods.rft.method:RFTMethod", ("Reinforcement",)),
    "Distillation": RegisteredMethod(
        "finetune_trainer.methods.distillation.method:DistillationMethod", ("Reinforcement", "Chat", "PromptCompletion")
    ),
}


class FormatError(ValueError):
    """An example that the method can't learn from."""


@dataclass(frozen=True)
class Question:
    """A prompt for the report's samples, and the answer that the example gives to it: token ids."""

    prompt: list[int]
    reference: list[int]
    """Empty where the examples give no answers."""


@dataclass(frozen=True)
class TrainerParts:
    """What every method builds its Trainer from."""

    hyperparameters: ResolvedHyperparameters
    adapter: Adapter
    source: LocalModel
    """The model's files, from which a method may load it once more."""
    teacher: LocalModel | None
    """The files of the model to learn from, of a run that has one."""
    model: Any
    """The model that is trained, in memory."""
    processor: Any
    """Its tokenizer, or the processor of a vision-language model."""
    training: Any
    """A `datasets.Dataset` of `rows`, not truncated."""
    validation: Any | None
    packs: bool
    """Whether several examples share a row (`packs_rows`)."""
    arguments: dict[str, Any]
    """For TrainingArguments: those that all methods share."""
    collator: Any | None
    """That of a vision-language model; None: the Trainer's own."""
    callbacks: list[Any]
    note: Callable[..., None]
    """Records an event of the run: a message, and data by name. On the process that leads; nothing on others."""
    asked_to_stop: Callable[[], bool]
    """Whether this process got a SIGTERM: for methods whose steps take long."""


@dataclass(frozen=True)
class Start:
    """What a run starts from, before any weight is fetched."""

    size: ModelSize | None
    """None: the model's config does not say."""
    download_bytes: int
    """Of its weights."""
    examples: int
    """Rows of the training set."""
    prompts: int
    """Rows that the run trains on, over all epochs."""
    rows: Callable[[Collection[int]], Mapping[int, Row]]
    """Those with these numbers."""
    fetch: Callable[[], LocalModel]
    """Fetches the model."""
    seed: int


@dataclass(frozen=True)
class Machine:
    """What there is to measure with."""

    free_bytes: int
    cpus: int


@dataclass(frozen=True)
class Measured:
    """What was found with the starting model, what is doubtful about it, and why the run can't begin."""

    found: RewardCalibration
    warning: str | None = None
    failure: Failure | None = None


class Calibration(Protocol):
    """What preflight measures with the model that a run starts from, without an accelerator."""

    def why_not(self, start: Start, machine: Machine) -> str | None:
        """Why it is not tried here; None if it is."""
        ...

    def measure(self, start: Start) -> Measured:
        """Fetch the model, and measure. Bounded in time."""
        ...


class Method(Protocol):
    """A training method.

    A `processor` is the model's tokenizer, or the processor of a vision-language model; `images` are the local files of
    an example's images. Imports nothing of torch: preflight asks a method about datasets before it loads a model.
    """

    @property
    def memory(self) -> MethodMemory:
        """What the method needs on an accelerator in addition to the model and its optimizer."""
        ...

    @property
    def metrics(self) -> Mapping[str, str]:
        """What to log, record and plot in addition to the loss: a name (`reward_margin`) and its key in the Trainer's
        log, which has the prefix `eval_` in evaluations."""
        ...

    @property
    def measures(self) -> Sequence[Measure]:
        """What tells how a training goes, for events and the head of the report."""
        return LOSSES

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[tokenization.TokenizedExample]:
        """The sequences of an example, for counting its tokens; not truncated. Raises TemplateError, or FormatError.

        Online methods return prompts without labels, with room for the completion.
        """
        ...

    def row_lengths(
        self, processor: Any, sequences: Sequence[tokenization.TokenizedExample], max_length: int
    ) -> list[int]:
        """The number of tokens of each row that `rows` makes of an example and training keeps."""
        ...

    def refusal(self, sequences: Sequence[tokenization.TokenizedExample], max_length: int) -> str:
        """Why nothing can be learned from an example within `max_length` tokens; empty if something can."""
        ...

    def columns(self, processor: Any) -> Any:
        """The columns of the rows, as `datasets.Features`."""
        ...

    def to_rows(
        self,
        processor: Any,
        example: Example,
        sequences: Sequence[tokenization.TokenizedExample],
        *,
        training: bool,
    ) -> Iterator[Row]:
        """The rows of an example of text, not truncated, from what `tokenize` made of it.

        `training`: False for validation, whose loss must not depend on the method's settings, so that runs with
        different ones can be compared.
        """
        ...

    def rows(self, processor: Any, example: Example, images: Sequence[Path], *, training: bool) -> Iterator[Row]:
        """The rows of an example, not truncated. Raises FormatError, or TemplateError."""
        return self.to_rows(processor, example, self.tokenize(processor, example, images), training=training)

    def is_learned_from(self, row: Row, max_length: int) -> bool:
        """Whether anything is learned from the first `max_length` tokens of a row. Other rows are left out."""
        ...

    def question(self, row: Row) -> Question | None:
        """A sample's prompt and reference from a row of text; None if the row gives none."""
        ...

    def calibration(self) -> Calibration | None:
        """What is measured before accelerators are asked for; None: nothing."""
        return None

    def build_trainer(self, parts: TrainerParts) -> Any:
        """A transformers Trainer with the mixin Resumable. Loads torch and TRL.

        Its batches are the same on any number of processes: SharedBatches does that for rows with a loss of their own.
        """
        ...


def packs_rows(spec: api.Method, processor: Any, *, packing: bool) -> bool:
    """Whether several examples share a row: TRL packs token ids, not images."""
    from finetune_trainer.data.encode.chat_template import reads_images

    return packing and spec.settings.rules.packs and not reads_images(processor)


def method_of(spec: api.Method) -> Method:
    """The method that a spec names, with its settings."""
    build: Callable[[Any], Method] = pkgutil.resolve_name(METHODS[spec.type].place)
    return build(spec.settings)


def formats_of(method: str) -> MethodFormats:
    """What a method learns from, and what the other methods do."""
    return MethodFormats(method, {name: registered.formats for name, registered in METHODS.items()})


def formats_read_as(format: str | None) -> MethodFormats | None:
    """The formats of the method that alone tells this one from others: a pair may be a conversation as well.

    None: no method is needed.
    """
    method = {"Preference": "DPO", "Reinforcement": "RFT"}.get(format or "")
    return None if method is None else formats_of(method)
