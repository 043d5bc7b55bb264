"""Supervised fine-tuning: loss on the assistant's tokens, and with `promptLossWeight` on the prompt's too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.finetunejob import SFT
from finetune_trainer.data.encode import tokenization, vision
from finetune_trainer.data.encode.chat_template import reads_images
from finetune_trainer.data.encode.tokenization import IGNORED, refusal_without_loss
from finetune_trainer.data.read.examples import ChatExample, CompletionExample, Example
from finetune_trainer.data.read.formats import FORMAT_NAMES
from finetune_trainer.methods.method import FormatError, Method, Question, Row, TrainerParts
from finetune_trainer.model.memory import MethodMemory


@dataclass(frozen=True)
class SFTMethod(Method):
    """The Method SFT. A row is `input_ids` and `labels`; of a vision-language model what `vision.to_record` makes."""

    spec: SFT

    @property
    def memory(self) -> MethodMemory:
        return MethodMemory()

    @property
    def metrics(self) -> Mapping[str, str]:
        return {}

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[tokenization.TokenizedExample]:
        if reads_images(processor):
            return vision.tokenize(processor, _answered(example), images)
        return tokenization.tokenize(processor, _answered(example))

    def row_lengths(
        self, processor: Any, sequences: Sequence[tokenization.TokenizedExample], max_length: int
    ) -> list[int]:
        everything = reads_images(processor)
        kept = [one for one in sequences if everything or tokenization.has_loss(one, max_length)]
        return [len(sequence.input_ids) for sequence in kept]

    def refusal(self, sequences: Sequence[tokenization.TokenizedExample], max_length: int) -> str:
        return refusal_without_loss(sequences, max_length)

    def columns(self, processor: Any) -> Any:
        from datasets import Features, List, Value

        numbers = List(Value("int32"))
        if reads_images(processor):
            return Features({"text": Value("string"), "turns": List(numbers), "images": List(Value("string"))})
        return Features({"input_ids": numbers, "labels": numbers})

    def rows(self, processor: Any, example: Example, images: Sequence[Path], *, training: bool) -> Iterator[Row]:
        if not reads_images(processor):
            return super().rows(processor, example, images, training=training)
        if training and self.spec.prompt_loss_weight > 0:
            raise FormatError("method.sft.promptLossWeight does not support vision-language models. Leave it out.")
        return (vision.to_record(row) for row in vision.to_rows(processor, example, images))

    def to_rows(
        self, processor: Any, example: Example, sequences: Sequence[tokenization.TokenizedExample], *, training: bool
    ) -> Iterator[Row]:
        if training and self.spec.prompt_loss_weight > 0:
            sequences = tokenization.add_prompt_loss(processor, _answered(example), list(sequences))
        yield from ({"input_ids": sequence.input_ids, "labels": sequence.labels} for sequence in sequences)

    def is_learned_from(self, row: Row, max_length: int) -> bool:
        return "labels" not in row or any(label >= 0 for label in row["labels"][:max_length])

    def without_loss(self, row: Row) -> Row:
        """The columns to change in a row so that it has no loss: it then fills up a batch."""
        return {"turns": []} if "turns" in row else {"labels": [IGNORED] * len(row["labels"])}

    def question(self, row: Row) -> Question | None:
        """The last run of tokens with loss is the reference, and what precedes it is the prompt."""
        labels = list(row["labels"])
        end = next((position + 1 for position in reversed(range(len(labels))) if labels[position] >= 0), 0)
        start = next((position + 1 for position in reversed(range(end)) if labels[position] < 0), 0)
        return Question(list(row["input_ids"])[:start], labels[start:end]) if end else None

    def build_trainer(self, parts: TrainerParts) -> Any:
        from finetune_trainer.methods.sft_trainer import build_sft_trainer

        return build_sft_trainer(parts, self.spec.prompt_loss_weight, self.without_loss)


def _answered(example: Example) -> ChatExample | CompletionExample:
    if isinstance(example, ChatExample | CompletionExample):
        return example
    raise FormatError(
        f"method.type SFT learns from chat messages and completions, not from {FORMAT_NAMES[example.format]}."
    )
