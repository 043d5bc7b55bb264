"""A judge whose replies a test gives, and which keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import RowError
from finetune_grading.judge import Question, Reply

REFUSAL = Reply("I can't help with that.", refused=True)
TRUNCATED = Reply('{"steps": [', truncated=True)


def replies(result: object) -> str:
    return json.dumps({"steps": [{"description": "read", "conclusion": "ok"}], "result": result})


class StubJudge:
    """It replies one after another; the last reply is repeated."""

    def __init__(self, *answers: Reply | str | Callable[[Question], str]) -> None:
        self.answers = list(answers)
        self.asked: list[Question] = []

    async def ask(self, question: Question) -> Reply:
        self.asked.append(question)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Reply):
            return answer
        return Reply(answer if isinstance(answer, str) else answer(question))


class FailingJudge:
    """Its server does not answer."""

    async def ask(self, question: Question) -> Reply:
        raise RowError(GraderErrorCode.MODEL_GRADER_SERVER_ERROR, "503 Service Unavailable, five times.")


class StubEmbedder:
    """A vector for each text that a test names; it keeps the sizes of requests."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors
        self.requests: list[int] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.requests.append(len(texts))
        return [self.vectors[text] for text in texts]
