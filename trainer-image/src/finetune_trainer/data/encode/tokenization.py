"""Tokenizes conversations and completions: loss is on the assistant's tokens, and on the prompt's if it is marked.

The chat template is only asked to render text, so any template will do; it needs no `generation` markers.
The assistant's turn is what the rendering of the conversation up to and with it has more than the prompt that
would have asked for it. It ends with the end-of-turn token, so that the model learns to stop.

Most templates only ever append: then one text has every turn of the assistant. Some rewrite earlier turns when later
ones come (drop their reasoning, say): then each turn gets a text of its own, with the history that the model will see
when it is asked for that turn.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from finetune_trainer.data.encode import dropped_content
from finetune_trainer.data.encode.chat_template import TemplateError
from finetune_trainer.data.encode.placeholders import (
    RenderedText,
    conversation_of,
    encode,
    refuse_literals,
    with_whole_reasoning,
)
from finetune_trainer.data.encode.template_limits import limited
from finetune_trainer.data.encode.token_places import token_ids
from finetune_trainer.data.encode.turns import (
    RenderedChat,
    common_prefix,
    find_each_turn,
    find_turns,
    render,
)
from finetune_trainer.data.read.examples import ChatExample, CompletionExample
from finetune_trainer.data.read.messages import Assistant, Messages

IGNORED = -100
"""The label of a token without loss, as torch's cross entropy has it."""
PROMPT_MARK = -1000
"""Less than every label of torch and TRL. A prompt token with loss has the label PROMPT_MARK - token: not a token, nor
IGNORED, so it passes through packing, padding and truncation as any label does; methods/sft_trainer.py reads it."""


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


def render_turns(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    """The texts of an example. Each turn of weight 1 is trained on in exactly one of them.

    Raises TemplateError, also when the template leaves a part of the example out.
    """
    with limited(len(example.messages)):
        dropped_content.refuse_lost(tokenizer, example, find_each_turn)
        rendered = find_turns(tokenizer, example)
    for text in rendered:
        refuse_literals(tokenizer, text)
    return rendered


def refuse_lost_of_prompt(tokenizer: Any, messages: Messages, tools: list[dict[str, Any]] | None) -> None:
    """Raises TemplateError when the template leaves out a part of what the model is asked."""
    given = [replace(message, weight=0) if isinstance(message, Assistant) else message for message in messages]
    dropped_content.refuse_lost(tokenizer, ChatExample([*given, Assistant(content="x")], tools), find_each_turn)


def render_answers(tokenizer: Any, prompt: int, conversations: Sequence[ChatExample]) -> list[RenderedText]:
    """The texts of a prompt of so many messages, and of conversations that begin with it. Raises TemplateError."""
    with limited(sum(len(conversation.messages) for conversation in conversations)):
        for conversation in conversations:
            dropped_content.refuse_lost(tokenizer, conversation, _render_whole)
        asked = conversation_of(tokenizer, conversations[0])
        text = render(tokenizer, asked, prompt, add_generation_prompt=True)
        return [asked.restore(text), *(_render_whole(tokenizer, one)[0] for one in conversations)]


def _render_whole(tokenizer: Any, example: ChatExample) -> list[RenderedChat]:
    """All messages, with the spans of those after the prompt."""
    last = len(example.messages) - 1
    conversation = with_whole_reasoning(tokenizer, conversation_of(tokenizer, example), last)
    restored = conversation.restore(render(tokenizer, conversation, last + 1))
    return [RenderedChat(restored.text, restored.literals, [(0, len(restored.text))])]
