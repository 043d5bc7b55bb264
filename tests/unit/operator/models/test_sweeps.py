"""sweepRef: the best trial of a finished sweep, with the result that it had then."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import ModelReference
from finetune_api.finetunejob import Result
from finetune_api.finetunesweep import FineTuneSweepSpec
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner, metadata
from finetune_operator.core.references import ObjectKey, model_references
from finetune_operator.kube.resources import FINE_TUNE_JOBS, FINE_TUNE_SWEEPS
from finetune_operator.models.observe import resolve_model
from finetune_operator.models.resolve import ResolvedModel
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.finetunesweep.learning_curve.test_learning_curve import curve_spec
from tests.unit.operator.finetunesweep.sweeps import sweep_spec
from tests.unit.operator.states import job_spec, job_status

OWNER = Owner("FineTuneSweep", "team-a", "rates", "5a3c")
RESULT = Result(
    uri="s3://models/trial-2/result", base_model_uri="s3://models/base", adapter_type="LoRA", step=9, digest="sha256:aa"
)
BEST = {"number": 2, "fineTuneJobName": "trial-2", "score": 0.3, "digest": "sha256:aa"}
DONE = {"runId": "1", "phase": "Succeeded", "completionTime": "2026-11-27T12:00:00Z", "best": BEST}


async def resolved(
    sweep: dict[str, Any] | None,
    result: Result | None = RESULT,
    owner: Owner = OWNER,
    spec: FineTuneSweepSpec | None = None,
) -> ResolvedModel | Readiness:
    """What `sweepRef: {name: rates}` stands for, if this is the owner of the trial's job."""
    status = job_status(phase="Succeeded", run_id="1", result=result)
    job = {"metadata": metadata(owner, "trial-2", "trial"), "spec": job_spec().to_wire(), "status": status.to_wire()}
    answers: dict[str, Any] = {f"GET {FINE_TUNE_JOBS.path('team-a', 'trial-2')}": job}
    if sweep is not None:
        asked = sweep_spec() if spec is None else spec
        body = {"metadata": {"name": "rates", "uid": OWNER.uid}, "spec": asked.to_wire(), "status": sweep}
        answers[f"GET {FINE_TUNE_SWEEPS.path('team-a', 'rates')}"] = body
    reference = ModelReference.from_wire({"sweepRef": {"name": "rates"}})
    return await resolve_model(FakeKube(answers), "team-a", reference)


async def test_it_is_the_result_of_the_best_trial_with_its_digest_and_base() -> None:
    model = await resolved(DONE)
    assert isinstance(model, ResolvedModel)
    assert (model.source.adapter_uri, model.source.digest) == (RESULT.uri, "sha256:aa")
    assert model.base is not None
    assert model.base.uri == "s3://models/base"


@pytest.mark.parametrize(
    ("sweep", "reason", "stalled", "told"),
    [
        (None, Reason.REFERENCE_NOT_FOUND, True, "does not exist in namespace 'team-a'. Create it."),
        ({}, Reason.WAITING_FOR_MODEL, False, "FineTuneSweep 'rates' is not complete: its run '1' has not begun."),
        ({**DONE, "runId": "0"}, Reason.WAITING_FOR_MODEL, False, "its run '1' has not begun."),
        ({"runId": "1", "phase": "Running", "best": BEST}, Reason.WAITING_FOR_MODEL, False, "not complete (Running)."),
        ({**DONE, "phase": "Failed"}, Reason.WAITING_FOR_MODEL, True, "failed: see `kubectl describe fts rates`"),
        ({**DONE, "phase": "Cancelled"}, Reason.WAITING_FOR_MODEL, True, "was cancelled"),
        (
            {**DONE, "phase": "Odd"},
            Reason.WAITING_FOR_MODEL,
            True,
            "is Odd, which this version of the operator does not know.",
        ),
        ({**DONE, "best": 7}, Reason.WAITING_FOR_MODEL, True, "can't be read by this version"),
    ],
    ids=["none", "new", "another run", "searching", "failed", "cancelled", "an unknown phase", "unreadable"],
)
async def test_until_there_is_one_it_is_waited_for(
    sweep: dict[str, Any] | None, reason: Reason, stalled: bool, told: str
) -> None:
    waits = await resolved(sweep)
    assert isinstance(waits, Readiness)
    assert (waits.reason, waits.stalled) == (reason, stalled)
    assert told in waits.message


@pytest.mark.parametrize(
    "status", [DONE, {"runId": "1", "phase": "Running"}], ids=["another version's best", "running"]
)
async def test_a_learning_curve_has_no_best_model(status: dict[str, Any]) -> None:
    """What the trials of one differ in is how much of the data they have."""
    waits = await resolved(status, spec=curve_spec())
    assert isinstance(waits, Readiness)
    assert (waits.reason, waits.stalled) == (Reason.WAITING_FOR_MODEL, True)
    assert "FineTuneSweep 'rates' has mode LearningCurve, which chooses no model." in waits.message


@pytest.mark.parametrize("known", ["sha256:bb", None], ids=["another", "none"])
async def test_a_result_that_is_not_the_one_that_the_sweep_measured_is_not_used(known: str | None) -> None:
    waits = await resolved({**DONE, "best": {**BEST, "digest": known}})
    assert isinstance(waits, Readiness)
    assert waits.stalled
    assert "The result of FineTuneJob 'trial-2' may be another one than when" in waits.message


async def test_a_job_that_is_no_trial_of_the_sweep_is_not_its_winner() -> None:
    """Whoever can write its status could name any job."""
    waits = await resolved(DONE, owner=Owner("FineTuneSweep", "team-a", "rates", "of-a-sweep-before"))
    assert isinstance(waits, Readiness)
    assert (waits.reason, waits.stalled) == (Reason.REFERENCE_NOT_FOUND, True)
    assert "FineTuneSweep 'rates' has no FineTuneJob 'trial-2' any more, its best trial." in waits.message


async def test_a_trial_that_trains_again_is_waited_for() -> None:
    waits = await resolved(DONE, result=None)
    assert isinstance(waits, Readiness)
    assert "FineTuneJob 'trial-2' is not complete" in waits.message


def test_the_end_of_a_sweep_wakes_who_waits_for_it() -> None:
    body = {"metadata": {"namespace": "team-a"}}
    found = model_references(body, {"sweepRef": {"name": "rates"}}, {"fineTuneJobRef": {"name": "router"}}, None)
    assert found == {ObjectKey("FineTuneSweep", "team-a", "rates"), ObjectKey("FineTuneJob", "team-a", "router")}
