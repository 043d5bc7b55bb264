"""Direct preference optimization, on pairs of a preferred and a rejected answer: Rafailov et al. (2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from finetune_api.finetunejob import DPO
from finetune_trainer.data.encode import tokenization
from finetune_trainer.data.encode.chat_template import TemplateError, reads_images
from finetune_trainer.data.encode.placeholders import encode_ids
from finetune_trainer.data.encode.token_places import token_ids
from finetune_trainer.data.encode.tokenization import IGNORED, refusal_without_loss, render_answers
from finetune_trainer.data.encode.turns import common_prefix
from finetune_trainer.data.encode.vision import ONLY_CHAT
from finetune_trainer.data.read.examples import ChatExample, Example, PreferenceExample
from finetune_trainer.data.read.formats import FORMAT_NAMES
from finetune_trainer.data.read.messages import Assistant
from finetune_trainer.methods.method import FormatError, Method, Question, Row, TrainerParts
from finetune_trainer.model.memory import MethodMemory


@dataclass(frozen=True)
class DPOMethod(Method):
    """The Method DPO. A row is `prompt_ids`, `chosen_ids` and `rejected_ids`, as TRL's DPOTrainer takes them."""

    spec: DPO

    @property
    def memory(self) -> MethodMemory:
        return MethodMemory(sequences_per_example=2, keeps_reference=True, can_be_sharded=DPO.rules.shards)

    @property
    def metrics(self) -> Mapping[str, str]:
        """How often, and by how much, the preferred answer has the higher reward."""
        return {"reward_accuracy": "rewards/accuracies", "reward_margin": "rewards/margins"}

    def tokenize(self, processor: Any, example: Example, images: Sequence[Path]) -> list[tokenization.TokenizedExample]:
        """Prompt and preferred answer, prompt and rejected answer."""
        if reads_images(processor):
            raise TemplateError(ONLY_CHAT)
        pair = tokenize_pair(processor, example)
        return [pair.answered(pair.chosen_ids), pair.answered(pair.rejected_ids)]

    def row_lengths(
        self, processor: Any, sequences: Sequence[tokenization.TokenizedExample], max_length: int
    ) -> list[int]:
        return [max(len(sequence.input_ids) for sequence in sequences)]

    def refusal(self, sequences: Sequence[tokenization.TokenizedExample], max_length: int) -> str:
        if found := refusal_without_loss(sequences, max_length):
            return found
        chosen, rejected = (sequence.input_ids[:max_length] for sequence in sequences)
        if chosen != rejected:
            return ""
        is_cut = max(len(sequence.input_ids) for sequence in sequences) > max_length
        within = f" within {max_length} tokens (maxLength)" if is_cut else ""
        return f"The two answers are the same as tokens{within}: there is no preference to learn."

    def columns(self, processor: Any) -> Any:
        from datasets import Features, List, Value

        return Features(dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), List(Value("int32"))))

    def to_rows(
        self, processor: Any, example: Example, sequences: Sequence[tokenization.TokenizedExample], *, training: bool
    ) -> Iterator[Row]:
        chosen, rejected = sequences
        start = len(chosen.labels) - sum(label != IGNORED for label in chosen.labels)
        yield {
            "prompt_ids": chosen.input_ids[:start],
            "chosen_ids": chosen.input_ids[start:],
            "rejected_ids": rejected.input_ids[start:],
        }

    def is_learned_from(self, row: Row, max_length: int) -> bool:
        return True  # preflight refuses pairs that teach nothing

    def without_loss(self, row: Row) -> Row:
        """The columns to change in a row so that it has no loss: it then fills up a batch."""
        return {"chosen_ids": [], "rejected_ids": []}

    def question(self, row: Row) -> Question | None:
        """The preferred answer is the reference."""
        return Question(list(row["prompt_ids"]), list(row["chosen_ids"]))

    def build_trainer(self, parts: TrainerParts) -> Any:
        from finetune_trainer.methods.dpo_trainer import build_dpo_trainer

        return build_dpo_trainer(parts, self.spec, self.without_loss)


@dataclass(frozen=True)
class TokenizedPair:
    """A prompt and two answers, as TRL's DPOTrainer takes them."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    spells_tokens: bool = False
    """Whether a text of the example spells a control token, which it is not."""

    def answered(self, answer_ids: list[int]) -> tokenization.TokenizedExample:
        """The prompt with an answer, which alone has loss."""
        labels = [IGNORED] * len(self.prompt_ids) + answer_ids
        return tokenization.TokenizedExample([*self.prompt_ids, *answer_ids], labels, spells_tokens=self.spells_tokens)


def tokenize_pair(tokenizer: Any, example: Example) -> TokenizedPair:
    """As TRL does it: the answers start where their tokens differ from the prompt's.

    Raises FormatError, or TemplateError.
    """
    if not isinstance(example, PreferenceExample):
        raise FormatError(f"method.type DPO learns from preference pairs, not from {FORMAT_NAMES[example.format]}.")
    ids, spells_tokens = _prompt_and_answers(tokenizer, example)
    start = min(common_prefix(ids[0], answer) for answer in ids[1:])
    return TokenizedPair(ids[0][:start], ids[1][start:], ids[2][start:], spells_tokens)


def _prompt_and_answers(tokenizer: Any, example: PreferenceExample) -> tuple[list[list[int]], bool]:
    """The tokens of the prompt and of both answers after it; whether a text spells a control token."""
    prompt = example.prompt
    if isinstance(prompt, str):
        end = tokenizer.eos_token or ""
        answers = [str(answer) for answer in (example.chosen, example.rejected)]
        texts = [prompt, *(prompt + answer.removesuffix(end) + end for answer in answers)]
        return [token_ids(tokenizer, text, add_special_tokens=True) for text in texts], False
    context = [replace(message, weight=0) if isinstance(message, Assistant) else message for message in prompt]
    conversations = [
        ChatExample([*context, *answer], example.tools)
        for answer in (example.chosen, example.rejected)
        if not isinstance(answer, str)
    ]
    if any(conversation.has_images for conversation in conversations):
        raise TemplateError("The example has images, and the model reads only text.")
    rendered = render_answers(tokenizer, len(prompt), conversations)
    return [encode_ids(tokenizer, text) for text in rendered], any(text.literals for text in rendered)
