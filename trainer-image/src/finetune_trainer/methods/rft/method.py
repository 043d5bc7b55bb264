"""Reinforcement fine-tuning with verifiable rewards: Shao et al., "DeepSeekMath" (2024), section 4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_api.finetunejob import RFT
from finetune_grading.exact_json import parse_json
from finetune_grading.rewards import Reward, compile_reward
from finetune_trainer.data.encode import tokenization
from finetune_trainer.data.encode.tokenization import TokenizedExample
from finetune_trainer.data.read.examples import Example, ReinforcementExample
from finetune_trainer.data.read.formats import FORMAT_NAMES
from finetune_trainer.methods.method import Calibration, FormatError, Method, Question, Row, TrainerParts
from finetune_trainer.methods.prompts import refusal_without_room, tokenize_prompt
from finetune_trainer.methods.rft.tally import MEASURES, metrics_of
from finetune_trainer.model.memory import MethodMemory
from finetune_trainer.report.measures import Measure

ONLY_TEXT = "A vision-language model can't be trained by reinforcement. Use a model that reads only text."


@dataclass(frozen=True)
class RFTMethod(Method):
    """The Method RFT. A row is `prompt`, the token ids, and `item`, the fields that graders read, as JSON."""

    spec: RFT

    @cached_property
    def reward(self) -> Reward:
        """Raises InvalidRewardError."""
        return compile_reward(self.spec)

    @property
    def memory(self) -> MethodMemory:
        return MethodMemory(
            sequences_per_example=self.spec.completions_per_prompt,
            keeps_reference=self.spec.kl_coefficient > 0,
            can_be_sharded=RFT.rules.shards,
        )

    @property
    def metrics(self) -> Mapping[str, str]:
        """Rewards, those of each grader, errors, and tokens, by OpenAI's names; and the distance to the reference."""
        distance = ["kl"] if self.spec.kl_coefficient > 0 else []
        return {name: name for name in (*metrics_of([grader.name for grader in self.spec.graders]), *distance)}

    @property
    def measures(self) -> Sequence[Measure]:
        return MEASURES

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[TokenizedExample]:
        """The prompt, with room for a completion."""
        if not isinstance(example, ReinforcementExample):
            found = FORMAT_NAMES[example.format]
            raise FormatError(f"method.type RFT learns from {FORMAT_NAMES['Reinforcement']}, not from {found}.")
        item = parse_json(example.item)
        for grader, variable in self.reward.missing_from(item):
            raise FormatError(f"Grader {grader!r} reads {{{{{variable}}}}}, which this example does not have.")
        if (problem := self.reward.problem_of(item)) is not None:
            raise FormatError(problem)
        room = self.spec.max_completion_tokens
        return [tokenize_prompt(processor, example.prompt, example.tools, room=room, only_text=ONLY_TEXT)]

    def row_lengths(
        self, processor: Any, sequences: Sequence[tokenization.TokenizedExample], max_length: int
    ) -> list[int]:
        return [sequence.length for sequence in sequences]

    def refusal(self, sequences: Sequence[tokenization.TokenizedExample], max_length: int) -> str:
        (prompt,) = sequences
        return refusal_without_room(prompt, max_length)

    def columns(self, processor: Any) -> Any:
        from datasets import Features, List, Value

        return Features({"prompt": List(Value("int32")), "item": Value("string")})

    def to_rows(
        self, processor: Any, example: Example, sequences: Sequence[tokenization.TokenizedExample], *, training: bool
    ) -> Iterator[Row]:
        assert isinstance(example, ReinforcementExample), "tokenize refuses all others"
        (prompt,) = sequences
        yield {"prompt": prompt.input_ids, "item": example.item}

    def is_learned_from(self, row: Row, max_length: int) -> bool:
        return True  # preflight refuses prompts without room for a completion

    def question(self, row: Row) -> Question | None:
        """There is no reference."""
        return Question(list(row["prompt"]), [])

    def calibration(self) -> Calibration:
        from finetune_trainer.methods.rft.calibration import RewardsOfStart

        return RewardsOfStart(self.spec, self.reward)

    def build_trainer(self, parts: TrainerParts) -> Any:
        from finetune_trainer.methods.rft.trainer import build_rft_trainer

        return build_rft_trainer(parts, self.spec, self.reward)
