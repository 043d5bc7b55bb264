"""Tokenizes conversations and completions: loss is on the assistant's tokens, and on the prompt's if it is marked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from finetune_trainer.data.encode import vision
from finetune_trainer.data.encode.chat_rendering import (
    RenderedChat,
    TemplateError,
    common_prefix,
    reads_images,
    render_turns,
)
from finetune_trainer.data.encode.placeholders import encode
from finetune_trainer.data.encode.vision import IGNORED
from finetune_trainer.data.read.examples import ChatExample, CompletionExample
from finetune_trainer.data.read.messages import Assistant

__all__ = ["IGNORED", "TemplateError", "TokenizedExample", "has_loss", "tokenize"]

PROMPT_MARK = -1000
"""Less than every label of torch and TRL. A prompt token with loss has the label PROMPT_MARK - token: not a token, nor
IGNORED, so it passes through packing, padding and truncation as any label does; methods/sft_trainer.py reads it."""


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids and labels of equal length: a label is the token itself where it has loss, else IGNORED."""

    input_ids: list[int]
    labels: list[int]
    images_end: int = 0
    """Where the last image's tokens end: a sequence can't be cut before."""
    spells_tokens: bool = False
    """Whether a text of the example spells a control token, which it is not."""


def tokenize(
    tokenizer: Any, example: ChatExample | CompletionExample, images: Sequence[Path] = ()
) -> list[TokenizedExample]:
    """The sequences of an example, not truncated. Raises TemplateError.

    `tokenizer`: for a vision-language model its processor; then `images` are the files of the example's images.
    """
    if reads_images(tokenizer):
        rows = vision.to_rows(tokenizer, example, images)
        return [TokenizedExample(*row) for row in (vision.tokens_of(tokenizer, row) for row in rows)]
    if isinstance(example, CompletionExample):
        return [_tokenize_completion(tokenizer, example)]
    if example.has_images:
        raise TemplateError("The example has images, and the model reads only text.")
    return [_label(tokenizer, rendered) for rendered in render_turns(tokenizer, example)]


def tokenize_with_prompt(tokenizer: Any, example: ChatExample | CompletionExample) -> list[TokenizedExample]:
    """As `tokenize`, with the prompt's tokens marked: all before the last token with loss that are not the assistant's.

    The assistant's messages of weight 0 have no loss and are not marked as prompt either. Raises TemplateError.
    """
    return mark_prompt(tokenizer, example, tokenize(tokenizer, example))


def mark_prompt(
    tokenizer: Any, example: ChatExample | CompletionExample, sequences: list[TokenizedExample]
) -> list[TokenizedExample]:
    """The sequences that `tokenize` made of an example, with the prompt's tokens marked."""
    unweighted = _unweighted_positions(tokenizer, example, sequences)
    return [_mark(sequence, positions) for sequence, positions in zip(sequences, unweighted, strict=True)]


def has_loss(sequence: TokenizedExample, max_length: int | None = None) -> bool:
    """Whether any of the first `max_length` tokens carries loss."""
    return any(label != IGNORED for label in sequence.labels[:max_length])


def refusal_without_loss(sequences: Sequence[TokenizedExample], max_length: int) -> str:
    """Why an example has no loss within `max_length` tokens; empty if it has some."""
    if any(has_loss(sequence, max_length) for sequence in sequences):
        return ""
    return (
        f"Nothing is left to learn from after {max_length} tokens (maxLength): shorten the prompt, or raise maxLength."
    )


def _tokenize_completion(tokenizer: Any, example: CompletionExample) -> TokenizedExample:
    """As TRL does it: one text of both, with the loss from where its tokens differ from the prompt's."""
    end = tokenizer.eos_token or ""
    completion = example.completion if example.completion.endswith(end) else example.completion + end
    input_ids = list(tokenizer(example.prompt + completion)["input_ids"])
    prompt_ids = list(tokenizer(example.prompt)["input_ids"])
    start = common_prefix(input_ids, prompt_ids)
    return TokenizedExample(input_ids, [IGNORED] * start + input_ids[start:])


def _label(tokenizer: Any, rendered: RenderedChat) -> TokenizedExample:
    """Tokenize the text. A token that is partly in a turn carries loss: a first word may merge with a space."""
    input_ids, offsets = encode(tokenizer, rendered)
    labels = [IGNORED] * len(input_ids)
    firsts, lasts = [first for first, _ in offsets], [last for _, last in offsets]
    for start, end in rendered.turns:
        here = slice(bisect_right(lasts, start), bisect_left(firsts, end))
        labels[here] = input_ids[here]
    return TokenizedExample(input_ids, labels, spells_tokens=bool(rendered.literals))


def _unweighted_positions(
    tokenizer: Any, example: ChatExample | CompletionExample, sequences: list[TokenizedExample]
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


def _mark(sequence: TokenizedExample, unweighted: frozenset[int]) -> TokenizedExample:
    last = max((place for place, label in enumerate(sequence.labels) if label != IGNORED), default=0)
    labels = [
        PROMPT_MARK - token if label == IGNORED and place < last and place not in unweighted else label
        for place, (token, label) in enumerate(zip(sequence.input_ids, sequence.labels, strict=True))
    ]
    return TokenizedExample(sequence.input_ids, labels)
