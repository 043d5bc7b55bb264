"""The tokens that carry loss, decoded, are exactly what the assistant says and its end of turn, in any template."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from hypothesis import example as shown_example
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import chat_template_utils

from finetune_trainer.data.encode.chat_template import TemplateError
from finetune_trainer.data.encode.tokenization import (
    IGNORED,
    TokenizedExample,
    has_loss,
    tokenize,
)
from finetune_trainer.data.read.examples import ChatExample, CompletionExample, PreferenceExample
from finetune_trainer.data.read.messages import Assistant, Function, ImagePart, ImageUrl, System, Tool, ToolCall, User
from finetune_trainer.methods.dpo import tokenize_pair
from tests.unit.trainer.data.encode.chat_templates import (
    CHATML,
    CHATML_MARKED,
    FAMILIES,
    PLAIN,
    SPECIAL_TOKENS,
    Calls,
    Family,
    call_id,
    make_tokenizer,
    to_json,
)

# As Qwen3: an empty thought before the last answer, none before the earlier ones.
REWRITING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def example(*turns: tuple[str, str, int]) -> ChatExample:
    """From (question, answer, weight of the answer)."""
    messages: list[User | Assistant] = []
    for question, answer, weight in turns:
        messages += [User(content=question), Assistant(content=answer, weight=1 if weight else 0)]
    return ChatExample([*messages])


def learned(tokenizer: Any, sequence: TokenizedExample) -> list[str]:
    """Each run of tokens with loss, decoded."""
    runs = groupby(sequence.labels, key=lambda label: label != IGNORED)
    return [tokenizer.decode(list(labels)) for has_loss, labels in runs if has_loss]


def all_learned(tokenizer: Any, conversation: ChatExample) -> list[str]:
    """The same of every sequence of an example."""
    return [text for sequence in tokenize(tokenizer, conversation) for text in learned(tokenizer, sequence)]


def calling(calls: Calls, text: str | None = None) -> list[Assistant | Tool]:
    """A message that calls tools, and what they answer."""
    ids = [call_id(number) for number in range(len(calls))]
    made = [ToolCall(Function(name, to_json(given)), id=id) for (name, given), id in zip(calls, ids, strict=True)]
    return [Assistant(content=text, tool_calls=made), *(Tool(content='"4"', tool_call_id=id) for id in ids)]


TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}
    for name in ("add", "look_up")
]
WITH_CALLS = sorted(name for name, family in FAMILIES.items() if family.calls)
WITHOUT_CALLS = ["Llama 3", "Phi 3", "DeepSeek R1"]  # their templates leave calls out without a word


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_answer_and_nothing_else_is_learned(tokenizer: Any, family: Family) -> None:
    tokenizer.chat_template = family.template
    conversation = example(("What is two and two?", "It is four.", 1), ("How are you?", "Hello, I am 4.", 1))
    expected = [family.answer.format("It is four."), family.answer.format("Hello, I am 4.")]
    assert all_learned(tokenizer, conversation) == expected


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_an_answer_of_weight_0_is_context_only(tokenizer: Any, family: Family) -> None:
    tokenizer.chat_template = family.template
    (sequence,) = tokenize(tokenizer, example(("two?", "It is five.", 0), ("two?", "It is four.", 1)))
    assert learned(tokenizer, sequence) == [family.answer.format("It is four.")]
    assert "It is five." in tokenizer.decode(sequence.input_ids)


@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls_are_learned_and_what_tools_answer_is_not(tokenizer: Any, name: str) -> None:
    family = FAMILIES[name]
    assert family.calls is not None
    tokenizer.chat_template = family.template
    calls = [("add", {"a": 2, "b": {"c": ["é"]}}), ("look_up", {})][: 2 if family.several_calls else 1]
    tools = TOOLS if family.tools else None
    conversation = ChatExample([User(content="two?"), *calling(calls), Assistant(content="It is four.")], tools)
    assert all_learned(tokenizer, conversation) == [family.calls(calls), family.answer.format("It is four.")]


@pytest.mark.parametrize("name", WITHOUT_CALLS)
def test_a_template_that_leaves_calls_out_is_reported(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = FAMILIES[name].template
    conversation = ChatExample([User(content="two?"), *calling([("add", {"a": 2})]), Assistant(content="4")], TOOLS)
    with pytest.raises(TemplateError, match="leaves out a call of 'add' in message 2"):
        tokenize(tokenizer, conversation)


def test_a_template_that_leaves_the_second_of_two_calls_out_is_reported(tokenizer: Any) -> None:
    tokenizer.chat_template = chat_template_utils.gptoss_chat_template
    calls: Calls = [("add", {"a": 2}), ("add", {"a": 3})]
    with pytest.raises(TemplateError, match="leaves out a call of 'add'"):
        tokenize(tokenizer, ChatExample([User(content="two?"), *calling(calls), Assistant(content="4")], TOOLS))


answers = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(
    lambda text: text.strip() == text and not any(token in text for token in SPECIAL_TOKENS)
)
turns = st.lists(st.tuples(answers, answers, st.sampled_from([0, 1])), min_size=1, max_size=4)
arguments = st.dictionaries(
    st.text("abc_", min_size=1, max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | answers,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(turns=turns, last=answers, system=st.none() | st.just("") | answers, family=st.sampled_from(sorted(FAMILIES)))
@shown_example(turns=[], last="<", system=None, family="DeepSeek R1")  # its prompt goes on with "<think>"
def test_any_text_is_learned_as_it_is(
    tokenizer: Any, turns: list[tuple[str, str, int]], last: str, system: str | None, family: str
) -> None:
    tokenizer.chat_template = FAMILIES[family].template
    conversation = example(*turns, ("And?", last, 1))
    if system is not None and FAMILIES[family].system:
        conversation = ChatExample([System(content=system), *conversation.messages])
    expected = [answer for _, answer, weight in turns if weight] + [last]
    assert all_learned(tokenizer, conversation) == [FAMILIES[family].answer.format(answer) for answer in expected]


@settings(max_examples=100, deadline=None)
@given(
    given=st.lists(st.tuples(st.sampled_from(["add", "look_up"]), arguments), min_size=1, max_size=3),
    question=answers,
    answer=answers,
    family=st.sampled_from(WITH_CALLS),
)
def test_any_calls_are_learned_as_they_are(
    tokenizer: Any, given: Calls, question: str, answer: str, family: str
) -> None:
    chosen = FAMILIES[family]
    assert chosen.calls is not None
    tokenizer.chat_template = chosen.template
    calls = given if chosen.several_calls else given[:1]
    called = calling(calls)
    tools = TOOLS if chosen.tools else None
    whole = ChatExample([User(content=question), *called, Assistant(content=answer)], tools)
    assert all_learned(tokenizer, whole) == [chosen.calls(calls), chosen.answer.format(answer)]
    assert all_learned(tokenizer, ChatExample([User(content=question), called[0]], tools)) == [chosen.calls(calls)]


def test_a_template_that_moves_the_system_prompt_learns_with_the_prompt_that_will_be_seen(tokenizer: Any) -> None:
    tokenizer.chat_template = FAMILIES["Mistral"].template
    conversation = ChatExample([System(content="Be good."), *example(("two?", "four", 1)).messages])
    (sequence,) = tokenize(tokenizer, conversation)
    assert tokenizer.decode(sequence.input_ids) == "<s>[INST] Be good.\n\ntwo?[/INST] four</s>"
    assert learned(tokenizer, sequence) == [" four</s>"]


def test_a_first_word_that_merges_with_the_prompt_is_learned(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN.replace("assistant:{% endif", "assistant: {% endif")
    (sequence,) = tokenize(tokenizer, example(("two?", "It is four.", 1)))
    assert learned(tokenizer, sequence) == [" It is four.\n"]


def test_a_template_that_rewrites_history_gets_a_sequence_for_each_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = REWRITING
    sequences = tokenize(tokenizer, example(("two?", "It is four.", 1), ("three?", "It is five.", 1)))
    assert [learned(tokenizer, sequence) for sequence in sequences] == [
        ["<think>\n\n</think>\n\nIt is four.<|im_end|>"],
        ["<think>\n\n</think>\n\nIt is five.<|im_end|>"],
    ]
    second = tokenizer.decode(sequences[1].input_ids)
    assert "<|im_start|>assistant\nIt is four.<|im_end|>" in second


def test_the_mask_is_that_of_transformers_where_the_template_has_markers(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML_MARKED
    conversation = example(("two?", "It is four.", 1), ("three?", "It is five.", 1))
    (sequence,) = tokenize(tokenizer, conversation)
    expected = tokenizer.apply_chat_template(
        conversation.to_template(),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert sequence.input_ids == expected["input_ids"]
    assert [label != IGNORED for label in sequence.labels] == [bool(bit) for bit in expected["assistant_masks"]]


def test_tools_and_calls_are_rendered_by_the_template(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for tool in tools %}{{ tool.function.name }}\n{% endfor %}"
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
        "{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = ToolCall(Function("add", '{"a": 2}'))
    conversation = ChatExample(
        messages=[User(content="two?"), Assistant(tool_calls=[call])],
        tools=[{"type": "function", "function": {"name": "add"}}],
    )
    (sequence,) = tokenize(tokenizer, conversation)
    assert learned(tokenizer, sequence) == ['{"name": "add", "arguments": {"a": 2}}<|im_end|>']
    assert tokenizer.decode(sequence.input_ids).startswith("add\n")


def test_a_completion_is_learned_up_to_the_end_of_text(tokenizer: Any) -> None:
    (sequence,) = tokenize(tokenizer, CompletionExample(prompt="What is two and two?", completion=" It is four."))
    assert learned(tokenizer, sequence) == [" It is four.</s>"]


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('roles must alternate') }}", "{{ messages[9].content }}", "{{ 1 / 0 }}{% broken"],
)
def test_an_error_of_the_template_is_reported(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match="The model's chat template refuses the example"):
        tokenize(tokenizer, example(("two?", "four", 1)))


def test_a_template_that_leaves_the_answer_out_is_reported(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for message in messages %}{% if message.role == 'user' %}?{% endif %}{% endfor %}"
    with pytest.raises(TemplateError, match="renders nothing of message 2"):
        tokenize(tokenizer, example(("two?", "four", 1)))


def test_truncation_can_leave_nothing_to_learn() -> None:
    sequence = TokenizedExample(input_ids=[1, 2, 3, 4], labels=[IGNORED, IGNORED, 3, 4])
    assert [has_loss(sequence, length) for length in (1, 2, 3, None)] == [False, False, True, True]


def test_a_preference_pair_is_tokenized_as_trl_does_it(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    pair = PreferenceExample([User(content="two?")], [Assistant(content="It is four.")], [Assistant(content="Five.")])
    tokens = tokenize_pair(tokenizer, pair)
    assert tokenizer.decode(tokens.prompt_ids).endswith("two?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(tokens.chosen_ids) == "It is four.<|im_end|>\n"
    assert tokenizer.decode(tokens.rejected_ids) == "Five.<|im_end|>\n"


def test_a_preference_pair_of_texts_ends_with_the_end_of_text(tokenizer: Any) -> None:
    tokens = tokenize_pair(tokenizer, PreferenceExample("What is two and two?", " Four.", " Five."))
    assert tokenizer.decode(tokens.prompt_ids) == "What is two and two?"
    assert tokenizer.decode(tokens.chosen_ids) == " Four.</s>"
    assert tokenizer.decode(tokens.rejected_ids) == " Five.</s>"


def test_images_are_refused_by_a_model_of_text(tokenizer: Any) -> None:
    seen = User(content=[ImagePart(ImageUrl("s3://data/a.png"))])
    with pytest.raises(TemplateError, match="reads only text"):
        tokenize(tokenizer, ChatExample([seen, Assistant(content="A cat.")]))
