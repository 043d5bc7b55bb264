"""Requests as clients of the field send them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_trainer.serving.openai_requests import ChatRequest
from finetune_trainer.serving.request_errors import explain


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


def test_an_empty_list_of_calls_is_none() -> None:
    said = {"role": "assistant", "content": "4", "tool_calls": []}
    asked = ChatRequest.model_validate({"model": "m", "messages": [said]})
    assert asked.messages[0].model_dump(exclude_none=True) == {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("changes", "words", "parameter"),
    [
        ({"model": None}, "Missing required parameter: 'model'.", "model"),
        ({"best_of": 2}, "Unknown parameter: 'best_of'. This server does not have it.", "best_of"),
        ({"n": 2}, "Invalid value for 'n': supported values are 1.", "n"),
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
        ({"stop": list("abcde")}, "Invalid 'stop': expected at most 4 items.", "stop"),
        ({"stop": ["a", ""]}, "Invalid 'stop.1': expected at least 1 characters.", "stop"),
        ({"messages": []}, "Invalid 'messages': expected at least 1 items.", "messages"),
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
def test_a_refusal_is_in_openais_words(changes: dict[str, Any], words: str, parameter: str) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}], **changes}
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate(asked)
    assert explain(refused.value) == (words, parameter)


@pytest.mark.parametrize("body", [None, [], 7, "text"])
def test_a_body_that_is_no_object_is_called_so(body: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate(body)
    assert explain(refused.value) == ("The body must be a JSON object.", None)
