"""Passes text through a chat template and a tokenizer verbatim, by stand-ins.

Text of a message that spells a control token (`<|im_end|>`) is text: no one who writes into a conversation can end a
turn in it, or begin another's. And a number in the arguments of a call keeps its very text (`1.10`), which no parser
gives back. Each gets a stand-in before the template sees it; in the rendered text it is what it was.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_trainer.data.encode.chat_template import (
    Messages,
    TemplateError,
    keeps_inline_reasoning,
    reads_images,
    render_chat,
    text_tokenizer,
    with_known_reasoning,
)
from finetune_trainer.data.encode.token_places import PlacedTokens, placed_tokens, token_ids
from finetune_trainer.data.read.examples import ChatExample

Span = tuple[int, int]

_REASONING_TAG = re.compile(r"[<\[]/?\|?(think|thinking|thought|reasoning)\|?[>\]]", re.IGNORECASE)
"""What an assistant may write itself, as models that reason do."""
_END_OF_REASONING = "</think>"
_ODD_NUMBER = re.compile(r"\d[.eE]|\d{16}|-0")
_PRIVATE_USE = range(0xF0000, 0xFFFFE)
_LONGEST_NUMBER = 4000
"""Digits: Python's own bound is a little above."""


@dataclass(frozen=True)
class RenderedText:
    """A text with the spans (start, end) that spell control tokens but must not become any."""

    text: str
    literals: Sequence[Span] = ()


@dataclass(frozen=True)
class Restored(RenderedText):
    """`moved` says where a position of the text with stand-ins is now."""

    moved: Callable[[int], int] = field(default=lambda position: position)


@dataclass(frozen=True)
class Conversation:
    """Messages and tools as a chat template gets them, with stand-ins, and what these stand for."""

    messages: Messages
    tools: Sequence[Mapping[str, Any]] | None
    tokens: Mapping[str, str] = field(default_factory=dict)
    """A character for each control token that the texts spell."""
    markup: Mapping[str, str] = field(default_factory=dict)
    """The same for what is a token all the same, and only hidden from the template."""
    numbers: Mapping[str, str] = field(default_factory=dict)

    def restore(self, text: str) -> Restored:
        """The text without stand-ins."""
        meanings = {**self.numbers, **self.markup, **self.tokens}
        if not meanings:
            return Restored(text)
        parts: list[str] = []
        literals: list[Span] = []
        changes: list[tuple[int, int, int]] = []  # start and end in the old text, how much longer the new one is then
        done = grown = 0
        for found in re.finditer("|".join(map(re.escape, meanings)), text):
            start, end = found.span()
            meaning = meanings[found.group()]
            parts += [text[done:start], meaning]
            if found.group() in self.tokens:
                literals.append((start + grown, start + grown + len(meaning)))
            grown += len(meaning) - (end - start)
            changes.append((start, end, grown))
            done = end

        def moved(position: int) -> int:
            by = 0
            for start, end, after in changes:
                if position <= start:
                    break
                if position < end:
                    return start + by
                by = after
            return position + by

        return Restored("".join([*parts, text[done:]]), literals, moved)


def conversation_of(tokenizer: Any, example: ChatExample) -> Conversation:
    """An example as the template takes it."""
    conversation = stand_in(tokenizer, with_known_reasoning(tokenizer, example.to_template()), example.tools)
    return with_exact_numbers(conversation, example.arguments())


def stand_in(tokenizer: Any, messages: Messages, tools: Sequence[Mapping[str, Any]] | None) -> Conversation:
    """Insert stand-ins where they are needed; most conversations need none."""
    patterns = _control_tokens(tokenizer, str(tokenizer.chat_template))
    if patterns is None:
        return Conversation(messages, tools)
    spelled = set(_spelled(tools, patterns[False])) if tools else set()
    for message in messages:
        pattern, content = patterns[message["role"] == "assistant"], message["content"]
        plain = len(message) == 2 and isinstance(content, str)
        spelled.update(pattern.findall(content) if plain else _spelled(message, pattern))
    if not spelled:
        return Conversation(messages, tools)
    characters = _unused_characters(messages, tools)
    tokens = {token: next(characters) for token in sorted(spelled)}
    replaced = [
        {
            name: value if name == "role" else _replace(value, patterns[message["role"] == "assistant"], tokens)
            for name, value in message.items()
        }
        for message in messages
    ]
    return Conversation(
        replaced,
        _replace(tools, patterns[False], tokens) if tools else tools,
        tokens={character: token for token, character in tokens.items()},
    )


