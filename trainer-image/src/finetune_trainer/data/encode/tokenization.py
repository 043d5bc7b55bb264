"""Tokenizes examples, with loss on the assistant's text (or on the completion) and nowhere else."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence as AnySequence
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
    render_answers,
    render_turns,
)
from finetune_trainer.data.encode.stand_ins import encode
from finetune_trainer.data.encode.vision import IGNORED
from finetune_trainer.data.read.examples import ChatExample, CompletionExample, Example, PreferenceExample
from finetune_trainer.data.read.messages import Assistant

__all__ = ["IGNORED", "PreferencePair", "Sequence", "TemplateError", "has_loss", "tokenize", "tokenize_preference"]


@dataclass(frozen=True)
class Sequence:
    """Token ids and labels of equal length: a label is the token itself where it has loss, else IGNORED."""

    input_ids: list[int]
    labels: list[int]
    images_end: int = 0
    """Where the last image's tokens end: a sequence can't be cut before."""
    spells_tokens: bool = False
    """Whether a text of the example spells a control token, which it is not."""


@dataclass(frozen=True)
class PreferencePair:
    """A prompt and two answers, as TRL's DPOTrainer takes them."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    spells_tokens: bool = False


def tokenize(tokenizer: Any, example: Example, images: AnySequence[Path] = ()) -> list[Sequence]:
    """The sequences of an example, not truncated. Raises TemplateError.

    `tokenizer`: for a vision-language model its processor; then `images` are the files of the example's images.
    """
    if reads_images(tokenizer):
        rows = vision.to_rows(tokenizer, example, images)
        return [Sequence(*row) for row in (vision.tokens_of(tokenizer, row) for row in rows)]
    if isinstance(example, CompletionExample):
        return [_tokenize_completion(tokenizer, example)]
    if isinstance(example, PreferenceExample):
        pair = tokenize_preference(tokenizer, example)
        return [_after(pair, pair.chosen_ids), _after(pair, pair.rejected_ids)]
    if example.has_images:
        raise TemplateError("The example has images, and the model reads only text.")
    return [_label(tokenizer, rendered) for rendered in render_turns(tokenizer, example)]


def tokenize_preference(tokenizer: Any, example: PreferenceExample) -> PreferencePair:
    """As TRL does it: the answers start where their tokens differ from the prompt's. Raises TemplateError."""
    ids, spells_tokens = _preference_tokens(tokenizer, example)
    start = min(common_prefix(ids[0], answer) for answer in ids[1:])
    return PreferencePair(ids[0][:start], ids[1][start:], ids[2][start:], spells_tokens)


def has_loss(sequence: Sequence, max_length: int | None = None) -> bool:
    """Whether any of the first `max_length` tokens carries loss."""
    return any(label != IGNORED for label in sequence.labels[:max_length])


def _tokenize_completion(tokenizer: Any, example: CompletionExample) -> Sequence:
    """As TRL does it: one text of both, with the loss from where its tokens differ from the prompt's."""
    end = tokenizer.eos_token or ""
    completion = example.completion if example.completion.endswith(end) else example.completion + end
    input_ids = list(tokenizer(example.prompt + completion)["input_ids"])
    prompt_ids = list(tokenizer(example.prompt)["input_ids"])
    start = common_prefix(input_ids, prompt_ids)
    return Sequence(input_ids, [IGNORED] * start + input_ids[start:])


def _preference_tokens(tokenizer: Any, example: PreferenceExample) -> tuple[list[list[int]], bool]:
    """The tokens of the prompt and of both answers after it; whether a text spells a control token."""
    prompt = example.prompt
    if isinstance(prompt, str):
        end = tokenizer.eos_token or ""
        answers = [str(answer) for answer in (example.chosen, example.rejected)]
        texts = [prompt, *(prompt + answer.removesuffix(end) + end for answer in answers)]
        return [list(tokenizer(text)["input_ids"]) for text in texts], False
    context = [replace(message, weight=0) if isinstance(message, Assistant) else message for message in prompt]
    conversations = [
        ChatExample([*context, *answer], example.tools)
        for answer in (example.chosen, example.rejected)
        if not isinstance(answer, str)
    ]
    if any(conversation.has_images for conversation in conversations):
        raise TemplateError("The example has images, and the model reads only text.")
    rendered = render_answers(tokenizer, len(prompt), conversations)
    return [encode(tokenizer, text)[0] for text in rendered], any(text.literals for text in rendered)


def _after(pair: PreferencePair, answer_ids: list[int]) -> Sequence:
    labels = [IGNORED] * len(pair.prompt_ids) + answer_ids
    return Sequence([*pair.prompt_ids, *answer_ids], labels, spells_tokens=pair.spells_tokens)


def _label(tokenizer: Any, rendered: RenderedChat) -> Sequence:
    """Tokenize the text. A token that is partly in a turn carries loss: a first word may merge with a space."""
    input_ids, offsets = encode(tokenizer, rendered)
    labels = [IGNORED] * len(input_ids)
    firsts, lasts = [first for first, _ in offsets], [last for _, last in offsets]
    for start, end in rendered.turns:
        here = slice(bisect_right(lasts, start), bisect_left(firsts, end))
        labels[here] = input_ids[here]
    return Sequence(input_ids, labels, spells_tokens=bool(rendered.literals))
