"""An operator of sweeps alone, so that what becomes of their trials is played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.machine.ports import free_ports
from finetune_operator.finetunesweep.kind import finetunesweep
from finetune_operator.settings import Settings
from tests.integration.operator.api import namespace
from tests.integration.operator.finetunesweeps.trials import Searched
from tests.integration.operator.forked_operator import ForkedOperator
from tests.integration.operator.lives import Stage


@pytest.fixture
def searched(quiet_stage: Stage, tmp_path: Path) -> Iterator[Searched]:
    """A namespace, and an operator that is started by whoever waits, and may be killed."""
    health, metrics = free_ports(2)
    settings = Settings(
        quiet_stage.plane.kubeconfig,
        trainer_image="example.com/trainer:1",
        health_port=health,
        metrics_port=metrics,
    )
    operator = ForkedOperator(settings, tmp_path / "operator.log", kinds=(finetunesweep,))
    with namespace(quiet_stage.plane) as api:
        yield Searched(api, operator)
        operator.kill()
