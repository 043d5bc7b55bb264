"""What gateways count of the requests to a canary and to what serves, and how they report it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from finetune_api.base import ApiModel, Line

RequestShare = Literal["Errors", "Refused", "Left"]
MOST_BUCKETS = 200
MOST_SOURCES = 64
"""Processes of gateways that counted during one step; those that come after so many restarts are not heard."""
MOST_COUNT = 10**15
_Count = Annotated[int, Field(ge=0, le=MOST_COUNT)]
_BUCKET = re.compile(r"-?[0-9]{1,3}")


def _known_buckets(found: object) -> object:
    """Without what another version may write beside the counts."""
    if not isinstance(found, dict):
        return found
    known = {name: count for name, count in found.items() if isinstance(name, str) and _BUCKET.fullmatch(name)}
    return {name: count for name, count in known.items() if isinstance(count, int)}


Histogram = Annotated[dict[str, _Count], BeforeValidator(_known_buckets)]


class RequestCounts(ApiModel):
    """How the requests to one side ended."""

    requests: _Count = Field(0, description="Requests that were sent there.")
    errors: _Count = Field(0, description="Not answered, or by an error of the server (429 is one).")
    refused: _Count = Field(0, description="Answered by another 4xx; at most three of a session count.")
    left: _Count = Field(0, description="Left by their client before the answer began; at most three of a session.")

    @property
    def answered(self) -> int:
        """Those that it answered, or ought to have."""
        return max(0, self.requests - self.refused - self.left)


class TrafficCounts(RequestCounts):
    """What was counted of one side. Bucket n of a histogram has what took 1.1^n seconds or more."""

    first_token: Histogram = Field(default={}, max_length=MOST_BUCKETS, description="Times to the first event.")
    per_token: Histogram = Field(default={}, max_length=MOST_BUCKETS, description="Times per token.")
    answers: _Count = Field(0, description="Answers whose tokens are known.")
    tokens: _Count = Field(0, description="Tokens of these answers.")
    token_squares: _Count = Field(0, description="Sum of the squares of their numbers.")


class TrafficSource(ApiModel):
    """A process of the gateway that counted in this step."""

    source: Line = Field(description="Name that the process gave itself.")
    sequence: int = Field(ge=1, description="The last of its reports that is counted.")


class TrafficBatch(ApiModel):
    """What a process of the gateway counted since its batch before."""

    sequence: int = Field(ge=1, le=10**9)
    stable: TrafficCounts
    canary: TrafficCounts


class TrafficReport(ApiModel):
    """The body of a gateway's POST."""

    source: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    split: Line
    batch: TrafficBatch | None = None