def with_exact_numbers(conversation: Conversation, arguments: Sequence[Sequence[str]]) -> Conversation:
    """Numbers of the calls' arguments, which a parser would change, as written. `arguments`: of each message."""
    if not any(_ODD_NUMBER.search(text) for texts in arguments for text in texts):
        return conversation
    everything = json.dumps([conversation.messages, conversation.tools], ensure_ascii=False, default=str)
    prefix = next(str(base) for base in itertools.count(7310550441) if str(base) not in everything)
    numbers: dict[str, str] = {}

    def exact(made: Callable[[str], Any], text: str) -> Any:
        if len(text) < _LONGEST_NUMBER and json.dumps(value := made(text)) == text:
            return value
        name = f"{prefix}{len(numbers):08}"
        numbers[name] = text
        return int(name)

    pattern_tokens = {token: character for character, token in conversation.tokens.items()}
    pattern = re.compile("|".join(map(re.escape, pattern_tokens))) if pattern_tokens else None
    messages = []
    for message, texts in zip(conversation.messages, arguments, strict=True):
        if any(map(_ODD_NUMBER.search, texts)):
            calls = []
            for call, text in zip(message["tool_calls"], texts, strict=True):
                parsed = json.loads(
                    text, parse_float=functools.partial(exact, float), parse_int=functools.partial(exact, int)
                )
                kept = parsed if pattern is None else _replace(parsed, pattern, pattern_tokens)
                calls.append({**call, "function": {**call["function"], "arguments": kept}})
            message = {**message, "tool_calls": calls}
        messages.append(message)
    return Conversation(messages, conversation.tools, conversation.tokens, conversation.markup, numbers)


def with_whole_reasoning(tokenizer: Any, conversation: Conversation, position: int) -> Conversation:
    """Hide from the template where a message's reasoning ends, if it would cut the reasoning off.

    Only for a message that is learned: in the history, the template's cut is what the model will see.
    """
    message = conversation.messages[position]
    content = message["content"]
    if not isinstance(content, str) or _END_OF_REASONING not in content or keeps_inline_reasoning(tokenizer):
        return conversation
    character = next(_unused_characters(conversation.messages, conversation.tools))
    messages = list(conversation.messages)
    messages[position] = {**message, "content": content.replace(_END_OF_REASONING, character)}
    markup = {character: _END_OF_REASONING}
    return Conversation(messages, conversation.tools, conversation.tokens, markup, conversation.numbers)


def encode(tokenizer: Any, rendered: RenderedText) -> PlacedTokens:
    """The tokens of a rendered conversation, and where each stands in the text. Literals become no control tokens.

    Raises TemplateError where that can't be kept.
    """
    text = rendered.text
    if not rendered.literals:
        return placed_tokens(tokenizer, text)
    anchor, anchor_id = _anchor(tokenizer)
    # Each is cut behind its first character: no piece has it whole. The pieces but the first follow a control token,
    # so that no tokenizer takes them for the start of a text.
    cuts = [0, *(start + 1 for start, _ in rendered.literals), len(text)]
    ids: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        lead = anchor if number else ""
        piece = placed_tokens(tokenizer, lead + text[start:end])
        if lead and piece.ids[:1] != [anchor_id]:
            raise TemplateError(f"The tokenizer does not read {anchor!r} as one token.")
        own = slice(1 if lead else 0, None)
        ids += piece.ids[own]
        starts += [max(first - len(lead), 0) + start for first in piece.starts[own]]
        ends += [last - len(lead) + start for last in piece.ends[own]]
    return PlacedTokens(ids, starts, ends)


