"""What the answer to a request says of its group: an answer, an error of the server, a refusal, or nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_gateway.canary.traffic import Answered

CLIENT_LEFT = 499
CLIENT_ERROR, TOO_MANY, SERVER_ERROR = 400, 429, 500


@dataclass
class Answer:
    """An answer, as far as it has come. Times in seconds, by one clock."""

    status: int = CLIENT_LEFT
    asked: float = 0.0
    """When the request was sent to the server that answers; 0: to none."""
    begun: bool = False
    """Whether something of the answer came."""
    failed_over: bool = False
    """Whether no server of the canary answered, and one of the others was asked."""
    first: float | None = None
    """When the first part of a stream came; None: it is none."""
    last: float = 0.0
    events: int = 0
    tokens: int | None = None

    def add(self, chunk: bytes, now: float) -> None:
        """A part of a stream has come."""
        self.last = now
        self.first = now if self.first is None else self.first
        self.events += chunk.count(b"data:")


def outcome_of(answer: Answer, session: str) -> Answered | None:
    """What it says of its group; None: nothing, since no server was asked, or its client has left an answer."""
    if not answer.asked or (answer.status == CLIENT_LEFT and answer.begun and not answer.failed_over):
        return None
    if answer.failed_over or answer.status == TOO_MANY or answer.status >= SERVER_ERROR:
        return Answered("errors")
    if answer.status >= CLIENT_ERROR:
        return Answered("left" if answer.status == CLIENT_LEFT else "refused", session=session)
    tokens = answer.tokens if answer.tokens is not None else (answer.events - 1 if answer.events > 1 else None)
    if answer.first is None:
        return Answered("answered", tokens=tokens)
    per_token = (answer.last - answer.first) / (tokens - 1) if tokens is not None and tokens > 1 else None
    return Answered("answered", answer.first - answer.asked, per_token, tokens)
