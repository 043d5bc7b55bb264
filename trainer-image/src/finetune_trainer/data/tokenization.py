"""Examples as tokens, with the loss on what the assistant says (or on the completion) and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence as AnySequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.data import vision
from finetune_trainer.data.chat_rendering import (
    RenderedChat,
    TemplateError,
    common_prefix,
    reads_images,
    render,
    render_turns,
)
from finetune_trainer.data.examples import ChatExample, CompletionExample, Example, PreferenceExample
from finetune_trainer.data.vision import IGNORED

__all__ = ["IGNORED", "PreferencePair", "Sequence", "TemplateError", "has_loss", "tokenize", "tokenize_preference"]


@dataclass(frozen=True)
class Sequence:
    """`labels` is as long as `input_ids`: the token itself where it carries loss, IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]
    images_end: int = 0
    """Where the last image's tokens end: a sequence can't be cut before."""


@dataclass(frozen=True)
class PreferencePair:
    """A prompt and two answers, as TRL's DPOTrainer takes them."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


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
        return [_after(pair.prompt_ids, pair.chosen_ids), _after(pair.prompt_ids, pair.rejected_ids)]
    if example.has_images:
        raise TemplateError("The example has images, and the model reads only text.")
    return [_label(tokenizer, rendered) for rendered in render_turns(tokenizer, example)]


def tokenize_preference(tokenizer: Any, example: PreferenceExample) -> PreferencePair:
    """As TRL does it: the answers start where their tokens differ from the prompt's. Raises TemplateError."""
    prompt, chosen, rejected = _preference_texts(tokenizer, example)
    ids = [
        list(tokenizer(text, add_special_tokens=special)["input_ids"]) for text, special in (prompt, chosen, rejected)
    ]
    start = min(common_prefix(ids[0], answer) for answer in ids[1:])
    return PreferencePair(ids[0][:start], ids[1][start:], ids[2][start:])


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


def _preference_texts(tokenizer: Any, example: PreferenceExample) -> list[tuple[str, bool]]:
    """The texts of the prompt and of both answers after it; whether each wants the tokenizer's special tokens."""
    prompt = example.prompt
    if isinstance(prompt, str):
        end = tokenizer.eos_token or ""
        answers = [str(answer) for answer in (example.chosen, example.rejected)]
        return [(prompt, True), *((prompt + answer.removesuffix(end) + end, True) for answer in answers)]
    conversations = [
        ChatExample([*prompt, *answer], example.tools)
        for answer in (example.chosen, example.rejected)
        if not isinstance(answer, str)
    ]
    if any(conversation.has_images for conversation in conversations):
        raise TemplateError("The example has images, and the model reads only text.")
    asked = render(tokenizer, conversations[0], len(prompt), add_generation_prompt=True)
    return [(asked, False), *((render(tokenizer, one, len(one.messages)), False) for one in conversations)]


def _after(prompt_ids: list[int], answer_ids: list[int]) -> Sequence:
    return Sequence([*prompt_ids, *answer_ids], [IGNORED] * len(prompt_ids) + answer_ids)


def _label(tokenizer: Any, rendered: RenderedChat) -> Sequence:
    """Tokenize the text. A token that is partly in a turn carries loss: a first word may merge with a space."""
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    input_ids = list(encoded["input_ids"])
    labels = [
        token if any(start < last and first < end for start, end in rendered.turns) else IGNORED
        for token, (first, last) in zip(input_ids, encoded["offset_mapping"], strict=True)
    ]
    return Sequence(input_ids, labels)
