"""An Evaluation on a split of a Dataset: what it waits for, and that the revision stays the same for the run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_operator.core.conditions import progressing, stalled
from finetune_operator.evaluation.kind import _references
from tests.unit.operator.evaluation.plans import NEW, decide
from tests.unit.operator.evaluation_states import EVALUATION_WIRE, observed_evaluation
from tests.unit.operator.states import NOW, Decided

SPEC = EvaluationSpec.from_wire(
    {**EVALUATION_WIRE, "dataset": {"datasetRef": {"name": "tickets", "split": "test"}, "maxExamples": 9}}
)
REVISION = PinnedRevision(name="tickets", uid="5a2b", split="test", digest="sha256:aa", uri="s3://runs/aa")
NEWER = REVISION.model_copy(update={"digest": "sha256:bb", "uri": "s3://runs/bb"})
BUILDS = progressing(Reason.WAITING_FOR_DATASET, "Dataset 'tickets' is not complete (Building).")
GONE = stalled(Reason.REFERENCE_NOT_FOUND, "Dataset 'tickets' does not exist.")


def run_of(decision: Decided) -> Any:
    """The run configuration that was made."""
    (config_map,) = (made for made in decision.plan.create if made["kind"] == "ConfigMap")
    return json.loads(config_map["data"]["run.json"])


def begun(**changes: Any) -> EvaluationStatus:
    """A run that has begun with REVISION."""
    status = decide(observed_evaluation(NEW, spec=SPEC, dataset=REVISION)).status
    return status.model_copy(update=changes)


@pytest.mark.parametrize(("found", "is_stalled"), [(BUILDS, False), (GONE, True)], ids=["builds", "gone"])
def test_it_waits_for_the_revision_and_makes_nothing(found: Any, is_stalled: bool) -> None:
    result = decide(observed_evaluation(NEW, spec=SPEC, dataset=found))
    assert (result.decision.phase, result.decision.reason) == ("Waiting", found.reason)
    assert (result.decision.stalled, result.decision.writes) == (is_stalled, ())
    assert result.status.dataset_revision is None


def test_its_pod_reads_the_revision_that_the_status_names() -> None:
    result = decide(observed_evaluation(NEW, spec=SPEC, dataset=REVISION))
    assert result.status.dataset_revision == REVISION
    run = run_of(result)
    assert (run["revision"], run["datasetUri"]) == (REVISION.to_wire(), "s3://runs/aa/test.jsonl")
    assert run["limitExamples"] == 9


@pytest.mark.parametrize("now", [NEWER, GONE], ids=["another revision", "deleted"])
def test_the_run_keeps_its_revision_in_every_try(now: Any) -> None:
    status = begun(retry_time=NOW, retries=1)
    result = decide(observed_evaluation(status, spec=SPEC, dataset=now))
    assert result.status.dataset_revision == REVISION
    assert (result.status.try_number, run_of(result)["revision"]) == (2, REVISION.to_wire())


@pytest.mark.parametrize("now", [NEWER, GONE], ids=["another revision", "deleted"])
def test_a_run_that_is_over_stays_as_it_is(now: Any) -> None:
    over = begun(phase="Failed", completion_time=NOW, observed_generation=1)
    result = decide(observed_evaluation(over, spec=SPEC, dataset=now))
    assert result.decision.writes == ()
    assert (result.status.phase, result.status.dataset_revision) == ("Failed", REVISION)


def test_another_run_id_takes_the_newer_revision() -> None:
    spec = SPEC.model_copy(update={"run_id": "2"})
    result = decide(observed_evaluation(begun(), spec=spec, dataset=NEWER))
    assert result.status.dataset_revision == NEWER


def test_a_change_of_the_dataset_wakes_the_evaluation() -> None:
    body = {"metadata": {"namespace": "team-a"}, "spec": SPEC.to_wire()}
    assert ("Dataset", "team-a", "tickets") in _references(body)
