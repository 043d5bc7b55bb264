"""Requests as clients of the field send them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from finetune_trainer.serving.openai_requests import ChatRequest


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
