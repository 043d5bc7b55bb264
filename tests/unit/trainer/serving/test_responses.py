"""Answers in OpenAI's objects: text, reasoning and calls, whole and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from finetune_trainer.generate.tool_calls import COMMON_FORMATS
from finetune_trainer.serving.engine import End, Text
from finetune_trainer.serving.responses import Answer, AnswerParser

QWEN = dict(COMMON_FORMATS)["<tool_call>"]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'


def answer(route: Any, template: Any) -> Answer:
    return Answer(route, "router", 7, AnswerParser(template, "x"), "sha256:aa")


async def said(text: str, end: End) -> AsyncIterator[Text | End]:
    for character in text:
        yield Text(character)
    yield Text("<|im_end|>", special=True)
    yield end


def whole(text: str, template: Any = None, end: End | None = None) -> ChatCompletion:
    value = asyncio.run(answer("chat.completion", template).whole(said(text, end or End("stop", 9))))
    return ChatCompletion.model_validate(value, strict=True)


def streamed(text: str, template: Any = None, *, with_usage: bool = False) -> list[ChatCompletionChunk]:
    async def collect() -> list[dict[str, Any]]:
        events = answer("chat.completion", template).events(said(text, End("stop", 9)), with_usage=with_usage)
        return [event async for event in events]

    return [ChatCompletionChunk.model_validate(event, strict=True) for event in asyncio.run(collect())]


def test_a_call_is_told_as_a_call_and_the_text_beside_it_as_text() -> None:
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
