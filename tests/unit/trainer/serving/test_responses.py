"""Answers in OpenAI's objects: text, reasoning and calls, whole and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from finetune_trainer.generate.tool_calls import COMMON_FORMATS
from finetune_trainer.serving.engine.orders import End, Piece, Text, TokenLogprob
from finetune_trainer.serving.responses.answer_parser import AnswerParser
from finetune_trainer.serving.responses.response import Answer, Choice

QWEN = dict(COMMON_FORMATS)["<tool_call>"]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'


def answer(route: Any, template: Any) -> Answer:
    return Answer(route, "router", 7, [Choice(0, AnswerParser(template, "x"))], "sha256:aa")


async def said(text: str, end: End) -> AsyncIterator[tuple[int, Piece]]:
    for character in text:
        yield 0, Text(character)
    yield 0, Text("<|im_end|>", special=True)
    yield 0, end


def whole(text: str, template: Any = None, end: End | None = None) -> ChatCompletion:
    value = asyncio.run(answer("chat.completion", template).whole(said(text, end or End("stop", 9))))
    return ChatCompletion.model_validate(value, strict=True)


def streamed(text: str, template: Any = None, *, with_usage: bool = False) -> list[ChatCompletionChunk]:
    async def collect() -> list[dict[str, Any]]:
        events = answer("chat.completion", template).events(said(text, End("stop", 9)), with_usage=with_usage)
        return [event async for event in events]

    return [ChatCompletionChunk.model_validate(event, strict=True) for event in asyncio.run(collect())]


def test_a_call_is_reported_as_a_call_and_the_text_beside_it_as_text() -> None:
    message = whole(f"Let me see.{CALL}", QWEN).choices[0]
    assert message.finish_reason == "tool_calls"
    assert message.message.content == "Let me see."
    assert message.message.tool_calls is not None
    call: Any = message.message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Bonn"}')


def test_every_answer_says_which_revision_it_is_of() -> None:
    assert whole("Hello.").system_fingerprint == "sha256:aa"
    assert {chunk.system_fingerprint for chunk in streamed("Hello.", with_usage=True)} == {"sha256:aa"}


def test_two_calls_are_streamed_with_their_numbers() -> None:
    chunks = streamed(CALL + CALL, QWEN)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 1]
    assert len({call.id for call in calls}) == 2
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "text", ['<tool_call>{"name": "weather", </tool_call>', '<tool_call>{"city": "Bonn"}</tool_call>', "<tool_call>{"]
)
def test_a_call_that_is_none_is_shown_as_the_model_said_it(text: str) -> None:
    choice = whole(f"So: {text}", QWEN).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert choice.message.content is not None and choice.message.content.startswith(f"So: {text}")


def test_a_stream_has_the_usage_only_where_it_was_asked_for() -> None:
    assert all(chunk.usage is None for chunk in streamed("Hi"))
    *_, finished, last = streamed("Hi", with_usage=True)
    assert finished.choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None and last.usage.total_tokens == 16


def test_a_stream_says_what_the_whole_answer_says() -> None:
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed("Good morning!"))
    assert text == whole("Good morning!").choices[0].message.content == "Good morning!"


def test_a_completion_is_a_valid_object_of_openais_sdk() -> None:
    value = asyncio.run(answer("text_completion", None).whole(said("x", End("length", 1))))
    completion = Completion.model_validate(value, strict=True)
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == ("x", "length")


def two_choices(route: Any, *, with_logprobs: bool = False) -> Answer:
    choices = [Choice(index, AnswerParser(None, "")) for index in range(2)]
    return Answer(route, "router", 7, choices, "sha256:aa", with_logprobs)


async def both_said() -> AsyncIterator[tuple[int, Piece]]:
    """Two outputs whose pieces alternate; the second ends first."""
    yield 0, Text("Go", logprobs=(TokenLogprob("G", -0.1, (TokenLogprob("G", -0.1),)), TokenLogprob("o", -0.2)))
    yield 1, Text("N")
    yield 1, End("stop", 2)
    yield 0, Text("od", logprobs=(TokenLogprob("od", -0.3),))
    yield 0, End("length", 3)


def test_two_choices_are_distinguished_and_their_tokens_are_added_up() -> None:
    value = asyncio.run(two_choices("chat.completion").whole(both_said()))
    whole = ChatCompletion.model_validate(value, strict=True)
    assert [(one.index, one.message.content, one.finish_reason) for one in whole.choices] == [
        (0, "Good", "length"),
        (1, "N", "stop"),
    ]
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (7, 5)


def test_each_choice_of_a_stream_ends_by_itself() -> None:
    async def collect() -> list[dict[str, Any]]:
        answer = two_choices("chat.completion")
        return [event async for event in answer.events(both_said(), with_usage=False)]

    chunks = [ChatCompletionChunk.model_validate(event, strict=True).choices[0] for event in asyncio.run(collect())]
    assert [(one.index, one.delta.content) for one in chunks if one.delta.content] == [(0, "Go"), (1, "N"), (0, "od")]
    assert [(one.index, one.finish_reason) for one in chunks if one.finish_reason] == [(1, "stop"), (0, "length")]


def test_log_probabilities_are_those_of_the_tokens_of_the_content() -> None:
    value = asyncio.run(two_choices("chat.completion", with_logprobs=True).whole(both_said()))
    logprobs = ChatCompletion.model_validate(value, strict=True).choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [(one.token, one.logprob, one.bytes) for one in logprobs.content] == [
        ("G", -0.1, [71]),
        ("o", -0.2, [111]),
        ("od", -0.3, [111, 100]),
    ]
    assert [one.token for one in logprobs.content[0].top_logprobs] == ["G"]


def test_the_log_probabilities_of_a_completion_say_where_each_token_is() -> None:
    async def collect() -> list[dict[str, Any]]:
        answer = two_choices("text_completion", with_logprobs=True)
        return [event async for event in answer.events(both_said(), with_usage=False)]

    whole = Completion.model_validate(
        asyncio.run(two_choices("text_completion", with_logprobs=True).whole(both_said())), strict=True
    )
    logprobs: Any = whole.choices[0].logprobs
    assert (logprobs.tokens, logprobs.text_offset) == (["G", "o", "od"], [0, 1, 2])
    choices = [choice for event in asyncio.run(collect()) for choice in event["choices"]]
    offsets = [one["logprobs"]["text_offset"] for one in choices if one["index"] == 0 and one["logprobs"]]
    assert offsets == [[0, 1], [2]]


def test_a_calls_tokens_have_no_log_probabilities() -> None:
    async def pieces() -> AsyncIterator[tuple[int, Piece]]:
        yield 0, Text(CALL, logprobs=(TokenLogprob("<tool_call>", -1.0),))
        yield 0, Text("So.", logprobs=(TokenLogprob("So.", -2.0),))
        yield 0, End("stop", 9)

    asked = Answer("chat.completion", "router", 7, [Choice(0, AnswerParser(QWEN, "x"))], "sha256:aa", True)
    logprobs = ChatCompletion.model_validate(asyncio.run(asked.whole(pieces())), strict=True).choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [one.token for one in logprobs.content] == ["So."]
