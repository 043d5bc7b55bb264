"""D6: of models of the class, the smallest that passes is chosen, and no larger one is trained. The Pods are played."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.finetunesweeps.trials import evaluation_of, trains, trials, wait_trial
from tests.integration.operator.jobs import evaluation_report
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, TEMPLATE

pytestmark = pytest.mark.usefixtures("operator")
SIZES = {"m1": 1_000_000, "m2": 2_000_000, "m4": 4_000_000}


@pytest.fixture
def sizes(api: Api) -> Iterator[str]:
    """A class that lists three models."""
    name = f"sizes-{secrets.token_hex(4)}"
    bases = {size: {"uri": f"s3://models/{size}", "parameters": SIZES[size]} for size in ("m4", "m1", "m2")}
    listed = [{"name": size, "base": base} for size, base in bases.items()]
    api.create("FineTuneClass", name, {**CLASS, "models": listed})
    yield name
    api.delete("FineTuneClass", name)


def test_models_of_one_two_and_four_millions_of_which_the_second_passes(api: Api, sizes: str) -> None:
    training = {name: value for name, value in TEMPLATE.items() if name != "model"}
    spec = {
        "mode": "SmallestModel",
        "template": {"spec": {**training, "className": sizes}},
        "objective": OBJECTIVE,
        "smallestModel": {"models": [*SIZES, "m8"], "gates": [{"grader": "exact", "minimum": 0.4}]},
    }
    api.create("FineTuneSweep", "router", spec)
    _, message = stalled(api.wait_reason("FineTuneSweep", "router", "InvalidSpec"))
    assert f"spec.smallestModel.models names 'm8', and FineTuneClass {sizes!r} lists m4, m1, m2" in message
    smallest = {**spec["smallestModel"], "models": list(SIZES)}
    api.patch("FineTuneSweep", "router", {"spec": {"runId": "2", "smallestModel": smallest}})
    for number, score in ((1, 0.3), (2, 0.65)):
        trial = wait_trial(api, number)
        trains(api, trial, 0.5)
        (pod,) = api.wait_children(evaluation_of(api, trial), "evaluate", "Pod")
        played.ends(api, pod, evaluation_report(tuned=score))
    done = api.wait_reason("FineTuneSweep", "router", "Succeeded")
    best = done["status"]["best"]
    assert (best["number"], best["score"]) == (2, 0.65)
    assert [(trial["model"], trial["verdict"]) for trial in trials(api)] == [("m1", "GateFailed"), ("m2", "Passed")]
    asked = "'m2' is the smallest model that passes (2,000,000 parameters; 'm4', the largest, has 4,000,000)"
    assert condition(done, "Ready")["message"].startswith(asked)
    models = {job["spec"]["model"]["uri"] for job in api.items("FineTuneJob")}
    assert models == {"s3://models/m1", "s3://models/m2"}
    best_ref = {"sweepRef": {"name": "router"}}
    api.create("ModelDeployment", "router", {"className": sizes, "model": best_ref})
    wait_for(
        lambda: "applied" in api.get("ModelDeployment", "router").get("status", {}), "the deployment of the winner"
    )
    api.delete("ModelDeployment", "router")
    api.delete("FineTuneSweep", "router")
