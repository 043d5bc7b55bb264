"""Direct preference optimization, on pairs of a preferred and a rejected answer: Rafailov et al. (2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.finetunejob import DPO
from finetune_trainer.data.encode import tokenization
from finetune_trainer.data.encode.tokenization import tokenize_preference
from finetune_trainer.data.read.examples import Example, PreferenceExample
from finetune_trainer.methods.method import FormatError, Question, Row, TrainerParts
from finetune_trainer.model.memory import MethodMemory


@dataclass(frozen=True)
class DPOMethod:
    """The Method DPO. A row is `prompt_ids`, `chosen_ids` and `rejected_ids`, as TRL's DPOTrainer takes them."""

    spec: DPO

    @property
    def memory(self) -> MethodMemory:
        return MethodMemory(sequences_per_example=2, keeps_reference=True, can_be_sharded=False)

    @property
    def packs(self) -> bool:
        return False

    @property
    def logged(self) -> dict[str, str]:
        return {"reward_margin": "rewards/margins"}

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[tokenization.Sequence]:
        """Prompt and preferred answer, prompt and rejected answer."""
        return tokenization.tokenize(processor, example, images)

    def row_lengths(self, processor: Any, sequences: Sequence[tokenization.Sequence], max_length: int) -> list[int]:
        return [max(len(sequence.input_ids) for sequence in sequences)]

    def refusal(self, sequences: Sequence[tokenization.Sequence], max_length: int) -> str:
        chosen, rejected = (sequence.input_ids[:max_length] for sequence in sequences)
        if chosen != rejected:
            return ""
        is_cut = max(len(sequence.input_ids) for sequence in sequences) > max_length
        within = f" within {max_length} tokens (maxLength)" if is_cut else ""
        return f"The two answers are the same as tokens{within}: there is no preference to learn."

    def columns(self, processor: Any) -> Any:
        from datasets import Features, List, Value

        return Features(dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), List(Value("int32"))))

    def rows(self, processor: Any, example: Example, images: Sequence[Path], *, training: bool) -> Iterator[Row]:
        if not isinstance(example, PreferenceExample):
            raise FormatError("method.type is DPO, which learns from pairs of a preferred and a rejected answer.")
        pair = tokenize_preference(processor, example)
        yield {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}

    def has_loss(self, row: Row, max_length: int) -> bool:
        return True  # preflight refuses pairs without

    def without_loss(self, row: Row) -> Row:
        return {"chosen_ids": [], "rejected_ids": []}

    def question(self, row: Row) -> Question | None:
        """The preferred answer is the reference."""
        return Question(list(row["prompt_ids"]), list(row["chosen_ids"]))

    def build_trainer(self, parts: TrainerParts) -> Any:
        from finetune_trainer.methods.dpo_trainer import build_dpo_trainer

        return build_dpo_trainer(parts, self.spec, self.without_loss)
