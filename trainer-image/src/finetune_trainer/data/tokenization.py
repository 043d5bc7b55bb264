"""Examples as tokens, with the loss on what the assistant says (or on the completion) and nowhere else.

The chat template is only asked to render text, so any template will do; it needs no `generation` markers.
The assistant's turn is what the rendering of the conversation up to and with it has more than the prompt that
would have asked for it. It ends with the end-of-turn token, so that the model learns to stop.

Most templates only ever append: then one sequence has every turn of the assistant. Some rewrite earlier turns
when later ones come (drop their reasoning, say): then each turn gets a sequence of its own, with the history
that the model will see when it is asked for that turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from finetune_trainer.data.examples import Assistant, ChatExample, CompletionExample, Example, PreferenceExample

IGNORED = -100  # the label of a token without loss, as torch's cross entropy has it


@dataclass(frozen=True)
class Sequence:
    """`labels` is as long as `input_ids`: the token itself where it carries loss, IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class PreferencePair:
    """A prompt and two answers, as TRL's DPOTrainer takes them."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


class TemplateError(ValueError):
    """The chat template refuses an example, or renders no turn of the assistant."""


def tokenize(tokenizer: Any, example: Example) -> list[Sequence]:
    """The sequences of an example, not truncated. Raises TemplateError."""
    if isinstance(example, CompletionExample):
        return [_tokenize_completion(tokenizer, example)]
    if isinstance(example, PreferenceExample):
        pair = tokenize_preference(tokenizer, example)
        return [_after(pair.prompt_ids, pair.chosen_ids), _after(pair.prompt_ids, pair.rejected_ids)]
    if example.has_images:
        raise TemplateError("The example has images, and the model reads only text.")
    return _tokenize_chat(tokenizer, example)


def tokenize_preference(tokenizer: Any, example: PreferenceExample) -> PreferencePair:
    """As TRL does it: the answers start where their tokens differ from the prompt's. Raises TemplateError."""
    prompt, chosen, rejected = _preference_texts(tokenizer, example)
    ids = [
        list(tokenizer(text, add_special_tokens=special)["input_ids"]) for text, special in (prompt, chosen, rejected)
    ]
    start = min(_common_prefix(ids[0], answer) for answer in ids[1:])
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
    start = _common_prefix(input_ids, prompt_ids)
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
    asked = _render(tokenizer, conversations[0], len(prompt), add_generation_prompt=True)
    return [(asked, False), *((_render(tokenizer, one, len(one.messages)), False) for one in conversations)]


def _after(prompt_ids: list[int], answer_ids: list[int]) -> Sequence:
    return Sequence([*prompt_ids, *answer_ids], [IGNORED] * len(prompt_ids) + answer_ids)


def _tokenize_chat(tokenizer: Any, example: ChatExample) -> list[Sequence]:
    whole = _render(tokenizer, example, len(example.messages))
    turns: list[tuple[str, int, int]] = []
    for position, message in enumerate(example.messages):
        if isinstance(message, Assistant) and message.weight:
            turns.append(_find_turn(tokenizer, example, position))
    if all(whole.startswith(text[:end]) for text, _, end in turns):
        return [_label(tokenizer, whole, [(start, end) for _, start, end in turns])]
    return [_label(tokenizer, text, [(start, end)]) for text, start, end in turns]


def _find_turn(tokenizer: Any, example: ChatExample, position: int) -> tuple[str, int, int]:
    """The rendering up to and with a message of the assistant; where that turn starts and ends in it."""
    text = _render(tokenizer, example, position + 1)
    prompt = _render(tokenizer, example, position, add_generation_prompt=True)
    start = _common_prefix(text, prompt)
    end = _end_of_turn(tokenizer, text)
    if start >= end:
        raise TemplateError(f"The chat template renders nothing of message {position + 1}.")
    return text, start, end


def _end_of_turn(tokenizer: Any, text: str) -> int:
    """The length of the text, without white space that follows a special token at its end."""
    stripped = text.rstrip()
    ends_with_token = any(stripped.endswith(token) for token in _special_tokens(tokenizer))
    return len(stripped) if ends_with_token else len(text)


def _special_tokens(tokenizer: Any) -> list[str]:
    return [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]


def _render(tokenizer: Any, example: ChatExample, count: int, *, add_generation_prompt: bool = False) -> str:
    """The first `count` messages as text."""
    import jinja2

    try:
        rendered: str = tokenizer.apply_chat_template(
            example.to_template()[:count],
            tools=example.tools,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
        raise TemplateError(f"The model's chat template refuses the example: {error}") from error
    return rendered


def _label(tokenizer: Any, text: str, turns: list[tuple[int, int]]) -> Sequence:
    """Tokenize the text. A token that is partly in a turn carries loss: a first word may merge with a space."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    input_ids = list(encoded["input_ids"])
    labels = [
        token if any(start < last and first < end for start, end in turns) else IGNORED
        for token, (first, last) in zip(input_ids, encoded["offset_mapping"], strict=True)
    ]
    return Sequence(input_ids, labels)


def _common_prefix(first: Iterable[object], second: Iterable[object]) -> int:
    """How long the two are the same from the start."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
