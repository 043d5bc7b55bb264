"""A job that goes on from another's result, on a real API server: it waits, wakes, and needs the other no more."""

from __future__ import annotations

import json

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, stalled
from tests.integration.operator.jobs import JOB, RESULT, preflight_succeeds

pytestmark = pytest.mark.usefixtures("operator")

NEXT: Object = {**JOB, "model": {"fineTuneJobRef": {"name": "first"}}}
STARTING: Object = {"uri": RESULT.base_model_uri, "adapterUri": RESULT.uri, "digest": RESULT.digest}


def model_of(api: Api, made: Object) -> Object:
    """What the preflight Pod, or the Pods of a Job, load."""
    template = made["spec"].get("template", made)
    model: Object = json.loads(played.run_files(api, template)["run.json"])["model"]
    return model


def test_a_job_goes_on_from_the_result_of_another_as_it_was_when_it_started(api: Api) -> None:
    job = api.create("FineTuneJob", "next", NEXT)
    missing = api.wait_reason("FineTuneJob", "next", "ReferenceNotFound")
    assert stalled(missing)[0] == "ReferenceNotFound"
    api.create("FineTuneJob", "first", {**JOB, "suspend": True})
    status = api.wait_reason("FineTuneJob", "first", "Suspended")["status"]
    waiting = api.wait_reason("FineTuneJob", "next", "WaitingForModel")
    assert stalled(waiting) == ("", "")
    assert not api.children_of(job, "preflight", "Pod")
    # That it has trained is played here.
    api.put_status("FineTuneJob", "first", {**status, "phase": "Succeeded", "result": RESULT.to_wire()})

    (preflight,) = api.wait_children(job, "preflight", "Pod")
    assert model_of(api, preflight) == STARTING
    found = api.wait_reason("FineTuneJob", "next", "Validating")
    assert found["status"]["startingModel"] == STARTING
    assert "suspendTime" not in found["status"]

    api.delete("FineTuneJob", "first")
    train = preflight_succeeds(api, job)
    assert model_of(api, train) == STARTING
    queued = api.wait_reason("FineTuneJob", "next", "Queued")
    assert queued["status"]["startingModel"] == STARTING
    assert queued["status"]["resolved"]["learningRate"] == 4e-5
