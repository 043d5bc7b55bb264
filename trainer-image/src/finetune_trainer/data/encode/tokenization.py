"""Tokenizes conversations and completions: loss is on the assistant's tokens, and on the prompt's if it is marked.

The chat template is only asked to render text, so any template will do; it needs no `generation` markers.
The assistant's turn is what the rendering of the conversation up to and with it has more than the prompt that
would have asked for it. It ends with the end-of-turn token, so that the model learns to stop.

Most templates only ever append: then one text has every turn of the assistant. Some rewrite earlier turns when later
ones come (drop their reasoning, say): then each turn gets a text of its own, with the history that the model will see
when it is asked for that turn.

That takes two renderings for each turn, of ever longer conversations. Where a conversation is plain text and the
template only appends, the renderings of one with the same roles are a pattern: if the whole conversation fits it, the
turns are where they are in the pattern.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from finetune_trainer.data.encode import dropped_content
from finetune_trainer.data.encode.chat_template import (
    TemplateError,
    header,
    render_chat,
    special_tokens,
    text_tokenizer,
    with_known_reasoning,
)
from finetune_trainer.data.encode.placeholders import (
    Conversation,
    RenderedText,
    Span,
    encode,
    refuse_literals,
    stand_in,
    with_exact_numbers,
    with_whole_reasoning,
)
from finetune_trainer.data.encode.template_limits import limited
from finetune_trainer.data.encode.token_places import token_ids
from finetune_trainer.data.read.examples import ChatExample, CompletionExample
from finetune_trainer.data.read.messages import Assistant, Messages

IGNORED = -100
"""The label of a token without loss, as torch's cross entropy has it."""
PROMPT_MARK = -1000
"""Less than every label of torch and TRL. A prompt token with loss has the label PROMPT_MARK - token: not a token, nor
IGNORED, so it passes through packing, padding and truncation as any label does; methods/sft_trainer.py reads it."""
PATTERNS_KEPT = 4096
LONGEST_LEAD_IN = 200  # characters that a template may put between the prompt and the assistant's text


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids and labels of equal length.

    A label is the token itself where the assistant's loss is, PROMPT_MARK - token where the prompt's is
    (add_prompt_loss), else IGNORED.
    """

    input_ids: list[int]
    labels: list[int]
    images_end: int = 0
    """Where the last image's tokens end: a sequence can't be cut before."""
    spells_tokens: bool = False
    """Whether a text of the example spells a control token, which it is not."""
    room: int = 0
    """Tokens that the model may write after it: within maxLength, too."""

    @property
    def length(self) -> int:
        """The most tokens that it has in training."""
        return len(self.input_ids) + self.room


def tokenize(tokenizer: Any, example: ChatExample | CompletionExample) -> list[TokenizedExample]:
    """The sequences of an example of text, not truncated; vision.py has those with images. Raises TemplateError."""
    if isinstance(example, CompletionExample):
        return [_tokenize_completion(tokenizer, example)]
    if example.has_images:
        raise TemplateError("The example has images, and the model reads only text.")
    return [_tokenize_masked(tokenizer, rendered) for rendered in render_turns(tokenizer, example)]


def add_prompt_loss(
    tokenizer: Any, example: ChatExample | CompletionExample, sequences: list[TokenizedExample]
) -> list[TokenizedExample]:
    """The sequences that `tokenize` made of an example, with the prompt's tokens marked: all before the last token with
    loss that are not the assistant's. Its messages of weight 0 have no loss and are not marked either."""
    unweighted = _unweighted_positions(tokenizer, example, sequences)
    return [_with_prompt_loss(sequence, positions) for sequence, positions in zip(sequences, unweighted, strict=True)]


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
    input_ids = token_ids(tokenizer, example.prompt + completion, add_special_tokens=True)
    prompt_ids = token_ids(tokenizer, example.prompt, add_special_tokens=True)
    start = common_prefix(input_ids, prompt_ids)
    return TokenizedExample(input_ids, [IGNORED] * start + input_ids[start:])


