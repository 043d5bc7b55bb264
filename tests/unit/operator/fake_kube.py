"""A fake API server, at the one place where requests leave the operator; tests/integration has the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object


@dataclass(frozen=True)
class Request:
    """One request, as it would go out."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Object | None
    content_type: str

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class FakeKube(Kube):
    """Answers from a table of `METHOD path`; what is not in it is 404 for a GET, and echoed for a write."""

    def __init__(self, answers: Mapping[str, Object | ApiError | list[Object]] | None = None) -> None:
        super().__init__(api=None)
        self.answers = dict(answers or {})
        self.requests: list[Request] = []

    @property
    def writes(self) -> list[str]:
        return [request.line for request in self.requests if request.method != "GET"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        request = Request(method, path, dict(query or {}), body, content_type)
        self.requests.append(request)
        answer: Any = self.answers.get(request.line, body if method != "GET" else not_found(path))
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return dict(answer or {})


def not_found(path: str) -> ApiError:
    return ApiError(404, "NotFound", f"{path} not found")
