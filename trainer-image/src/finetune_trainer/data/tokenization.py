"""Examples as tokens, with the loss on what the assistant says (or on the completion) and nowhere else.

The chat template is only asked to render text, so any template will do; it needs no `generation` markers.
The assistant's turn is what the rendering of the conversation up to and with it has more than the prompt that
would have asked for it. It ends with the end-of-turn token, so that the model learns to stop.

Most templates only ever append: then one sequence has every turn of the assistant. Some rewrite earlier turns
when later ones come (drop their reasoning, say): then each turn gets a sequence of its own, with the history
that the model will see when it is asked for that turn.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass
from typing import Any

import orjson

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
    if start < len(prompt) and not text.startswith(_render(tokenizer, example, position)):
        text, start = prompt + text[_start_of_answer(tokenizer, example, position, text, prompt) :], len(prompt)
    end = _end_of_turn(tokenizer, text)
    if start >= end:
        raise TemplateError(f"The chat template renders nothing of message {position + 1}.")
    _refuse_lost_calls(example, position, text[start:end])
    return text, start, end


def _start_of_answer(tokenizer: Any, example: ChatExample, position: int, text: str, prompt: str) -> int:
    """Where the answer starts in a text that has another history than the prompt.

    Mistral's template has the system prompt in the last question, and nowhere when an answer comes last. The answer
    starts at the latest where another one would differ, after what the prompt ends with.
    """
    messages = example.to_template()[:position]
    other = "-" if not example.to_template()[position]["content"].lstrip().startswith("-") else "+"
    latest = _common_prefix(
        text, render_chat(tokenizer, [*messages, {"role": "assistant", "content": other}], example.tools)
    )
    return max(range(latest + 1), key=lambda start: (_common_prefix(reversed(text[:start]), reversed(prompt)), start))


def _refuse_lost_calls(example: ChatExample, position: int, turn: str) -> None:
    """Many chat templates leave calls out without a word: then the model would learn to say nothing."""
    message = example.messages[position]
    names = [call.function.name for call in (isinstance(message, Assistant) and message.tool_calls) or []]
    for name in names:
        if turn.count(name) < names.count(name):
            raise TemplateError(
                f"The model's chat template leaves out a call of {name!r} in message {position + 1}. Use a model whose "
                "template knows tool calls (several at once, where a message has several), or give it such a template."
            )


def _end_of_turn(tokenizer: Any, text: str) -> int:
    """The length of the text, without white space that follows a special token at its end."""
    stripped = text.rstrip()
    ends_with_token = any(stripped.endswith(token) for token in _special_tokens(tokenizer))
    return len(stripped) if ends_with_token else len(text)


def _special_tokens(tokenizer: Any) -> list[str]:
    return [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]


def _render(tokenizer: Any, example: ChatExample, count: int, *, add_generation_prompt: bool = False) -> str:
    """The first `count` messages as text."""
    return render_chat(
        tokenizer, example.to_template()[:count], example.tools, add_generation_prompt=add_generation_prompt
    )


def render_chat(
    tokenizer: Any,
    messages: AnySequence[Mapping[str, Any]],
    tools: AnySequence[Mapping[str, Any]] | None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Messages (as `to_template` makes them) in the model's own chat template. Raises TemplateError."""
    import jinja2

    template = str(tokenizer.chat_template)
    if _wants_arguments_as_text(tokenizer.apply_chat_template, template):
        messages = [_with_arguments_as_text(message) for message in messages]
    try:
        rendered: str = tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
        raise TemplateError(f"The model's chat template refuses the example: {error}") from error
    end = _eos(tokenizer)
    if not add_generation_prompt and _closes_with(tokenizer.apply_chat_template, template, end):
        return rendered.removesuffix(end)
    return rendered


_QUESTION = {"role": "user", "content": "x"}
_ANSWER = {"role": "assistant", "content": "y"}


@functools.lru_cache(maxsize=8)
def _closes_with(render: Any, chat_template: str, end: str) -> bool:
    """Whether the template adds the end-of-text token after the last message only (as Phi-3's does).

    It is no part of a turn: what follows a turn in a longer conversation takes its place.
    """
    once, twice = _probe(render, [_QUESTION, _ANSWER]), _probe(render, [_QUESTION, _ANSWER, _QUESTION, _ANSWER])
    if once is None or twice is None or not end or not once.endswith(end):
        return False
    return not twice.startswith(once) and twice.startswith(once.removesuffix(end))


@functools.lru_cache(maxsize=8)
def _wants_arguments_as_text(render: Any, chat_template: str) -> bool:
    """Whether the template takes the arguments of a call as JSON text (as DeepSeek's do), and not as an object."""
    call = {"type": "function", "id": "call00001", "function": {"name": "f", "arguments": {"x": "y"}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    rendered = _probe(render, [_QUESTION, message])
    if rendered is not None and "{'x': 'y'}" not in rendered:
        return False
    return '{"x":"y"}' in (_probe(render, [_QUESTION, _with_arguments_as_text(message)]) or "")


def _probe(render: Any, messages: AnySequence[Mapping[str, Any]]) -> str | None:
    """A conversation in a template; None when the template refuses it."""
    import jinja2

    try:
        rendered: str = render(list(messages), tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError):
        return None
    return rendered


def _with_arguments_as_text(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": orjson.dumps(call["function"]["arguments"]).decode()}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _eos(tokenizer: Any) -> str:
    return getattr(tokenizer, "tokenizer", tokenizer).eos_token or ""


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
