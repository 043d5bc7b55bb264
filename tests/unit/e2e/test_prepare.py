"""A fresh machine's two halves: when one fails, a person learns it at once, not when the other has ended."""

from __future__ import annotations

import threading

import pytest

from e2e import images, prepare
from e2e.cluster import resolve
from e2e.cluster.resolve import Flavour
from e2e.steps import StepFailed

FAILURE = "There is no disk left. What to do: make room."


def test_the_first_failure_is_told_while_the_other_half_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def build() -> None:
        """Goes on until the failure was told."""
        assert told.wait(20)

    def up() -> None:
        raise StepFailed(FAILURE)

    def say(text: str, **_: object) -> None:
        if FAILURE in text:
            told.set()

    monkeypatch.setattr(resolve, "flavour", lambda: Flavour.OWN)
    monkeypatch.setattr(images, "build", build)
    monkeypatch.setattr(resolve, "up", up)
    monkeypatch.setattr(prepare.console, "print", say)
    with pytest.raises(StepFailed, match="no disk left"):
        prepare.cluster_with_images()
    assert told.is_set()
