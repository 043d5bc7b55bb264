"""Loss on the prompt (`method.sft.promptLossWeight`): the labels mark which tokens are the prompt's.

The label of a prompt's token is MARK - token. It is neither a token nor IGNORED, so it passes through packing, padding
and truncation as any label does; sft_trainer.py reads it.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from finetune_trainer.data.encode.tokenization import IGNORED, Sequence, tokenize
from finetune_trainer.data.read.examples import ChatExample, CompletionExample
from finetune_trainer.data.read.messages import Assistant

MARK = -1000
"""Lower than every label of torch and TRL."""


def tokenize_with_prompt(tokenizer: Any, example: ChatExample | CompletionExample) -> list[Sequence]:
    """As `tokenize`, with the prompt's tokens marked: all before the last token with loss that are not the assistant's.

    The assistant's messages of weight 0 have no loss and are not marked as prompt either. Raises TemplateError.
    """
    sequences = tokenize(tokenizer, example)
    unweighted = _unweighted_positions(tokenizer, example, sequences)
    return [_mark(sequence, positions) for sequence, positions in zip(sequences, unweighted, strict=True)]


def _unweighted_positions(
    tokenizer: Any, example: ChatExample | CompletionExample, sequences: list[Sequence]
) -> list[frozenset[int]]:
    """The positions, in each sequence, of the tokens of the assistant's messages of weight 0."""
    nothing = [frozenset[int]() for _ in sequences]
    if not isinstance(example, ChatExample):
        return nothing
    messages = example.messages
    weighted = [replace(message, weight=1) if isinstance(message, Assistant) else message for message in messages]
    if weighted == messages:
        return nothing
    all_turns = tokenize(tokenizer, replace(example, messages=weighted))
    if len(sequences) != 1 or len(all_turns) != 1:  # one sequence per turn: everything before it is its prompt
        return nothing
    pairs = zip(sequences[0].labels, all_turns[0].labels, strict=True)
    return [frozenset(place for place, (label, one) in enumerate(pairs) if label == IGNORED and one != IGNORED)]


def _mark(sequence: Sequence, unweighted: frozenset[int]) -> Sequence:
    last = max((place for place, label in enumerate(sequence.labels) if label != IGNORED), default=0)
    labels = [
        MARK - token if label == IGNORED and place < last and place not in unweighted else label
        for place, (token, label) in enumerate(zip(sequence.input_ids, sequence.labels, strict=True))
    ]
    return Sequence(sequence.input_ids, labels)
