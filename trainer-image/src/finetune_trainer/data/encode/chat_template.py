"""Renders the model's chat template. It is untrusted code: time and memory are limited.

Templates differ in what they take: arguments of calls as objects or as text, contents as text or in parts, the role
`developer` or only `system`, reasoning under one key or another. Small conversations, rendered once, show which.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from finetune_trainer.data.encode.template_limits import TemplateLimitError, limited

Messages = Sequence[Mapping[str, Any]]

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""What templates call the reasoning of a message; to_template writes the first."""
_NOW: ContextVar[datetime | None] = ContextVar("now", default=None)


class TemplateError(ValueError):
    """The chat template refuses an example, leaves a part of it out, or renders no turn of the assistant."""


@contextmanager
def template_clock(now: datetime) -> Iterator[None]:
    """Set the time that templates print (Llama 3.2's), so that a run's tokens are the same every day."""
    before = _NOW.set(now)
    try:
        yield
    finally:
        _NOW.reset(before)


def render_chat(
    tokenizer: Any,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    add_generation_prompt: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Messages (as `to_template` makes them) in the model's own chat template. Raises TemplateError.

    `variables`: what else the template may read, such as enable_thinking.
    """
    template = str(tokenizer.chat_template)
    if _wants_arguments_as_text(tokenizer, template):
        messages = [_with_arguments_as_text(message) for message in messages]
    if any(message["role"] == "developer" for message in messages) and not _knows_developer(tokenizer, template):
        messages = [{**one, "role": "system"} if one["role"] == "developer" else one for one in messages]
    messages = with_known_reasoning(tokenizer, messages)
    try:
        rendered = _apply(tokenizer, messages, tools, add_generation_prompt=add_generation_prompt, variables=variables)
    except _refusals() as error:
        raise TemplateError(f"The model's chat template refuses the example: {error}") from error
    if not add_generation_prompt and _adds_end_of_text(tokenizer, template):
        return rendered.removesuffix(text_tokenizer(tokenizer).eos_token)
    return rendered


def with_known_reasoning(tokenizer: Any, messages: Messages) -> Messages:
    """Put the assistant's reasoning where the template reads it: under its key, or in the content between tags."""
    template = str(tokenizer.chat_template)
    if any(REASONING_KEYS[0] in message for message in messages):
        key = _reasoning_key(tokenizer, template)
        return [_with_reasoning_as(key, message) for message in messages]
    if any(_INLINE.match(str(one["content"])) for one in messages if one["role"] == "assistant"):
        key = _reasoning_key(tokenizer, template)
        if key is not None and not _parses_inline_reasoning(tokenizer, template):
            return [_with_reasoning_apart(key, message) for message in messages]
    return messages


def reads_images(tokenizer: Any) -> bool:
    """Whether this is the processor of a vision-language model, which holds its tokenizer."""
    return hasattr(tokenizer, "image_processor")


def text_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer, or that of a vision-language model's processor."""
    return getattr(tokenizer, "tokenizer", tokenizer)


def special_tokens(tokenizer: Any) -> list[str]:
    """The special tokens of the model, and those added for its chat template."""
    return [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]


def keeps_inline_reasoning(tokenizer: Any) -> bool:
    """Whether `<think>...</think>` in the content of the last message is rendered; DeepSeek R1's template cuts it."""
    return _keeps_inline_reasoning(tokenizer, str(tokenizer.chat_template))


def keeps_name(tokenizer: Any, role: str) -> bool:
    """Whether the `name` of a role's message is rendered, as few templates have it."""
    return _keeps_name(tokenizer, str(tokenizer.chat_template), role)


def header(tokenizer: Any) -> str:
    """The start of the assistant's turn that a generation prompt adds, which is not the assistant's text."""
    return _header(tokenizer, str(tokenizer.chat_template))


_QUESTION = {"role": "user", "content": "x"}
_ANSWER = {"role": "assistant", "content": "y"}
_MARK = "qzmark"
_INLINE = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>\s*(?P<content>.*)", re.DOTALL)


def _apply(
    tokenizer: Any,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    if _wants_parts(tokenizer, str(tokenizer.chat_template)):
        messages = [_in_parts(message) for message in messages]
    return _call(tokenizer, messages, tools, add_generation_prompt=add_generation_prompt, variables=variables)


def _call(
    tokenizer: Any,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    now = _NOW.get()
    clock = {} if now is None else {"strftime_now": now.strftime}
    with limited():
        rendered: str = tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **clock,
            **(variables or {}),
        )
    return rendered


def _refusals() -> tuple[type[Exception], ...]:
    """The exceptions with which a chat template refuses an example."""
    import jinja2

    return (
        jinja2.TemplateError,
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RecursionError,
    )


def _probe(tokenizer: Any, messages: Messages) -> str | None:
    """A rendered conversation; None when the template refuses it."""
    try:
        return _apply(tokenizer, messages)
    except TemplateLimitError:
        raise
    except _refusals():
        return None


@functools.lru_cache(maxsize=8)
def _adds_end_of_text(tokenizer: Any, chat_template: str) -> bool:
    """Whether the template adds the end-of-text token after the last message only (as Phi-3's does).

    It is not part of a turn: what follows a turn in a longer conversation takes its place.
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


@functools.lru_cache(maxsize=8)
def _header(tokenizer: Any, chat_template: str) -> str:
    """The text of a generation prompt after the question: the start of the assistant's turn."""
    asked = _probe(tokenizer, [_QUESTION])
    try:
        prompt = _apply(tokenizer, [_QUESTION], add_generation_prompt=True)
    except _refusals():
        return ""
    return prompt[len(asked) :] if asked and prompt.startswith(asked) else ""


@functools.lru_cache(maxsize=8)
def _knows_developer(tokenizer: Any, chat_template: str) -> bool:
    """Whether what a message of the role `developer` says is rendered; as most know only `system`."""
    rendered = _probe(tokenizer, [{"role": "developer", "content": _MARK}, _QUESTION, _ANSWER])
    return rendered is not None and _MARK in rendered


@functools.lru_cache(maxsize=8)
def _reasoning_key(tokenizer: Any, chat_template: str) -> str | None:
    """Under which key the template reads the reasoning of the last message; None: it knows none of them."""
    for key in REASONING_KEYS:
        rendered = _probe(tokenizer, [_QUESTION, {**_ANSWER, key: _MARK}])
        if rendered is not None and _MARK in rendered:
            return key
    return None


@functools.lru_cache(maxsize=8)
def _parses_inline_reasoning(tokenizer: Any, chat_template: str) -> bool:
    """Whether the template itself takes `<think>...</think>` out of a content for reasoning."""
    key = _reasoning_key(tokenizer, chat_template)
    under_key = _probe(tokenizer, [_QUESTION, {**_ANSWER, str(key): _MARK}])
    inline = _probe(tokenizer, [_QUESTION, {**_ANSWER, "content": f"<think>\n{_MARK}\n</think>\n\ny"}])
    return under_key is not None and inline is not None and inline.count("</think>") <= under_key.count("</think>")


@functools.lru_cache(maxsize=8)
def _wants_parts(tokenizer: Any, chat_template: str) -> bool:
    """Whether contents must be lists of parts, as the templates of vision-language models have them."""
    if reads_images(tokenizer):
        return True
    as_text = _try(tokenizer, [{**_QUESTION, "content": _MARK}])
    return _MARK not in as_text and _MARK in _try(tokenizer, [_in_parts({**_QUESTION, "content": _MARK})])


def _try(tokenizer: Any, messages: Messages) -> str:
    try:
        return _call(tokenizer, messages)
    except _refusals():
        return ""


@functools.lru_cache(maxsize=8)
def _keeps_inline_reasoning(tokenizer: Any, chat_template: str) -> bool:
    rendered = _probe(tokenizer, [_QUESTION, {**_ANSWER, "content": f"<think>\n{_MARK}\n</think>\n\ny"}])
    return rendered is None or _MARK in rendered


@functools.lru_cache(maxsize=64)
def _keeps_name(tokenizer: Any, chat_template: str, role: str) -> bool:
    asked, answered = ({**one, "name": _MARK} if one["role"] == role else one for one in (_QUESTION, _ANSWER))
    other = [] if role in ("user", "assistant") else [{"role": role, "content": "x", "name": _MARK}]
    rendered = _probe(tokenizer, [*other, asked, answered])
    return rendered is None or _MARK in rendered


def _with_reasoning_as(key: str | None, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Reasoning under the template's key; in the content, as models write it, where the template knows no key."""
    reasoning = message.get(REASONING_KEYS[0])
    if reasoning is None or key == REASONING_KEYS[0]:
        return message
    rest = {name: value for name, value in message.items() if name != REASONING_KEYS[0]}
    if key is not None:
        return {**rest, key: reasoning}
    return {**rest, "content": f"<think>\n{reasoning}\n</think>\n\n{message['content']}"}


def _with_reasoning_apart(key: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Reasoning in the content, under the template's key."""
    found = _INLINE.match(str(message["content"])) if message["role"] == "assistant" else None
    if found is None:
        return message
    return {**message, key: found["reasoning"].strip("\n"), "content": found["content"]}


def _with_arguments_as_text(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _compact(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The templates of vision-language models take every content as a list of parts."""
    content = message["content"]
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message
