"""What an answer says of its group in the comparison of a canary."""

from __future__ import annotations

import pytest

from finetune_gateway.canary.outcome import CLIENT_LEFT, Answer, outcome_of
from finetune_gateway.canary.traffic import Answered


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(status=200, asked=1.0), Answered("answered")),
        (Answer(status=200, asked=1.0, tokens=7), Answered("answered", tokens=7)),
        (Answer(status=500, asked=1.0), Answered("errors")),
        (Answer(status=429, asked=1.0), Answered("errors")),
        (Answer(status=200, asked=1.0, failed_over=True), Answered("errors")),
        (Answer(status=404, asked=1.0), Answered("refused", session="ada")),
        (Answer(status=CLIENT_LEFT, asked=1.0), Answered("left", session="ada")),
        (Answer(status=CLIENT_LEFT, asked=1.0, begun=True), None),
        (Answer(status=CLIENT_LEFT, asked=1.0, begun=True, failed_over=True), Answered("errors")),
        (Answer(status=503), None),
    ],
)
def test_the_status_decides_unless_no_server_was_asked_or_its_client_left_an_answer(
    answer: Answer, outcome: Answered | None
) -> None:
    assert outcome_of(answer, "ada") == outcome


def test_a_stream_has_the_time_to_its_first_event_and_per_token() -> None:
    answer = Answer(status=200, asked=1.0)
    answer.add(b"data: a\n\n", 1.5)
    answer.add(b"data: b\n\ndata: c\n\ndata: [DONE]\n\n", 2.5)
    assert outcome_of(answer, "") == Answered("answered", 0.5, 0.5, 3), "the last event has no token"
    answer.tokens = 11
    assert outcome_of(answer, "") == Answered("answered", 0.5, 0.1, 11)


def test_of_a_stream_of_one_event_no_time_per_token_is_known() -> None:
    answer = Answer(status=200, asked=1.0)
    answer.add(b"data: a\n\n", 1.5)
    assert outcome_of(answer, "") == Answered("answered", 0.5)
