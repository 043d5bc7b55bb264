"""The bodies of /v1/fine_tuning/alpha/graders: OpenAI's fields, strictly."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

LONGEST_SAMPLE = 262_144
"""Characters."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ValidateRequest(_Strict):
    """POST validate."""

    grader: dict[str, Any]


class RunRequest(ValidateRequest):
    """POST run."""

    model_sample: Annotated[str, Field(max_length=LONGEST_SAMPLE)]
    item: dict[str, Any] = {}
