"""Pods whose class gives them more accelerators than the job has processes."""

from __future__ import annotations

from pathlib import Path

from finetune_api.finetunejob import Method, Parallelism
from finetune_trainer.preflight.preflight import idle_accelerators, preflight
from tests.integration.trainer.runs import Workplace


def test_accelerators_that_no_process_uses_are_warned_of(workplace: Workplace, tmp_path: Path) -> None:
    (warning,) = preflight(workplace.preflight_run("idle", accelerators_per_node=8), tmp_path).dataset.warnings
    assert warning.startswith("Each Pod has 8 accelerators, of which training uses 1")
    assert "Set parallelism.processesPerNode to 8, or use a FineTuneClass" in warning
    for present in (2, None):
        parallelism = Parallelism(processes_per_node=2)
        run = workplace.preflight_run("busy", accelerators_per_node=present, parallelism=parallelism)
        assert idle_accelerators(run) is None


def test_a_method_of_one_process_is_not_told_to_use_more(workplace: Workplace) -> None:
    taught = Method.from_wire({"type": "Distillation", "distillation": {"teacher": {"uri": "s3://models/teacher"}}})
    warning = idle_accelerators(workplace.preflight_run("idle", accelerators_per_node=8, method=taught))
    assert str(warning).endswith("Use a FineTuneClass whose accelerator.countPerNode is 1.")
