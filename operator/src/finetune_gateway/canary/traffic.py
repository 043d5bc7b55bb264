"""What is counted of the requests of each group since a step of a canary began, for the operator to compare.

It is handed over in batches, each until the operator has said that it is written down: a batch that is under way does
not change, and what comes meanwhile is in the next one. So nothing is lost or counted twice.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_gateway.canary.split import Group, Split

GROWTH = 1.1
"""Of the bounds of a histogram's buckets: bucket n has what is from GROWTH**n seconds on."""
_LEAST_SECONDS, _MOST_SECONDS = 1e-4, 3600.0
MOST_COUNT = 10**15
"""What the operator takes."""
MOST_OF_SESSION = 3
"""Requests of a session that were refused, or whose client left: one client at fault decides nothing."""
_MOST_SESSIONS = 10_000
Outcome = Literal["answered", "errors", "refused", "left"]
"""errors: a fault of the server, as is 429. refused: any other 4xx. left: its client did, before the answer began."""


def bucket(seconds: float) -> int:
    """The bucket of a duration."""
    return math.floor(math.log(min(max(seconds, _LEAST_SECONDS), _MOST_SECONDS), GROWTH))


@dataclass
class Counts:
    """Of one group."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    left: int = 0
    first_token: Counter[int] = field(default_factory=Counter)
    per_token: Counter[int] = field(default_factory=Counter)
    answers: int = 0
    tokens: int = 0
    token_squares: int = 0

    def wire(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "refused": self.refused,
            "left": self.left,
            "firstToken": {str(number): count for number, count in self.first_token.items()},
            "perToken": {str(number): count for number, count in self.per_token.items()},
            "answers": self.answers,
            "tokens": self.tokens,
            "tokenSquares": self.token_squares,
        }


@dataclass(frozen=True)
class Answered:
    """One request of a group. `first_seconds`, `token_seconds` None: it was no stream, or too short to tell."""

    outcome: Outcome
    first_seconds: float | None = None
    token_seconds: float | None = None
    tokens: int | None = None
    session: str = ""


class Traffic:
    """The counts of this process. `split`: what holds now."""

    def __init__(self) -> None:
        self.split = Split()
        self._source = uuid.uuid4().hex
        self._sequence = 0
        self._of_sessions: Counter[tuple[Group, str]] = Counter()
        self._counts: dict[Group, Counts] = {}
        self._handed_over: dict[str, Any] | None = None
        self._begin()

    def follow(self, split: Split) -> None:
        """This holds from now on. Another step is counted from nothing."""
        if split.id != self.split.id:
            # A step that comes back knows the numbers of before, so they are not used again.
            self._source = uuid.uuid4().hex
            self._sequence, self._handed_over = 0, None
            self._of_sessions.clear()
            self._begin()
        self.split = split

    def count(self, split: Split, group: Group, answered: Answered) -> None:
        """A request that came while `split` held; one of a step that is over is not counted."""
        if not split.id or split.id != self.split.id:
            return
        if answered.outcome in ("refused", "left") and not self._may_count(group, answered.session):
            return
        counts = self._counts[group]
        counts.requests += 1
        if answered.outcome != "answered":
            setattr(counts, answered.outcome, getattr(counts, answered.outcome) + 1)
            return
        if answered.first_seconds is not None:
            counts.first_token[bucket(answered.first_seconds)] += 1
        if answered.token_seconds is not None:
            counts.per_token[bucket(answered.token_seconds)] += 1
        if answered.tokens is not None:
            counts.answers += 1
            counts.tokens = min(counts.tokens + answered.tokens, MOST_COUNT)
            counts.token_squares = min(counts.token_squares + answered.tokens**2, MOST_COUNT)

    def report(self) -> dict[str, Any]:
        """What to tell the operator: the batch that is under way, or the next one."""
        if self._handed_over is None and any(counts.requests for counts in self._counts.values()):
            self._sequence += 1
            batch: dict[str, Any] = {group: counts.wire() for group, counts in self._counts.items()}
            self._handed_over = {"sequence": self._sequence, **batch}
            self._begin()
        return {"source": self._source, "split": self.split.id, "batch": self._handed_over}

    def acknowledged(self, split_id: str, sequence: int) -> None:
        """The operator has written this batch of a split down."""
        if split_id == self.split.id and sequence >= self._sequence:
            self._handed_over = None

    def refused(self) -> None:
        """The operator takes this batch for none: sent again, it would hold up all that follow."""
        self._handed_over = None
        self._source, self._sequence = uuid.uuid4().hex, 0

    def _may_count(self, group: Group, session: str) -> bool:
        if not session or len(self._of_sessions) >= _MOST_SESSIONS:
            return True
        self._of_sessions[group, session] += 1
        return self._of_sessions[group, session] <= MOST_OF_SESSION

    def _begin(self) -> None:
        self._counts = {"stable": Counts(), "canary": Counts()}
