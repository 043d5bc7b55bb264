"""Conversations as text, by the model's own chat template; where in it the turns stand that are learned.

The chat template is only asked to render text, so any template will do; it needs no `generation` markers.
The assistant's turn is what the rendering of the conversation up to and with it has more than the prompt that
would have asked for it. It ends with the end-of-turn token, so that the model learns to stop.

Most templates only ever append: then one text has every turn of the assistant. Some rewrite earlier turns when later
ones come (drop their reasoning, say): then each turn gets a text of its own, with the history that the model will see
when it is asked for that turn.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from finetune_trainer.data.examples import Assistant, ChatExample

LONGEST_LEAD_IN = 200  # characters that a template may put between the prompt and the assistant's text


class TemplateError(ValueError):
    """The chat template refuses an example, or renders no turn of the assistant."""


@dataclass(frozen=True)
class RenderedChat:
    """A conversation as text, and the spans (start, end) of the turns in it that are learned."""

    text: str
    turns: list[tuple[int, int]]


def render_turns(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    """The texts of an example; every turn of a weight other than 0 is learned in one of them. Raises TemplateError."""
    whole = render(tokenizer, example, len(example.messages))
    turns: list[tuple[str, int, int]] = []
    for position, message in enumerate(example.messages):
        if isinstance(message, Assistant) and message.weight:
            turns.append(_find_turn(tokenizer, example, position))
    if all(whole.startswith(text[:end]) for text, _, end in turns):
        return [RenderedChat(whole, [(start, end) for _, start, end in turns])]
    return [RenderedChat(text, [(start, end)]) for text, start, end in turns]


def _find_turn(tokenizer: Any, example: ChatExample, position: int) -> tuple[str, int, int]:
    """The rendering up to and with a message of the assistant; where that turn starts and ends in it."""
    text = render(tokenizer, example, position + 1)
    prompt = render(tokenizer, example, position, add_generation_prompt=True)
    start = common_prefix(text, prompt)
    if start < len(prompt):
        latest = _latest_start(tokenizer, example, position, text)
        if text.startswith(render(tokenizer, example, position)):
            # The prompt ends with more than the answer has before it ("<think>"), and an answer may begin alike.
            start = min(start, latest)
        else:
            text, start = prompt + text[_start_of_answer(text, prompt, latest) :], len(prompt)
    end = _end_of_turn(tokenizer, text)
    if start >= end:
        raise TemplateError(f"The chat template renders nothing of message {position + 1}.")
    _refuse_lost_calls(example, position, text[start:end])
    return text, start, end


def _latest_start(tokenizer: Any, example: ChatExample, position: int, text: str) -> int:
    """Where another answer would differ: the answer in the text starts there, or before."""
    messages = example.to_template()[:position]
    other = "-" if not example.to_template()[position]["content"].lstrip().startswith("-") else "+"
    return common_prefix(
        text, render_chat(tokenizer, [*messages, {"role": "assistant", "content": other}], example.tools)
    )


def _start_of_answer(text: str, prompt: str, latest: int) -> int:
    """Where the answer starts in a text that has another history than the prompt.

    Mistral's template has the system prompt in the last question, and nowhere when an answer comes last. The answer
    starts after what the prompt ends with.
    """
    return max(
        range(max(0, latest - LONGEST_LEAD_IN), latest + 1),
        key=lambda start: (common_prefix(reversed(text[:start]), reversed(prompt)), start),
    )


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
    ends_with_token = any(stripped.endswith(token) for token in special_tokens(text_tokenizer(tokenizer)))
    return len(stripped) if ends_with_token else len(text)


def special_tokens(tokenizer: Any) -> list[str]:
    """Those of the model, and those that were added for its chat template."""
    return [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]


def render(tokenizer: Any, example: ChatExample, count: int, *, add_generation_prompt: bool = False) -> str:
    """The first `count` messages as text."""
    return render_chat(
        tokenizer, example.to_template()[:count], example.tools, add_generation_prompt=add_generation_prompt
    )


def render_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Messages (as `to_template` makes them) in the model's own chat template. Raises TemplateError."""
    import jinja2

    try:
        rendered: str = tokenizer.apply_chat_template(
            _as_the_template_takes(tokenizer, messages),
            tools=list(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
        raise TemplateError(f"The model's chat template refuses the example: {error}") from error
    if not add_generation_prompt and _adds_end_of_text(tokenizer, str(tokenizer.chat_template)):
        return rendered.removesuffix(text_tokenizer(tokenizer).eos_token)
    return rendered


def encode_question(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any],
) -> list[int]:
    """Token ids of messages without images, and of what asks the assistant for the next one.

    Content is text: a control token that stands in a message or a tool is encoded as the characters that it has.
    `variables` are the chat template's own. Raises whatever the template raises, and ValueError where the tokenizer
    can't keep a control token apart from text.
    """
    encoded = text_tokenizer(tokenizer).apply_chat_template(
        _as_the_template_takes(tokenizer, messages),
        tools=list(tools) if tools else None,
        chat_template=tokenizer.chat_template,
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=False,
        **variables,
    )
    return list(encoded)


def _as_the_template_takes(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if _wants_arguments_as_text(tokenizer, str(tokenizer.chat_template)):
        messages = [_with_arguments_as_text(message) for message in messages]
    if reads_images(tokenizer):
        messages = [_in_parts(message) for message in messages]
    return list(messages)


def reads_images(tokenizer: Any) -> bool:
    """Whether this is the processor of a vision-language model, which holds its tokenizer."""
    return hasattr(tokenizer, "image_processor")


def text_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer, or that of a vision-language model's processor."""
    return getattr(tokenizer, "tokenizer", tokenizer)


_QUESTION = {"role": "user", "content": "x"}
_ANSWER = {"role": "assistant", "content": "y"}


@functools.lru_cache(maxsize=8)
def _adds_end_of_text(tokenizer: Any, chat_template: str) -> bool:
    """Whether the template adds the end-of-text token after the last message only (as Phi-3's does).

    It is no part of a turn: what follows a turn in a longer conversation takes its place.
    """
    end = text_tokenizer(tokenizer).eos_token or ""
    once, twice = _probe(tokenizer, [_QUESTION, _ANSWER]), _probe(tokenizer, [_QUESTION, _ANSWER, _QUESTION, _ANSWER])
    if once is None or twice is None or not end or not once.endswith(end):
        return False
    return not twice.startswith(once) and twice.startswith(once.removesuffix(end))


@functools.lru_cache(maxsize=8)
def _wants_arguments_as_text(tokenizer: Any, chat_template: str) -> bool:
    """Whether the template takes the arguments of a call as JSON text (as DeepSeek's do), and not as an object."""
    call = {"type": "function", "id": "call00001", "function": {"name": "f", "arguments": {"x": "y"}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    rendered = _probe(tokenizer, [_QUESTION, message])
    if rendered is not None and "{'x': 'y'}" not in rendered:
        return False
    return '{"x":"y"}' in (_probe(tokenizer, [_QUESTION, _with_arguments_as_text(message)]) or "")


def _probe(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """A conversation in the template; None when the template refuses it."""
    import jinja2

    if reads_images(tokenizer):
        messages = [_in_parts(message) for message in messages]
    try:
        rendered: str = tokenizer.apply_chat_template(list(messages), tokenize=False)
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


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The templates of vision-language models take every content as a list of parts."""
    content = message["content"]
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def common_prefix(first: Iterable[object], second: Iterable[object]) -> int:
    """How long the two are the same from the start."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