def _tokenize_masked(tokenizer: Any, rendered: RenderedChat) -> TokenizedExample:
    """Tokenize the text, and mask all but the assistant's turns.

    A token that is partly in a turn carries loss: a first word may merge with a space.
    """
    tokens = encode(tokenizer, rendered)
    labels = [IGNORED] * len(tokens.ids)
    for start, end in rendered.turns:
        here = slice(bisect_right(tokens.ends, start), bisect_left(tokens.starts, end))
        labels[here] = tokens.ids[here]
    return TokenizedExample(tokens.ids, labels, spells_tokens=bool(rendered.literals))


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


def _with_prompt_loss(sequence: TokenizedExample, unweighted: frozenset[int]) -> TokenizedExample:
    last = max((place for place, label in enumerate(sequence.labels) if label != IGNORED), default=0)
    labels = [
        PROMPT_MARK - token if label == IGNORED and place < last and place not in unweighted else label
        for place, (token, label) in enumerate(zip(sequence.input_ids, sequence.labels, strict=True))
    ]
    return TokenizedExample(sequence.input_ids, labels)


@dataclass(frozen=True)
class RenderedChat(RenderedText):
    """A conversation as text, with the spans (start, end) of the turns that are trained on."""

    turns: Sequence[Span] = ()


def render_turns(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    """The texts of an example. Each turn of weight 1 is trained on in exactly one of them.

    Raises TemplateError, also when the template leaves a part of the example out.
    """
    with limited(len(example.messages)):
        dropped_content.refuse_lost(tokenizer, example, _render_turns)
        rendered = _render_by_pattern(tokenizer, example) or _render_turns(tokenizer, example)
    for text in rendered:
        refuse_literals(tokenizer, text)
    return rendered


def refuse_lost_of_prompt(tokenizer: Any, messages: Messages, tools: list[dict[str, Any]] | None) -> None:
    """Raises TemplateError when the template leaves out a part of what the model is asked."""
    given = [replace(message, weight=0) if isinstance(message, Assistant) else message for message in messages]
    dropped_content.refuse_lost(tokenizer, ChatExample([*given, Assistant(content="x")], tools), _render_turns)


def render_answers(tokenizer: Any, prompt: int, conversations: Sequence[ChatExample]) -> list[RenderedText]:
    """The texts of a prompt of so many messages, and of conversations that begin with it. Raises TemplateError."""
    with limited(sum(len(conversation.messages) for conversation in conversations)):
        for conversation in conversations:
            dropped_content.refuse_lost(tokenizer, conversation, _render_whole)
        asked = conversation_of(tokenizer, conversations[0])
        text = _render(tokenizer, asked, prompt, add_generation_prompt=True)
        return [asked.restore(text), *(_render_whole(tokenizer, one)[0] for one in conversations)]


def conversation_of(tokenizer: Any, example: ChatExample) -> Conversation:
    """An example as the template takes it."""
    conversation = stand_in(tokenizer, with_known_reasoning(tokenizer, example.to_template()), example.tools)
    return with_exact_numbers(conversation, example.arguments())


def _render_whole(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    """All messages, with the spans of those after the prompt."""
    last = len(example.messages) - 1
    conversation = with_whole_reasoning(tokenizer, conversation_of(tokenizer, example), last)
    restored = conversation.restore(_render(tokenizer, conversation, last + 1))
    return [RenderedChat(restored.text, restored.literals, [(0, len(restored.text))])]


@dataclass(frozen=True)
class _Pattern:
    """What a template writes around the contents of conversations with the same roles.

    `around`: the text before each message's content, and after the last. `turns`: for each turn that is trained on, its
    message, and how many characters of the text before and after the content belong to it.
    """

    around: Sequence[str]
    turns: Sequence[tuple[int, int, int]]

    def fill(self, contents: Sequence[str]) -> RenderedChat:
        """The text and the spans of a conversation with these contents."""
        parts, ends, length = [self.around[0]], [], len(self.around[0])
        for content, after in zip(contents, self.around[1:], strict=True):
            parts += [content, after]
            ends.append(length + len(content))
            length += len(content) + len(after)
        turns = [
            (ends[position] - len(contents[position]) - before, ends[position] + after)
            for position, before, after in self.turns
        ]
        return RenderedChat("".join(parts), turns=turns)


def _render_by_pattern(tokenizer: Any, example: ChatExample) -> list[RenderedChat] | None:
    """What `_render_turns` makes of a conversation, with one rendering; None: it may be something else."""
    messages = example.to_template()
    if example.tools or not all(map(_is_plain, messages)):
        return None
    roles = tuple(
        (str(made["role"]), not isinstance(message, Assistant) or message.weight == 1)
        for made, message in zip(messages, example.messages, strict=True)
    )
    pattern = _pattern(tokenizer, str(tokenizer.chat_template), roles)
    if pattern is None or stand_in(tokenizer, messages, None).tokens:
        return None
    filled = pattern.fill([message["content"] for message in messages])
    return [filled] if filled.text == render_chat(tokenizer, messages, None) else None


def _is_plain(message: Mapping[str, Any]) -> bool:
    """Whether a message is nothing but text, in which a template finds no reasoning to treat in its own way."""
    content = message["content"]
    return len(message) == 2 and isinstance(content, str) and bool(content) and "think>" not in content


@functools.lru_cache(maxsize=PATTERNS_KEPT)
def _pattern(tokenizer: Any, chat_template: str, roles: tuple[tuple[str, bool], ...]) -> _Pattern | None:
    """The pattern of conversations with these roles, and whether each message is trained on; None: there is none."""
    contents = [f"qz{place:05}zq" for place in range(len(roles))]
    conversation = Conversation(
        [{"role": role, "content": content} for (role, _), content in zip(roles, contents, strict=True)], None
    )
    learned = [place for place, (role, trains) in enumerate(roles) if role == "assistant" and trains]
    try:
        whole = _render(tokenizer, conversation, len(roles))
        turns = [_find_turn(tokenizer, conversation, place) for place in learned]
        prompts = [_render(tokenizer, conversation, place, add_generation_prompt=True) for place in learned if place]
    except TemplateError:
        return None
    places = [whole.find(content) for content in contents]
    only_appends = all(map(whole.startswith, [*prompts, *(text[:end] for text, _, end in turns)]))
    if 0 in learned or not only_appends or -1 in places or places != sorted(places):
        return None
    ends = [place + len(content) for place, content in zip(places, contents, strict=True)]
    bounds = list(itertools.pairwise([0, *itertools.chain(*zip(places, ends, strict=True)), len(whole)]))
    around = [whole[start:end] for start, end in bounds[::2]]
    found = [
        (place, places[place] - start, end - ends[place]) for place, (_, start, end) in zip(learned, turns, strict=True)
    ]
    held = all(0 <= before <= len(around[at]) and 0 <= after <= len(around[at + 1]) for at, before, after in found)
    return _Pattern(around, found) if held and len("".join(around)) == len(whole) - sum(map(len, contents)) else None


def _render_turns(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    conversation = conversation_of(tokenizer, example)
    whole = _render(tokenizer, conversation, len(example.messages))
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
    text = _render(tokenizer, conversation, position + 1)
    if position == 0:  # no template renders a prompt of no messages
        start = _latest_start(tokenizer, conversation, position, text)
    else:
        prompt = _render(tokenizer, conversation, position, add_generation_prompt=True)
        start = common_prefix(text, prompt)
        if start < len(prompt):
            latest = _latest_start(tokenizer, conversation, position, text)
            if text.startswith(_render(tokenizer, conversation, position)):
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


def _render(tokenizer: Any, conversation: Conversation, count: int, *, add_generation_prompt: bool = False) -> str:
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
