"""A warning where a candidate was trained on another revision of the Dataset than the Evaluation reads."""

from __future__ import annotations

import pytest

from finetune_api.dataset_reference import PinnedRevision, PinnedRevisions
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_operator.models.checkpoints import checkpoint_models
from finetune_operator.models.resolve import ResolvedModel, TrainedOn, tuned_model
from tests.unit.operator.evaluation.plans import NEW, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    EVALUATION_WIRE,
    observed_evaluation,
    tuned,
)
from tests.unit.operator.models.test_checkpoints import KEPT, run_of
from tests.unit.operator.states import RESULT, job, job_spec, succeeded_pod

MEASURED = PinnedRevision(name="tickets", uid="5a2b", split="test", digest="sha256:bb", uri="s3://runs/bb")
EARLIER = PinnedRevision(name="tickets", uid="5a2b", split="training", digest="sha256:aa", uri="s3://runs/aa/")
SAME = EARLIER.model_copy(update={"digest": "sha256:bb", "uri": "s3://runs/again"})
OF_ANOTHER_DATASET = EARLIER.model_copy(update={"uid": "77ff"})
SPEC = EvaluationSpec.from_wire({**EVALUATION_WIRE, "dataset": {"datasetRef": {"name": "tickets", "split": "test"}}})


def trained(on: PinnedRevision | None, by: str = "router", digest: str = "sha256:aa") -> ResolvedModel:
    """A candidate that a job has trained on this revision; None: on no Dataset."""
    found = tuned(digest)
    return ResolvedModel(found.source, found.base, None if on is None else TrainedOn(by, on))


def begun(*candidates: tuple[str, ResolvedModel]) -> EvaluationStatus:
    """The status of a run that has begun with these candidates."""
    result = decide(observed_evaluation(NEW, spec=SPEC, candidates=candidates, dataset=MEASURED))
    assert result.decision.phase == "Evaluating"
    return result.status


@pytest.mark.parametrize("adapter_type", ["LoRA", "Full"])
def test_the_result_of_a_job_has_the_revision_that_the_job_trained_on(adapter_type: str) -> None:
    result = RESULT.model_copy(update={"adapter_type": adapter_type})
    pins = PinnedRevisions(training=EARLIER)
    status = FineTuneJobStatus(phase="Succeeded", run_id="1", result=result, dataset_revisions=pins)
    found = tuned_model("router", job_spec(), status)
    assert isinstance(found, ResolvedModel)
    assert found.trained_on == TrainedOn("router", EARLIER)


def test_so_has_each_of_its_checkpoints() -> None:
    status = run_of(KEPT, dataset_revisions=PinnedRevisions(training=EARLIER))
    found = checkpoint_models("router", job_spec(), status, "All")
    assert isinstance(found, dict)
    assert [one.trained_on for one in found.values()] == [TrainedOn("router", EARLIER)] * len(KEPT)


def test_the_warning_names_job_dataset_both_revisions_and_what_to_do() -> None:
    (warning,) = begun(("tuned", trained(EARLIER))).warnings
    assert warning == (
        "TrainedOnAnotherRevision: FineTuneJob 'router' trained on revision sha256:aa of Dataset 'tickets', and this "
        "run reads the test split of revision sha256:bb, which may have examples that the job trained on. Train again "
        "(spec.runId of the job, or of its sweep), or evaluate the job's own revision, if it has that split: change "
        "spec.runId, with dataset.uri: s3://runs/aa/test.jsonl instead of datasetRef; sources.datasets of the class "
        "must allow it."
    )


@pytest.mark.parametrize(
    "on", [SAME, OF_ANOTHER_DATASET, None], ids=["same digest, built again", "another Dataset", "no Dataset"]
)
def test_there_is_none_for(on: PinnedRevision | None) -> None:
    assert begun(("tuned", trained(on))).warnings == []


def test_there_is_none_for_an_evaluation_on_files() -> None:
    files = EvaluationSpec.from_wire(EVALUATION_WIRE)
    assert decide(observed_evaluation(NEW, spec=files, model=trained(EARLIER))).status.warnings == []


def test_each_job_is_named_once_whatever_number_of_its_checkpoints_is_measured() -> None:
    of_router = [(f"tuned-step-{step}", trained(EARLIER, digest=f"sha256:{step}")) for step in (1, 2)]
    warnings = begun(*of_router, ("large", trained(EARLIER, "large")), ("new", trained(SAME, "new"))).warnings
    assert [one.split("'")[1] for one in warnings] == ["router", "large"]


def test_it_stays_beside_those_of_the_pod_when_the_run_is_over() -> None:
    status = begun(("tuned", trained(EARLIER)))
    (warning,) = status.warnings
    report = EvaluationReport(scores=EVALUATION_REPORT.scores, report_uri=f"{status.storage_uri}/report.json")
    report = report.model_copy(update={"warnings": ["JudgeUnreliable: x"]})
    name = status.job_name or ""
    ended = observed_evaluation(
        status, job(name, "Complete"), pods=(succeeded_pod(name, report),), spec=SPEC, dataset=MEASURED
    )
    over = decide(ended).status
    assert over.completion_time is not None
    assert over.warnings == [warning, "JudgeUnreliable: x"]
    again = observed_evaluation(over, spec=SPEC, dataset=MEASURED)
    assert decide(again).status.warnings == over.warnings


def test_a_uri_of_any_length_fits_into_the_status() -> None:
    far = EARLIER.model_copy(update={"uri": "s3://runs/" + "a" * 1000})
    (warning,) = begun(("tuned", trained(far))).warnings
    assert warning.startswith("TrainedOnAnotherRevision: FineTuneJob 'router' trained on revision sha256:aa")
