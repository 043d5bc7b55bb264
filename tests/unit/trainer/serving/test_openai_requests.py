"""Requests as clients of the field send them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_trainer.serving.openai_requests import ChatRequest
from finetune_trainer.serving.request_errors import explain

MOST_ERRORS = 5
ASKED = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}]}


def format_of(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def test_one_stop_string_is_a_list_of_one_and_five_are_too_many() -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}]}
    assert ChatRequest.model_validate({**asked, "stop": "END"}).stops == ("END",)
    assert ChatRequest.model_validate({**asked, "stop": list("abcd")}).stops == ("a", "b", "c", "d")
    assert ChatRequest.model_validate({**asked, "stop": None}).stops == ()
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate({**asked, "stop": list("abcde")})
    (error,) = refused.value.errors()
    assert error["loc"] == ("stop",)
    assert "at most 4 items" in error["msg"]


def test_null_is_absent_as_openais_sdk_writes_it() -> None:
    """An answer that goes back into the history by `model_dump`, and parameters that nobody set."""
    said = {"role": "assistant", "content": "4", "audio": None, "annotations": None, "function_call": None}
    asked = ChatRequest.model_validate({"model": "m", "messages": [said], "service_tier": None, "logit_bias": None})
    assert asked.messages[0].model_dump(exclude_none=True) == {"role": "assistant", "content": "4"}
    with pytest.raises(ValidationError, match="audio"):
        ChatRequest.model_validate({"model": "m", "messages": [{**said, "audio": {"id": "a"}}]})


def test_an_integer_is_a_decimal() -> None:
    asked = ChatRequest.model_validate({**ASKED, "temperature": 1, "top_p": 1, "chat_template_kwargs": {"level": 2}})
    assert (asked.temperature, asked.top_p, asked.chat_template_kwargs) == (1.0, 1.0, {"level": 2})


def test_an_empty_list_of_calls_is_none() -> None:
    said = {"role": "assistant", "content": "4", "tool_calls": []}
    asked = ChatRequest.model_validate({"model": "m", "messages": [said]})
    assert asked.messages[0].model_dump(exclude_none=True) == {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("changes", "words", "parameter"),
    [
        ({"model": None}, "Missing required parameter: 'model'.", "model"),
        ({"best_of": 2}, "Unknown parameter: 'best_of'. This server does not have it.", "best_of"),
        ({"n": 17}, "Invalid 'n': expected a value <= 16, but got 17 instead.", "n"),
        (
            {"logprobs": True, "top_logprobs": 21},
            "Invalid 'top_logprobs': expected a value <= 20, but got 21 instead.",
            "top_logprobs",
        ),
        ({"top_logprobs": 3}, "Invalid request: top_logprobs needs logprobs: true.", None),
        (
            {"response_format": {"type": "json_schema"}},
            "Missing required parameter: 'response_format.json_schema'.",
            "response_format",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "Invalid 'response_format.json_schema.name': String should match pattern '^[a-zA-Z0-9_-]{1,64}$'.",
            "response_format",
        ),
        (
            {"response_format": {"type": "text", "schema": {}}},
            "Unknown parameter: 'response_format.schema'. This server does not have it.",
            "response_format",
        ),
        ({"temperature": 3}, "Invalid 'temperature': expected a value <= 2, but got 3 instead.", "temperature"),
        (
            {"temperature": "hot"},
            "Invalid type for 'temperature': expected a decimal, but got a string instead.",
            "temperature",
        ),
        (
            {"temperature": 0.001},
            "Invalid 'temperature': must be 0 (greedy), or at least 0.01.",
            "temperature",
        ),
        (
            {"max_tokens": "24"},
            "Invalid type for 'max_tokens': expected an integer, but got a string instead.",
            "max_tokens",
        ),
        ({"n": 2.0}, "Invalid type for 'n': expected an integer, but got a decimal instead.", "n"),
        ({"n": True}, "Invalid type for 'n': expected an integer, but got a boolean instead.", "n"),
        ({"top_p": "1"}, "Invalid type for 'top_p': expected a decimal, but got a string instead.", "top_p"),
        ({"stream": "yes"}, "Invalid type for 'stream': expected a boolean, but got a string instead.", "stream"),
        ({"logprobs": 1}, "Invalid type for 'logprobs': expected a boolean, but got an integer instead.", "logprobs"),
        (
            {"stream_options": {"include_usage": "true"}},
            "Invalid type for 'stream_options.include_usage': expected a boolean, but got a string instead.",
            "stream_options",
        ),
        ({"stop": list("abcde")}, "Invalid 'stop': expected at most 4 items.", "stop"),
        ({"stop": ["a", ""]}, "Invalid 'stop.1': expected at least 1 character.", "stop"),
        ({"messages": []}, "Invalid 'messages': expected at least 1 item.", "messages"),
        (
            {"messages": "hello"},
            "Invalid type for 'messages': expected an array, but got a string instead.",
            "messages",
        ),
        (
            {"messages": [{"role": "user", "content": 7}]},
            "Invalid type for 'messages.0.content': expected a string, but got an integer instead.",
            "messages",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}
                ]
            },
            "Invalid 'messages.0.content': images are not supported: this server takes text, or parts of type 'text'.",
            "messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "video", "url": "x"}]}]},
            "Invalid 'messages.0.content': parts of type 'video' are not supported: this server takes text, or parts "
            "of type 'text'.",
            "messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
            "Invalid type for 'messages.0.content.0.text': expected a string, but got an integer instead.",
            "messages",
        ),
        (
            {"messages": [{"role": "owner", "content": "x"}]},
            "Invalid value for 'messages.0.role': supported values are "
            "'system', 'developer', 'user', 'assistant' or 'tool'.",
            "messages",
        ),
        ({"tools": [{"type": "function"}]}, "Missing required parameter: 'tools.0.function'.", "tools"),
        (
            {"stream_options": {"include_everything": True}},
            "Unknown parameter: 'stream_options.include_everything'. This server does not have it.",
            "stream_options",
        ),
    ],
)
def test_a_refusal_is_in_openais_words(changes: dict[str, Any], words: str, parameter: str | None) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}], **changes}
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate(asked)
    assert explain(refused.value) == (words, parameter)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"enum": ["x" * 1000] * 70}, "at most 65536 are read"),
        (nested(300), "Recursion limit reached"),
    ],
)
def test_a_schema_of_any_size_or_depth_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ChatRequest.model_validate({**ASKED, "response_format": format_of(schema)})


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": [{"role": "user", "content": [7] * 100_000}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}] * 100_000}]},
        {"messages": [{"role": "owner"}] * 10_000},
        {"messages": [{"role": "user", **{f"f{number}": 1 for number in range(10_000)}}]},
        {"messages": [{"role": "assistant", "tool_calls": [7] * 100_000}]},
        {"tools": [{"type": "tool"}] * 100},
        {"tools": [{"type": "function", "function": {"name": "f"}, **{f"f{number}": 1 for number in range(10_000)}}]},
        {"stop": [7] * 100_000},
        {"metadata": {f"k{number}": 1 for number in range(10_000)}},
        {"chat_template_kwargs": {f"k{number}": [] for number in range(10_000)}},
        {"stream_options": {f"k{number}": 1 for number in range(10_000)}},
        {"response_format": {"type": "text", **{f"k{number}": 1 for number in range(10_000)}}},
        {f"k{number}": 1 for number in range(10_000)},
    ],
)
def test_validation_ends_at_the_first_errors_of_a_body(changes: dict[str, Any]) -> None:
    """All streams wait meanwhile, and each error takes microseconds: a body of 2 MiB had 900,000 of them."""
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate({**ASKED, **changes})
    assert refused.value.error_count() <= MOST_ERRORS
    assert explain(refused.value)[0]


def test_tools_and_a_schema_do_not_go_together() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(ValidationError, match="could not call the tools"):
        ChatRequest.model_validate({**ASKED, "tools": tools, "response_format": {"type": "json_object"}})
    both = {**ASKED, "tools": tools, "tool_choice": "none", "response_format": {"type": "json_object"}}
    assert ChatRequest.model_validate(both).schema_of_answer == {"type": "object"}


@pytest.mark.parametrize("body", [None, [], 7, "text"])
def test_a_body_that_is_no_object_is_called_so(body: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate(body)
    assert explain(refused.value) == ("The body must be a JSON object.", None)
