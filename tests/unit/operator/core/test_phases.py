"""The phase of every kind follows from the reason of its conditions, by one table that leaves none out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset import Phase as DatasetPhase
from finetune_api.evaluation import Phase as EvaluationPhase
from finetune_api.finetunejob import AttemptState, Phase
from finetune_api.finetunesweep import Phase as SweepPhase
from finetune_api.kinds import KINDS
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_api.modeldeployment import Phase as DeploymentPhase
from finetune_operator import reference
from finetune_operator.core.conditions import Readiness, cancelled, failed, progressing, stalled
from finetune_operator.core.plan import Phases
from finetune_operator.dataset.plan import PHASES as DATASET_PHASES
from finetune_operator.evaluation.plan import PHASES as EVALUATION_PHASES
from finetune_operator.finetunejob.attempt_state import progress_reason
from finetune_operator.finetunejob.plan import PHASES
from finetune_operator.finetunesweep.plan import PHASES as SWEEP_PHASES
from finetune_operator.kube.client import ApiError
from finetune_operator.modeldeployment.plan import PHASES as DEPLOYMENT_PHASES
from finetune_operator.runtime.reconciler.rejections import refused_write_plan
from tests.unit.operator.states import attempt_status, trained_status

TABLES: dict[str, tuple[Phases[Any], tuple[str, ...]]] = {
    "FineTuneJob": (PHASES, get_args(Phase)),
    "Evaluation": (EVALUATION_PHASES, get_args(EvaluationPhase)),
    "ModelDeployment": (DEPLOYMENT_PHASES, get_args(DeploymentPhase)),
    "FineTuneSweep": (SWEEP_PHASES, get_args(SweepPhase)),
    "Dataset": (DATASET_PHASES, get_args(DatasetPhase)),
}
each_kind = pytest.mark.parametrize("kind", TABLES)


@each_kind
@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_phase(kind: str, reason: Reason) -> None:
    table, phases = TABLES[kind]
    for meanwhile in table.of_reason:
        for readiness in (progressing(reason), stalled(reason, "why"), Readiness(True, reason, "it is there")):
            assert table.of(readiness, meanwhile, phases[0]) in phases


@each_kind
def test_every_phase_is_reached(kind: str) -> None:
    table, phases = TABLES[kind]
    reached = {*table.of_reason.values(), table.failed, table.stalled} - {None}
    assert reached == set(phases)


@each_kind
def test_no_reason_that_a_pod_reports_moves_an_object_that_is_stalled(kind: str) -> None:
    """A report may name any reason: it is a diagnosis, and the phase is that of what goes on."""
    table, phases = TABLES[kind]
    meanwhile = next(iter(table.of_reason))
    found = {
        table.of(stalled(reason, "reported"), meanwhile, phases[0]) for reason in Reason if reason not in table.stays
    }
    assert len(found) == 1


def test_a_run_that_failed_is_failed_whatever_the_reason() -> None:
    assert {PHASES.of(failed(reason, "over"), Reason.TRAINING, "Training") for reason in Reason} == {"Failed"}


@pytest.mark.parametrize("kind", ["FineTuneJob", "Evaluation", "FineTuneSweep", "Dataset"])
def test_only_spec_cancel_makes_a_run_cancelled(kind: str) -> None:
    table, phases = TABLES[kind]
    meanwhile = next(iter(table.of_reason))
    assert table.of(cancelled(), meanwhile, phases[0]) == "Cancelled"
    assert table.of(failed(Reason.CANCELLED, "as a Pod reports"), meanwhile, phases[0]) == "Failed"


@pytest.mark.parametrize("state", [None, *get_args(AttemptState)])
def test_a_diagnosis_leaves_a_job_where_its_attempt_is(state: AttemptState | None) -> None:
    attempt = None if state is None else attempt_status(state=state)
    status = trained_status().model_copy(update={"attempt": attempt})
    meanwhile = PHASES.of(stalled(Reason.UNSCHEDULABLE, "no node"), progress_reason(status), "Validating")
    ended_early = state in ("Failed", "Disrupted", "Succeeded")  # without a result, a success is none
    assert meanwhile == ("Training" if state == "Running" else "Retrying" if ended_early else "Queued")


def test_a_refused_write_leaves_the_phase_of_what_runs_and_the_page_says_so() -> None:
    serves = ModelDeploymentStatus(phase="Available")
    parent = {"metadata": {"generation": 1}}
    refusal = ApiError(422, "Invalid", "spec.ports[1].name: Duplicate value")
    refusal.written_kind = "Service"
    found = refused_write_plan(serves, serves, parent, refusal, datetime.now(UTC)).status
    assert isinstance(found, ModelDeploymentStatus)
    assert [one.reason for one in found.conditions if one.type == "Stalled"] == ["ObjectRejected"]
    assert found.phase == "Available"
    assert "leaves the phase as it was" in reference.phases_page()


def test_the_reference_page_is_what_the_tables_say() -> None:
    page = Path(__file__).parents[4] / "docs" / "reference" / reference.PHASES_FILE
    assert page.read_text() == reference.phases_page(), "run `make generate`"


def test_every_kind_that_has_phases_is_on_the_page() -> None:
    with_phases = {kind.name for kind in KINDS if "phase" in kind.status.model_fields}
    assert reference.PHASES.keys() == TABLES.keys() == with_phases
