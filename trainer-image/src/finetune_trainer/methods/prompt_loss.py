"""Loss on the prompt too (`method.sft.promptLossWeight`): which tokens are the prompt's, told by their labels.

A label of the prompt is written as MARK - token. It is no token and not IGNORED, so it passes through packing, padding
and truncation as any label does; sft_trainer.py reads it.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from finetune_trainer.data.encode.tokenization import IGNORED, Sequence, tokenize
from finetune_trainer.data.read.examples import ChatExample, Example
from finetune_trainer.data.read.messages import Assistant

MARK = -1000
"""No label of torch's or TRL's is as low."""


def tokenize_with_prompt(tokenizer: Any, example: Example) -> list[Sequence]:
    """As `tokenize`, with the prompt's tokens marked: all up to the last one with loss that the assistant did not say.

    What the assistant says in messages of weight 0 has no loss and is no prompt either. Raises TemplateError.
    """
    sequences = tokenize(tokenizer, example)
    said = _unweighted_positions(tokenizer, example, sequences)
    return [_mark(sequence, silent) for sequence, silent in zip(sequences, said, strict=True)]


def _unweighted_positions(tokenizer: Any, example: Example, sequences: list[Sequence]) -> list[frozenset[int]]:
    """The positions, in each sequence, of what the assistant says in messages of weight 0."""
    nothing = [frozenset[int]() for _ in sequences]
    if not isinstance(example, ChatExample):
        return nothing
    heard = [replace(message, weight=1) if isinstance(message, Assistant) else message for message in example.messages]
    if heard == example.messages:
        return nothing
    spoken = tokenize(tokenizer, replace(example, messages=heard))
    if len(sequences) != 1 or len(spoken) != 1:  # a sequence for each turn: what is before it, is its prompt
        return nothing
    pairs = zip(sequences[0].labels, spoken[0].labels, strict=True)
    return [frozenset(place for place, (label, one) in enumerate(pairs) if label == IGNORED and one != IGNORED)]


def _mark(sequence: Sequence, silent: frozenset[int]) -> Sequence:
    last = max((place for place, label in enumerate(sequence.labels) if label != IGNORED), default=0)
    labels = [
        MARK - token if label == IGNORED and place < last and place not in silent else label
        for place, (token, label) in enumerate(zip(sequence.input_ids, sequence.labels, strict=True))
    ]
    return Sequence(sequence.input_ids, labels)
