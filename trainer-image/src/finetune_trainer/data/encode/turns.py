"""The turns of the assistant in a conversation as text, for any chat template.

Finding a turn takes two renderings for each turn, of ever longer conversations. Where the template only appends, what
it writes around texts, calls and tools is a pattern of the conversation's shape: if the rendering of the whole
conversation fits it, in one way only, the turns are where they are in the pattern.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune_trainer.data.encode.chat_template import (
    TemplateError,
    header,
    render_chat,
    special_tokens,
    text_tokenizer,
)
from finetune_trainer.data.encode.placeholders import (
    Conversation,
    RenderedText,
    Span,
    conversation_of,
    with_whole_reasoning,
)
from finetune_trainer.data.read.examples import ChatExample
from finetune_trainer.data.read.messages import Assistant

PATTERNS_KEPT = 4096
LONGEST_LEAD_IN = 200  # characters that a template may put between the prompt and the assistant's text


@dataclass(frozen=True)
class RenderedChat(RenderedText):
    """A conversation as text, with the spans (start, end) of the turns that are trained on."""

    turns: Sequence[Span] = ()


def find_turns(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    """The texts of an example. Each turn of weight 1 is trained on in exactly one of them. Raises TemplateError."""
    conversation = conversation_of(tokenizer, example)
    whole = render(tokenizer, conversation, len(example.messages))
    turns = turns_by_pattern(tokenizer, example, conversation, whole)
    if turns is not None:
        return [_restored(conversation, whole, turns)]
    return _one_by_one(tokenizer, example, conversation, whole)


def find_each_turn(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    """The same, without patterns: what the patterns of shapes are made with."""
    conversation = conversation_of(tokenizer, example)
    return _one_by_one(tokenizer, example, conversation, render(tokenizer, conversation, len(example.messages)))


def render(tokenizer: Any, conversation: Conversation, count: int, *, add_generation_prompt: bool = False) -> str:
    """The first `count` messages as text."""
    return render_chat(
        tokenizer, conversation.messages[:count], conversation.tools, add_generation_prompt=add_generation_prompt
    )


def common_prefix(first: Sequence[object], second: Sequence[object]) -> int:
    """The length of the common prefix."""
    same, most = 0, min(len(first), len(second))
    while same < most:
        middle = (same + most + 1) // 2
        if first[same:middle] == second[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _one_by_one(tokenizer: Any, example: ChatExample, conversation: Conversation, whole: str) -> list[RenderedChat]:
    turns: list[tuple[Conversation, str, int, int]] = []
    for position, message in enumerate(example.messages):
        if isinstance(message, Assistant) and message.weight:
            shown = with_whole_reasoning(tokenizer, conversation, position)
            turns.append((shown, *_find_turn(tokenizer, shown, position)))
    if all(shown.markup == {} and whole.startswith(text[:end]) for shown, text, _, end in turns):
        return [_restored(conversation, whole, [(start, end) for _, _, start, end in turns])]
    return [_restored(shown, text, [(start, end)]) for shown, text, start, end in turns]


def _restored(conversation: Conversation, text: str, turns: Sequence[Span]) -> RenderedChat:
    restored = conversation.restore(text)
    moved = [(restored.moved(start), restored.moved(end)) for start, end in turns]
    return RenderedChat(restored.text, restored.literals, moved)


def _find_turn(tokenizer: Any, conversation: Conversation, position: int) -> tuple[str, int, int]:
    """The rendering up to and with a message of the assistant; where that turn starts and ends in it."""
    text = render(tokenizer, conversation, position + 1)
    if position == 0:  # no template renders a prompt of no messages
        start = _latest_start(tokenizer, conversation, position, text)
    else:
        prompt = render(tokenizer, conversation, position, add_generation_prompt=True)
        start = common_prefix(text, prompt)
        if start < len(prompt):
            latest = _latest_start(tokenizer, conversation, position, text)
            if text.startswith(render(tokenizer, conversation, position)):
                # The prompt ends with more than the answer has before it ("<think>"), and an answer may begin alike.
                start = min(start, latest)
            else:
                text, start = prompt + text[_start_of_answer(text, prompt, start, latest) :], len(prompt)
    if (begins := header(tokenizer)) and text.startswith(begins, start):
        start += len(begins)  # the prompt lacks it, as after an answer of a tool
    end = _end_of_turn(tokenizer, text)
    if start >= end:
        raise TemplateError(f"The model's chat template renders nothing of message {position + 1}.")
    return text, start, end


def _latest_start(tokenizer: Any, conversation: Conversation, position: int, text: str) -> int:
    """Where another answer would differ: the answer in the text starts there, or before."""
    messages = list(conversation.messages[:position])
    content = conversation.messages[position]["content"]
    other = "-" if not str(content).lstrip().startswith("-") else "+"
    answered = [*messages, {"role": "assistant", "content": other}]
    return common_prefix(text, render_chat(tokenizer, answered, conversation.tools))


def _start_of_answer(text: str, prompt: str, earliest: int, latest: int) -> int:
    """Where the answer starts in a text that has another history than the prompt.

    Mistral's template has the system prompt in the last question, and nowhere when an answer comes last. The answer
    starts after what the prompt ends with.
    """
    return max(
        range(max(min(earliest, latest), latest - LONGEST_LEAD_IN), latest + 1),
        key=lambda start: (common_prefix(text[:start][::-1], prompt[::-1]), start),
    )


def _end_of_turn(tokenizer: Any, text: str) -> int:
    """The length of the text, without white space that follows a special token at its end."""
    stripped = text.rstrip()
    return len(stripped) if stripped.endswith(_tokens_at_ends(text_tokenizer(tokenizer))) else len(text)


@functools.lru_cache(maxsize=8)
def _tokens_at_ends(tokenizer: Any) -> tuple[str, ...]:
    return tuple(special_tokens(tokenizer))


class _MessageShape(NamedTuple):
    """Which parts a message has. Ids and names are numbered in the order in which they come."""

    role: str
    learned: bool
    has_content: bool
    calls: tuple[tuple[int | None, int], ...] = ()
    """The id and the name of each."""
    answers: int | None = None
    """The id of the call that a tool answers."""
    name: int | None = None


@dataclass(frozen=True)
class _Slot:
    """A part of the text that differs between conversations of a shape.

    `position`: of the message whose content stands here, `escaped` as in JSON; None: calls, ids or tools.
    """

    position: int | None
    escaped: bool = False

    def known(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """What has to stand here; None: anything may."""
        if self.position is None:
            return None
        content: str = messages[self.position]["content"]
        return _in_json(content) if self.escaped else content


@dataclass(frozen=True)
class _Pattern:
    """What a template writes around the slots of conversations of a shape.

    `around`: the text before each slot, and after the last. `turns`: for each turn that is trained on, its slot, and
    how many characters of the text before and after the slot belong to it.
    """

    around: Sequence[str]
    slots: Sequence[_Slot]
    turns: Sequence[tuple[int, int, int]]

    def find(self, text: str, messages: Sequence[Mapping[str, Any]]) -> list[Span] | None:
        """The turns in a text; None: it does not fit, or in more than one way."""
        known = [slot.known(messages) for slot in self.slots]
        pieces: list[list[str]] = [[self.around[0]]]  # the text between what may be anything
        for content, after in zip(known, self.around[1:], strict=True):
            if content is None:
                pieces.append([after])
            else:
                pieces[-1] += [content, after]
        starts = _only_places(text, ["".join(piece) for piece in pieces])
        if starts is None:
            return None
        spans: list[Span] = []
        at, following = len(self.around[0]), iter(starts[1:])
        for content, after in zip(known, self.around[1:], strict=True):
            end = next(following) if content is None else at + len(content)
            spans.append((at, end))
            at = end + len(after)
        return [(spans[slot][0] - before, spans[slot][1] + after) for slot, before, after in self.turns]


def _only_places(text: str, pieces: Sequence[str]) -> list[int] | None:
    """Where the pieces stand in a text that begins with the first and ends with the last; None if that isn't certain.

    It is when the first places from the left are also the first from the right.
    """
    if len(pieces) == 1:
        return [0] if text == pieces[0] else None
    first, *middle, last = pieces
    low, high = len(first), len(text) - len(last)
    if low > high or not text.startswith(first) or not text.endswith(last):
        return None
    from_left, at = [], low
    for piece in middle:
        at = text.find(piece, at, high)
        if at == -1:
            return None
        from_left.append(at)
        at += len(piece)
    from_right, at = [], high
    for piece in reversed(middle):
        at = text.rfind(piece, low, at)
        from_right.append(at)
    return [0, *from_left, high] if from_right[::-1] == from_left else None


def turns_by_pattern(tokenizer: Any, example: ChatExample, conversation: Conversation, whole: str) -> list[Span] | None:
    """The turns in the rendering of a conversation, which `_one_by_one` would find too; None: it may find others."""
    shape = None if conversation.tokens else _shape(example, conversation)
    if shape is None:
        return None
    pattern = _pattern(tokenizer, str(tokenizer.chat_template), shape, bool(conversation.tools))
    turns = None if pattern is None else pattern.find(whole, conversation.messages)
    begins = header(tokenizer)
    return None if begins and any(whole.startswith(begins, start) for start, _ in turns or ()) else turns


def _shape(example: ChatExample, conversation: Conversation) -> tuple[_MessageShape, ...] | None:
    """None: a template may treat a part of it in its own way."""
    ids: dict[str | None, int] = {}
    names: dict[str, int] = {}
    shapes = []
    for message, given in zip(conversation.messages, example.messages, strict=True):
        content, calls, answers = message["content"], message.get("tool_calls"), message.get("tool_call_id")
        name = message.get("name") if message["role"] == "tool" else None
        parts = 2 + (calls is not None) + (answers is not None) + (name is not None)
        if not isinstance(content, str) or "think>" in content or not (content or calls) or len(message) != parts:
            return None
        numbers = tuple(
            (
                ids.setdefault(call["id"], len(ids)) if "id" in call else None,
                names.setdefault(call["function"]["name"], len(names)),
            )
            for call in calls or ()
        )
        shapes.append(
            _MessageShape(
                str(message["role"]),
                isinstance(given, Assistant) and given.weight == 1,
                bool(content),
                numbers,
                None if answers is None else ids.setdefault(answers, len(ids)),
                None if name is None else names.setdefault(name, len(names)),
            )
        )
    return tuple(shapes)


@functools.lru_cache(maxsize=PATTERNS_KEPT)
def _pattern(tokenizer: Any, chat_template: str, shape: tuple[_MessageShape, ...], has_tools: bool) -> _Pattern | None:
    """The pattern of conversations of a shape; None: there is none.

    Two conversations that have only the contents in common show what may differ.
    """
    one, other = (_marked(shape, kind, has_tools) for kind in "ab")
    learned = [place for place, message in enumerate(shape) if message.learned]
    try:
        whole = render(tokenizer, one, len(shape))
        beside = render(tokenizer, other, len(shape))
        turns = [_find_turn(tokenizer, one, place) for place in learned]
        prompts = [render(tokenizer, one, place, add_generation_prompt=True) for place in learned if place]
    except TemplateError:
        return None
    if 0 in learned or not all(map(whole.startswith, [*prompts, *(text[:end] for text, _, end in turns)])):
        return None
    contents = {place: one.messages[place]["content"] for place, message in enumerate(shape) if not message.calls}
    slots = [_Slot(place, escaped=content not in whole) for place, content in contents.items()]
    known = [slot.known(one.messages) or "" for slot in slots]
    between, also = _split(whole, known), _split(beside, known)
    if between is None or also is None:
        return None
    return _with_gaps(between, also, slots, known, [(start, end) for _, start, end in turns])


def _with_gaps(
    between: Sequence[str], also: Sequence[str], slots: Sequence[_Slot], known: Sequence[str], turns: Sequence[Span]
) -> _Pattern | None:
    """The pattern of two texts that are split at the contents, with slots also where they differ."""
    around: list[str] = []
    filled: list[_Slot] = []
    spans: list[Span] = []  # of the slots, in the first text
    at = 0
    for number, (text, other) in enumerate(zip(between, also, strict=True)):
        same = common_prefix(text, other)
        if text == other:
            around.append(text)
        else:
            ending = common_prefix(text[same:][::-1], other[same:][::-1])
            around += [text[:same], text[len(text) - ending :]]
            filled.append(_Slot(None))
            spans.append((at + same, at + len(text) - ending))
        at += len(text)
        if number < len(slots):
            filled.append(slots[number])
            spans.append((at, at + len(known[number])))
            at += len(known[number])
    found = []
    for start, end in turns:
        within = [number for number, (first, last) in enumerate(spans) if start <= first and last <= end]
        if len(within) != 1:
            return None
        (number,) = within
        before, after = spans[number][0] - start, end - spans[number][1]
        anything = filled[number].position is None
        if before > len(around[number]) or after > len(around[number + 1]) or (anything and not after):
            return None
        found.append((number, before, after))
    return _Pattern(around, filled, found)


def _split(text: str, known: Sequence[str]) -> list[str] | None:
    """What stands between the contents, each of which has to be there once, in order."""
    parts = []
    for content in known:
        before, found, text = text.partition(content)
        if not found or content in text:
            return None
        parts.append(before)
    return [*parts, text]


def _marked(shape: Sequence[_MessageShape], kind: str, has_tools: bool) -> Conversation:
    """A conversation of a shape. All but the contents of messages without calls differs by kind, from end to end."""

    def called(number: int | None) -> str:
        return f"{kind}{number:07}{kind}"  # nine letters and digits, as Mistral's templates have it

    messages = []
    for place, parts in enumerate(shape):
        # What a tool answers shows by its quotation mark whether the template writes it as JSON.
        content = f"qz{place:05}{chr(34) if parts.role == 'tool' else 'x'}zq"
        message: dict[str, Any] = {"role": parts.role, "content": content}
        if parts.calls:
            message["content"] = f"{kind}{content}{kind}" if parts.has_content else ""
            message["tool_calls"] = [
                {
                    "type": "function",
                    "function": {"name": f"{kind}n{name}{kind}", "arguments": _ARGUMENTS[kind]},
                    **({} if number is None else {"id": called(number)}),
                }
                for number, name in parts.calls
            ]
        if parts.answers is not None:
            message["tool_call_id"] = called(parts.answers)
        if parts.name is not None:
            message["name"] = f"{kind}n{parts.name}{kind}"
        messages.append(message)
    return Conversation(messages, _TOOLS[kind] if has_tools else None)


_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {"a": {"ax": "av"}, "b": {"bx": 1}}
_PARAMETERS = {"type": "object", "properties": {"ap": {"type": "string", "description": "x"}}, "required": ["ap"]}
_TOOLS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "a": [{"type": "function", "function": {"name": "an", "description": "ad", "parameters": _PARAMETERS}}],
    "b": [
        {
            "function": {"parameters": {"properties": {}, "type": "object"}, "description": "bd", "name": "bn"},
            "type": "function",
        }
    ],
}


def _in_json(text: str) -> str:
    """As chat templates' `tojson` writes it, without the quotation marks."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
