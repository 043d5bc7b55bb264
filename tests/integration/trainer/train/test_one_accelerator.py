"""A process that sees several accelerators trains on one of them, with the batch that the spec asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.train import build_trainer
from tests.integration.trainer.runs import Workplace, train_here

ACCELERATORS = 8


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers counts; without a driver they compute nothing."""
    arguments = build_trainer._arguments

    def on_any_device(*parts: Any) -> dict[str, Any]:
        return {name: value for name, value in arguments(*parts).items() if name != "use_cpu"}

    monkeypatch.setattr(build_trainer, "_arguments", on_any_device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: ACCELERATORS)


def test_its_steps_are_those_of_a_machine_with_one(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    train_here(workplace.train_run("one"), tmp_path / "one")
    request.getfixturevalue("several")
    train_here(workplace.train_run("several"), tmp_path / "several")
    one, several = ([row["train_loss"] for row in workplace.results(output)] for output in ("one", "several"))
    assert several == one