def encode_ids(tokenizer: Any, rendered: RenderedText) -> list[int]:
    """The token ids alone. Raises as `encode` does."""
    return encode(tokenizer, rendered).ids if rendered.literals else token_ids(tokenizer, rendered.text)


def prompt_text(
    tokenizer: Any,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
    arguments: Sequence[Sequence[str]] | None = None,
) -> RenderedText:
    """What a model is asked with, up to where its answer begins. Raises TemplateError.

    `messages`: as OpenAI has them, but for the arguments of calls, which are objects; `arguments` are their texts, of
    each message, so that numbers stand in the history as they were said.
    """
    conversation = stand_in(tokenizer, messages, tools)
    if arguments is not None:
        conversation = with_exact_numbers(conversation, arguments)
    text = render_chat(
        tokenizer, conversation.messages, conversation.tools, add_generation_prompt=True, variables=variables
    )
    return conversation.restore(text)


def prompt_ids(
    tokenizer: Any,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
    arguments: Sequence[Sequence[str]] | None = None,
) -> list[int]:
    """The token ids of `prompt_text`: the same in training, evaluation and serving. Raises TemplateError."""
    rendered = prompt_text(tokenizer, messages, tools, variables, arguments)
    return encode_ids(text_tokenizer(tokenizer), rendered)


def refuse_literals(tokenizer: Any, rendered: RenderedText) -> None:
    """Raises TemplateError for text that spells a control token, where a processor, not we, makes the tokens of it."""
    if rendered.literals and reads_images(tokenizer):
        start, end = rendered.literals[0]
        raise TemplateError(
            f"The text has {rendered.text[start:end]!r}, which is a control token of this model. Write it another way."
        )


@functools.lru_cache(maxsize=8)
def _control_tokens(tokenizer: Any, chat_template: str) -> tuple[re.Pattern[str], re.Pattern[str]] | None:
    """What texts may not become: special tokens, and others that the template writes. First everybody's, then those of
    the assistant, who may reason and call tools in its own words."""
    added = text_tokenizer(tokenizer).added_tokens_decoder.values()
    special = {token.content for token in added if token.special}
    written = {token.content for token in added if token.content in chat_template and not token.content.isspace()}
    everybody = sorted((token for token in special | written if len(token) > 1), key=len, reverse=True)
    assistant = [token for token in everybody if token in special and not _REASONING_TAG.fullmatch(token)]
    if not everybody:
        return None
    patterns = ["|".join(map(re.escape, tokens)) or r"(?!)" for tokens in (everybody, assistant)]
    return re.compile(patterns[0]), re.compile(patterns[1])


@functools.lru_cache(maxsize=8)
def _anchor(tokenizer: Any) -> tuple[str, int]:
    """A control token that does not strip the white space next to it."""
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.special and not token.rstrip and not token.lstrip:
            return token.content, number
    raise TemplateError("The tokenizer has no special token that leaves the text beside it alone.")


def _spelled(value: Any, pattern: re.Pattern[str]) -> Iterator[str]:
    """The control tokens in all texts of a value."""
    if isinstance(value, str):
        yield from pattern.findall(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _spelled(key, pattern)
            yield from _spelled(item, pattern)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _spelled(item, pattern)


def _replace(value: Any, pattern: re.Pattern[str], characters: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(lambda found: characters[found.group()], value)
    if isinstance(value, Mapping):
        return {_replace(key, pattern, characters): _replace(item, pattern, characters) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(item, pattern, characters) for item in value]
    return value


def _unused_characters(messages: Messages, tools: Any) -> Iterator[str]:
    """Of those that Unicode gives no meaning, what the conversation does not have."""
    used = json.dumps([messages, tools], ensure_ascii=False, default=str)
    return (chr(number) for number in _PRIVATE_USE if chr(number) not in used)
