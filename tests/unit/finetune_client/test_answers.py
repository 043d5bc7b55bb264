"""Answers that are none of an API server: those of proxies, gateways and login pages; and an empty list."""

from __future__ import annotations

from typing import Any, cast

import pytest

from finetune_client.errors import ApiError, answer_of
from finetune_client.sync.connection import Connection
from finetune_client.sync.requests import items


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Log in</html>",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"status": "ok"}',
        b'{"kind": "Status", "metadata": null}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
def test_what_is_no_answer_of_an_api_server_is_asked_for_again(body: bytes) -> None:
    with pytest.raises(ApiError, match="https://cluster did not answer GET /api") as error:
        answer_of(body, "GET /api", "https://cluster")
    assert error.value.may_heal
    assert len(error.value.message) < 500


class Answering:
    """A connection that has one answer."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def send(self, *request: Any) -> dict[str, Any]:
        return self.answer


@pytest.mark.parametrize("rest", [{"items": None}, {}], ids=["null", "nothing"])
def test_a_list_of_nothing_may_be_null(rest: dict[str, Any]) -> None:
    """Go writes an empty list so, unless it is told otherwise."""
    answering = cast(Connection, Answering({"kind": "PodList", "metadata": {}, **rest}))
    assert items(answering, "/api/v1/pods") == []
