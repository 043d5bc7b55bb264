"""Requests as clients of the field send them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from finetune_trainer.serving.openai_requests import ChatRequest


def test_null_is_absent_as_openais_sdk_writes_it() -> None:
    """An answer that goes back into the history by `model_dump`, and parameters that nobody set."""
    said = {"role": "assistant", "content": "4", "audio": None, "annotations": None, "function_call": None}
    asked = ChatRequest.model_validate({"model": "m", "messages": [said], "service_tier": None, "logit_bias": None})
    assert asked.messages[0].model_dump(exclude_none=True) == {"role": "assistant", "content": "4"}
    with pytest.raises(ValidationError, match="audio"):
        ChatRequest.model_validate({"model": "m", "messages": [{**said, "audio": {"id": "a"}}]})
