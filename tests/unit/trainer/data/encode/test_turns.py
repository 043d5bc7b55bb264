"""Turns that are found by the pattern of a conversation's shape are those that are found one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import chat_template_utils

from finetune_trainer.data.encode.chat_template import TemplateError
from finetune_trainer.data.encode.placeholders import conversation_of
from finetune_trainer.data.encode.turns import RenderedChat, find_each_turn, find_turns, render, turns_by_pattern
from finetune_trainer.data.read.examples import ChatExample
from finetune_trainer.data.read.messages import Assistant, System, User
from tests.unit.trainer.data.encode.chat_templates import CHATML, FAMILIES, SPECIAL_TOKENS, make_tokenizer
from tests.unit.trainer.data.encode.test_tokenization import TOOLS, answers, arguments, calling, example


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


pieces = [
    " ",
    "\n",
    "a",
    "+",
    "-",
    "<",
    "é",
    "assistant\n",
    "<think>",
    "</think>",
    "[THINK]",
    "\n\n",
    *SPECIAL_TOKENS[:8],
]
texts_of_any_kind = st.lists(st.sampled_from(pieces), max_size=4).map("".join) | answers
spoken = st.lists(st.tuples(texts_of_any_kind, texts_of_any_kind, st.booleans()), min_size=1, max_size=4)


@given(turns=spoken, system=st.none() | texts_of_any_kind, family=st.sampled_from(sorted(FAMILIES)))
@settings(deadline=None)
def test_a_conversation_that_fits_the_pattern_of_its_roles_is_rendered_as_turn_by_turn(
    tokenizer: Any, turns: list[tuple[str, str, bool]], system: str | None, family: str
) -> None:
    tokenizer.chat_template = FAMILIES[family].template
    asked = example(*((question, answer, int(weight)) for question, answer, weight in turns))
    conversation = asked if system is None else ChatExample([System(content=system), *asked.messages])
    assert_rendered_alike(tokenizer, conversation)


ALL_TEMPLATES = {name: text for name, text in vars(chat_template_utils).items() if name.endswith("_chat_template")} | {
    name: family.template for name, family in FAMILIES.items()
}
rounds = st.lists(
    st.tuples(
        texts_of_any_kind,
        st.lists(st.tuples(st.sampled_from(["add", "an", "look_up"]), arguments), max_size=2),
        st.none() | texts_of_any_kind,
        texts_of_any_kind,
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


@given(rounds=rounds, has_tools=st.booleans(), template=st.sampled_from(sorted(ALL_TEMPLATES)))
@settings(deadline=None)
def test_a_conversation_with_calls_that_fits_its_pattern_is_rendered_as_turn_by_turn(
    tokenizer: Any, rounds: list[Any], has_tools: bool, template: str
) -> None:
    tokenizer.chat_template = ALL_TEMPLATES[template]
    messages: list[Any] = []
    for question, calls, said, answer, learned in rounds:
        messages += [User(content=question), *(calling(calls, said) if calls else [])]
        messages.append(Assistant(content=answer, weight=1 if learned else 0))
    assert_rendered_alike(tokenizer, ChatExample([*messages, *calling([("add", {"x": 1})])[:1]], TOOLS * has_tools))


def turns_of_pattern(tokenizer: Any, conversation: ChatExample) -> list[tuple[int, int]] | None:
    shown = conversation_of(tokenizer, conversation)
    return turns_by_pattern(tokenizer, conversation, shown, render(tokenizer, shown, len(conversation.messages)))


def assert_rendered_alike(tokenizer: Any, conversation: ChatExample) -> None:
    found: list[list[RenderedChat] | str] = []
    for way in (find_turns, find_each_turn):
        try:
            found.append(way(tokenizer, conversation))
        except TemplateError as error:
            found.append(str(error))
    assert found[0] == found[1]


@pytest.mark.parametrize("family", ["Qwen 2.5", "Llama 3.1", "Qwen 3 Instruct"])
def test_conversations_with_calls_fit_the_pattern_of_their_shape(tokenizer: Any, family: str) -> None:
    """Otherwise such a conversation takes several renderings for each turn."""
    tokenizer.chat_template = FAMILIES[family].template
    called = calling([("look_up", {"city": "Rome", "days": [1, {}], "at": 1.50})])
    conversation = ChatExample([User(content="Rain?"), *called, Assistant(content='No "rain".')], TOOLS)
    turns = turns_of_pattern(tokenizer, conversation)
    (rendered,) = find_each_turn(tokenizer, conversation)
    assert turns == rendered.turns and len(turns) == 2


def test_arguments_that_read_as_another_turn_fit_no_pattern(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
        "{% for call in message['tool_calls'] or [] %}{{ call.function.name }}"
        "({{ call.function.arguments.values() | join }}){% endfor %} | {% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    for argument, fits in (("Rome", True), ('Rome) | tool: "4" | assistant: add(2', False)):
        called = [*calling([("add", {"x": argument})]), *calling([("add", {"x": "3"})])]
        conversation = ChatExample([User(content="Rain?"), *called, Assistant(content="No.")])
        assert (turns_of_pattern(tokenizer, conversation) is not None) is fits
        assert_rendered_alike(tokenizer, conversation)


@pytest.mark.parametrize("family", ["ChatML", "Llama 3", "Llama 3.1", "Gemma 3", "Phi 3"])
def test_plain_conversations_fit_the_pattern_of_their_roles(tokenizer: Any, family: str) -> None:
    """Otherwise the time for a conversation grows with the square of its turns."""
    tokenizer.chat_template = FAMILIES[family].template
    conversation = example(("2+2?", "It is four.", 1), ("Sure?", "<b>Yes</b>.", 0), ("3?", "Three\n\n-- as I said", 1))
    assert turns_of_pattern(tokenizer, conversation) is not None
    rendered = find_turns(tokenizer, conversation)
    assert rendered == find_each_turn(tokenizer, conversation)
    assert [rendered[0].text[start:end].split("<")[0] for start, end in rendered[0].turns] == [
        "It is four.",
        "Three\n\n-- as I said",
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [User(content="Hi"), Assistant(content="<think>\nwell\n</think>\n\nHi!")],
        [User(content="Hi"), Assistant(content="<|im_end|>")],
        [User(content="Hi"), Assistant(content="Hi!", reasoning_content="well")],
        [User(content="Hi", name="Ann"), Assistant(content="Hi!")],
        [Assistant(content="Hi!"), User(content="Hi")],
    ],
    ids=["reasoning", "control token", "reasoning apart", "name", "no question"],
)
def test_what_a_template_may_treat_in_its_own_way_fits_no_pattern(tokenizer: Any, messages: list[Any]) -> None:
    tokenizer.chat_template = CHATML
    assert turns_of_pattern(tokenizer, ChatExample(messages)) is None
