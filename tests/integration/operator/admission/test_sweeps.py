"""Sweeps: what the API server refuses, and what may change while a search goes on."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import DRY_RUN, JOB, SWEEP, assert_refused
from tests.integration.operator.api import Api, RefusedError

RANK = SWEEP["search"]["parameters"][0]
RATE = "hyperparameters.learningRate"


def searching(*parameters: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"search": {"parameters": list(parameters), **rest}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"template": {"spec": JOB}}, ["compared by the loss on template.spec.dataset.validation"]),
        (
            {"template": {"spec": {**SWEEP["template"]["spec"], "runId": "2"}}},
            ['unknown field "spec.template.spec.runId"'],
        ),
        ({"template": {"spec": {**SWEEP["template"]["spec"], "adapter": {"lora": {"rank": 0}}}}}, ["lora.rank"]),
        (searching({"path": "hyperparameters.learnRate", "numbers": [1]}), ["spec.search.parameters[0].path", RATE]),
        (searching({"path": "dataset.training.uri", "texts": ["s3://data/a"]}), ["spec.search.parameters[0].path"]),
        (searching(RANK, RANK), ["spec.search.parameters[1]", "Duplicate value"]),
        (searching(), ["spec.search.parameters"]),
        (
            searching({"path": RATE, "uniform": {"minimum": 0.1, "maximum": 0.1}}),
            ["minimum must be less than maximum"],
        ),
        (
            searching({"path": RATE, "logUniform": {"minimum": 0, "maximum": 0.1}}),
            ["minimum must be greater than 0"],
        ),
        (
            searching(
                {"path": RATE, "logUniform": {"minimum": 1e-5, "maximum": 1}, "uniform": {"minimum": 0, "maximum": 1}}
            ),
            ["exactly one of uniform, logUniform, numbers and texts"],
        ),
        (
            searching({"path": RATE, "uniform": {"minimum": 0.01, "maximum": 0.1}}, algorithm="Grid"),
            ["search.algorithm Grid needs numbers or texts"],
        ),
        (searching(RANK, algorithm="Bayes"), ["spec.search.algorithm", '"TPE"']),
        ({"budget": {"trials": 201}}, ["spec.budget.trials"]),
        ({"budget": {"acceleratorHours": 0}}, ["spec.budget.acceleratorHours"]),
        ({"prune": {}}, ["spec.prune.asha", "Required value"]),
        ({"prune": {"asha": {}}}, ["spec.prune.asha.minimumSteps"]),
        ({"parallel": 0}, ["spec.parallel"]),
    ],
    ids=str,
)
def test_what_no_search_can_have_is_refused(api: Api, changes: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, "FineTuneSweep", changes, told)


def test_a_sweep_is_completed_with_its_defaults(api: Api) -> None:
    spec = api.create("FineTuneSweep", "good", SWEEP, query=DRY_RUN)["spec"]
    assert (spec["runId"], spec["parallel"], spec["suspend"]) == ("1", 2, False)
    assert spec["budget"] == {"trials": 20, "failures": 3}
    assert (spec["search"]["algorithm"], spec["search"]["seed"]) == ("TPE", 17)
    assert spec["template"]["spec"]["retryLimit"] == 3


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"suspend": True}, True),
        ({"cancel": True}, True),
        ({"parallel": 4}, True),
        ({"budget": {"trials": 40}}, True),
        ({"search": {"seed": 5}}, False),
        ({"template": {"spec": {"model": {"uri": "s3://models/other"}}}}, False),
        ({"prune": {"asha": {"minimumSteps": 10}}}, False),
        ({"runId": "2", "search": {"seed": 5}}, True),
    ],
    ids=str,
)
def test_a_change_of_a_search_needs_another_run_id(api: Api, changes: dict[str, Any], taken: bool) -> None:
    name = f"router-{secrets.token_hex(4)}"
    api.create("FineTuneSweep", name, SWEEP)
    if taken:
        api.patch("FineTuneSweep", name, {"spec": changes}, query="fieldValidation=Strict")
        return
    with pytest.raises(RefusedError) as refused:
        api.patch("FineTuneSweep", name, {"spec": changes}, query="fieldValidation=Strict")
    assert "changing the spec starts a new run: change spec.runId too" in refused.value.message
