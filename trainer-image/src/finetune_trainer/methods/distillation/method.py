"""On-policy distillation: Agarwal et al., "On-Policy Distillation of Language Models" (2024), arXiv 2306.13649."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.finetunejob import Distillation
from finetune_trainer.data.encode.tokenization import TokenizedExample
from finetune_trainer.data.read.examples import ChatExample, CompletionExample, Example, ReinforcementExample
from finetune_trainer.data.read.formats import FORMAT_NAMES
from finetune_trainer.data.read.messages import Assistant, Messages
from finetune_trainer.methods.method import FormatError, Method, Question, Row, TrainerParts
from finetune_trainer.methods.prompts import refusal_without_room, tokenize_prompt
from finetune_trainer.model.memory import MethodMemory

ONLY_TEXT = "A vision-language model can't be trained by distillation. Use a model that reads only text."


@dataclass(frozen=True)
class DistillationMethod(Method):
    """The Method Distillation. A row is `prompt`, its token ids: the answers of examples are not read."""

    spec: Distillation

    @property
    def memory(self) -> MethodMemory:
        return MethodMemory(can_be_sharded=Distillation.rules.shards)

    @property
    def metrics(self) -> Mapping[str, str]:
        """Tokens of a completion, the share that is cut off at the limit, and how uncertain the model is, in nats."""
        return {
            "completion_tokens_mean": "completions/mean_length",
            "completion_truncated_mean": "completions/clipped_ratio",
            "entropy": "entropy",
        }

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[TokenizedExample]:
        """The prompt, with room for a completion."""
        prompt, tools = _asked(example)
        room = self.spec.max_completion_tokens
        return [tokenize_prompt(processor, prompt, tools, room=room, only_text=ONLY_TEXT)]

    def row_lengths(self, processor: Any, sequences: Sequence[TokenizedExample], max_length: int) -> list[int]:
        return [sequence.length for sequence in sequences]

    def refusal(self, sequences: Sequence[TokenizedExample], max_length: int) -> str:
        (prompt,) = sequences
        return refusal_without_room(prompt, max_length)

    def columns(self, processor: Any) -> Any:
        from datasets import Features, List, Value

        return Features({"prompt": List(Value("int32"))})

    def to_rows(
        self, processor: Any, example: Example, sequences: Sequence[TokenizedExample], *, training: bool
    ) -> Iterator[Row]:
        (prompt,) = sequences
        yield {"prompt": prompt.input_ids}

    def is_learned_from(self, row: Row, max_length: int) -> bool:
        return True  # preflight refuses prompts without room for a completion

    def question(self, row: Row) -> Question | None:
        """There is no reference."""
        return Question(list(row["prompt"]), [])

    def build_trainer(self, parts: TrainerParts) -> Any:
        from finetune_trainer.methods.distillation.trainer import build_distillation_trainer

        return build_distillation_trainer(parts, self.spec)


def _asked(example: Example) -> tuple[str | Messages, list[dict[str, Any]] | None]:
    """What comes before the last answer, and the tools. Raises FormatError."""
    if isinstance(example, ReinforcementExample):
        return example.prompt, example.tools
    if isinstance(example, CompletionExample):
        return example.prompt, None
    if isinstance(example, ChatExample):
        messages = example.messages
        last = max(at for at, message in enumerate(messages) if isinstance(message, Assistant))
        return messages[:last], example.tools
    raise FormatError(f"method.type Distillation learns from prompts, not from {FORMAT_NAMES[example.format]}.")
