"""Which connection makes room for a newcomer."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_trainer.serving.transport.connections import one_too_many


@dataclass
class Client:
    address: str
    since: float = 0.0
    owes_a_request: bool = False


def test_of_the_client_with_the_most_without_a_request_the_oldest_one() -> None:
    probe, idle, *many = (Client("node"), Client("a", 0, True), *(Client("b", 5 - n, True) for n in range(3)))
    assert one_too_many(probe, [Client("b"), idle, *many]) is many[-1]


def test_a_request_that_is_answered_is_cut_only_for_a_client_that_has_fewer() -> None:
    answered = [Client("a", 2), Client("a", 1), Client("b", 0)]
    assert one_too_many(probe := Client("node"), answered) is answered[1]
    assert one_too_many(probe, [Client("a"), Client("b")]) is probe
    assert one_too_many(another := Client("a"), answered) is another
