"""Sweeps: what the API server refuses, and what may change while a search goes on."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import DRY_RUN, GRADER, JOB, SWEEP, assert_refused
from tests.integration.operator.api import Api, RefusedError

RANK = SWEEP["search"]["parameters"][0]
TEST = "s3://data/test.jsonl"
RATE = "hyperparameters.learningRate"


def searching(*parameters: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"search": {"parameters": list(parameters), **rest}}


def training(**changes: Any) -> dict[str, Any]:
    return {"template": {"spec": {**SWEEP["template"]["spec"], **changes}}}


def scoring(grader: str = "exact", **spec: Any) -> dict[str, Any]:
    measured = {"dataset": {"uri": TEST}, "graders": [GRADER], **spec}
    return {"template": {"spec": measured}, "grader": grader}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"template": {"spec": JOB}}, ["compared by the loss on template.spec.dataset.validation"]),
        (
            {"template": {"spec": {**SWEEP["template"]["spec"], "runId": "2"}}},
            ['unknown field "spec.template.spec.runId"'],
        ),
        ({"template": {"spec": {**SWEEP["template"]["spec"], "adapter": {"lora": {"rank": 0}}}}}, ["lora.rank"]),
        (training(method={"type": "RFT"}), ["spec.template.spec.method.type", '"DPO"']),
        (training(checkpoints={"best": {"metric": "ValidReward"}}), ["spec.template.spec.checkpoints.best.metric"]),
        (
            training(method={"type": "DPO"}, hyperparameters={"packing": True}),
            ["hyperparameters.packing needs method.type SFT"],
        ),
        (searching({"path": "hyperparameters.learnRate", "numbers": [1]}), ["spec.search.parameters[0].path", RATE]),
        (searching({"path": "dataset.training.uri", "texts": ["s3://data/a"]}), ["spec.search.parameters[0].path"]),
        (searching({"path": RANK["path"], "numbers": [8, 8.5]}), ["numbers", "the field takes whole numbers only"]),
        (searching({"path": RANK["path"], "numbers": [8, 8.0, 16]}), ["numbers name each value once"]),
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
        ({"prune": {}}, ["spec.prune", "set exactly one of asha and median"]),
        ({"prune": {"asha": {"minimumSteps": 10}, "median": {"minimumSteps": 10}}}, ["set exactly one of asha"]),
        ({"prune": {"median": {"minimumSteps": 0}}}, ["spec.prune.median.minimumSteps"]),
        ({"prune": {"asha": {}}}, ["spec.prune.asha.minimumSteps"]),
        ({"parallel": 0}, ["spec.parallel"]),
        ({"objective": {"type": "Evaluation"}}, ["evaluation is required with type Evaluation"]),
        ({"objective": {"evaluation": scoring()}}, ["evaluation is only allowed with type Evaluation"]),
        (
            {"objective": {"type": "Evaluation", "evaluation": scoring(grader="fluent")}},
            ["spec.objective.evaluation.grader", "grader names one of template.spec.graders"],
        ),
        (
            {"objective": {"type": "Evaluation", "evaluation": scoring(gates=[])}},
            ['unknown field "spec.objective.evaluation.template.spec.gates"'],
        ),
        (
            {"objective": {"type": "Evaluation", "evaluation": {**scoring(), "holdout": {"uri": TEST}}}},
            ["spec.objective.evaluation.holdout.uri", "compared on template.spec.dataset: holdout has other examples"],
        ),
        (
            {
                "objective": {
                    "type": "Evaluation",
                    "evaluation": {**scoring(), "holdout": JOB["dataset"]["training"]},
                }
            },
            ["trained and compared on template.spec.dataset: holdout has other examples"],
        ),
        (
            {"objective": {"type": "Evaluation", "evaluation": {**scoring(), "holdout": {}}}},
            ["spec.objective.evaluation.holdout", "set exactly one of uri and datasetRef"],
        ),
        (
            {
                "template": {"spec": JOB},
                "objective": {"type": "Evaluation", "evaluation": scoring()},
                "prune": {"asha": {"minimumSteps": 10}},
            },
            ["compared by the loss on template.spec.dataset.validation"],
        ),
    ],
    ids=str,
)
def test_what_no_search_can_have_is_refused(api: Api, changes: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, "FineTuneSweep", changes, told)


FROZEN = {"epochs": 1, "batchSize": 8, "maxLength": 512}
FILES = {**JOB["dataset"], "validation": {"uri": "s3://data/valid.jsonl"}}
CURVE: dict[str, Any] = {
    "mode": "LearningCurve",
    "search": None,
    "template": {"spec": {**JOB, "dataset": FILES, "hyperparameters": FROZEN}},
}


def curve_of(**changes: Any) -> dict[str, Any]:
    """A learning curve with changes of its template."""
    return {**CURVE, "template": {"spec": {**CURVE["template"]["spec"], **changes}}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": None}, ["search is required with mode Search, and only allowed with it"]),
        ({**CURVE, "search": SWEEP["search"]}, ["search is required with mode Search, and only allowed with it"]),
        ({"learningCurve": {}}, ["learningCurve is only allowed with mode LearningCurve"]),
        (
            {
                **CURVE,
                "objective": {
                    "type": "Evaluation",
                    "evaluation": {**scoring(), "holdout": {"uri": "s3://data/holdout.jsonl"}},
                },
            },
            ["mode LearningCurve chooses no trial that holdout would confirm"],
        ),
        ({**CURVE, "prune": {"asha": {"minimumSteps": 10}}}, ["prune is only allowed with mode Search"]),
        (curve_of(hyperparameters={"epochs": 1}), ["mode LearningCurve needs epochs, batchSize and maxLength"]),
        (curve_of(hyperparameters=None), ["mode LearningCurve needs epochs, batchSize and maxLength"]),
        (curve_of(dataset={**JOB["dataset"], "validation": {"splitPercent": 10}}), ["needs validation files"]),
        (curve_of(dataset=JOB["dataset"]), ["compared by the loss on template.spec.dataset.validation"]),
        (
            curve_of(dataset={**FILES, "training": {**FILES["training"], "limit": {"percent": 50}}}),
            ["mode LearningCurve sets dataset.training.limit itself"],
        ),
        ({**CURVE, "learningCurve": {"percents": [25, 50, 100]}}, ["spec.learningCurve.percents"]),
        ({**CURVE, "learningCurve": {"percents": [0, 25, 50, 100]}}, ["spec.learningCurve.percents[0]"]),
        ({**CURVE, "learningCurve": {"seeds": 1}}, ["spec.learningCurve.seeds"]),
        ({**CURVE, "learningCurve": {"percents": [25, 25.0, 50, 100]}}, ["percents name each size once"]),
        ({**CURVE, "learningCurve": {"percents": [94, 96, 98, 100]}}, ["at least four times the smallest"]),
        ({**CURVE, "learningCurve": {"percents": [8.1, 16, 24, 32]}}, ["at least four times the smallest"]),
        (
            curve_of(hyperparameters={**FROZEN, "seed": 4294967295}),
            ["hyperparameters.seed and those of learningCurve.seeds after it are at most 4294967295"],
        ),
    ],
    ids=str,
)
def test_what_no_learning_curve_can_have_is_refused(api: Api, changes: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, "FineTuneSweep", changes, told)


SIZES: dict[str, Any] = {
    "mode": "SmallestModel",
    "search": None,
    "template": {"spec": {**JOB, "model": None}},
    "objective": {"type": "Evaluation", "evaluation": scoring()},
    "smallestModel": {"gates": [{"grader": "exact", "minimum": 0.4}]},
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"template": {"spec": {**SWEEP["template"]["spec"], "model": None}}}, ["template.spec.model is required"]),
        ({"smallestModel": SIZES["smallestModel"]}, ["smallestModel is required with mode SmallestModel, and only"]),
        ({**SIZES, "smallestModel": None}, ["smallestModel is required with mode SmallestModel, and only"]),
        ({**SIZES, "template": {"spec": JOB}}, ["but with mode SmallestModel, which chooses it"]),
        ({**SIZES, "objective": None}, ["mode SmallestModel needs objective.evaluation"]),
        ({**SIZES, "search": SWEEP["search"]}, ["search is required with mode Search, and only allowed with it"]),
        ({**SIZES, "prune": {"asha": {"minimumSteps": 10}}}, ["prune is only allowed with mode Search"]),
        ({**SIZES, "smallestModel": {"gates": []}}, ["spec.smallestModel.gates"]),
        (
            {**SIZES, "smallestModel": {"gates": [{"grader": "fluent", "minimum": 0.4}]}},
            ["each gate names one of the graders of objective.evaluation.template.spec"],
        ),
        (
            {**SIZES, "smallestModel": {"gates": [{"benchmark": "arc", "minimum": 0.4}]}},
            ["each gate names one of the graders of objective.evaluation.template.spec"],
        ),
        (
            {**SIZES, "smallestModel": {**SIZES["smallestModel"], "models": ["Large"]}},
            ["spec.smallestModel.models[0]"],
        ),
    ],
    ids=str,
)
def test_what_no_sweep_over_models_can_have_is_refused(api: Api, changes: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, "FineTuneSweep", changes, told)


def test_a_sweep_over_models_needs_gates_alone(api: Api) -> None:
    spec = {name: value for name, value in {**SWEEP, **SIZES}.items() if value is not None}
    training = {name: value for name, value in JOB.items() if name != "model"}
    found = api.create("FineTuneSweep", "good", {**spec, "template": {"spec": training}}, query=DRY_RUN)["spec"]
    assert "model" not in found["template"]["spec"]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"base": {"uri": "s3://models/m", "parameters": 0}}, ["spec.models[0].base.parameters"]),
        ({"base": {"uri": "s3://models/m"}}, ["spec.models[0].base.parameters"]),
        ({"base": {"uri": "s3://models/m", "parameters": 9}, "url": "https://api.example.com/v1"}, ["exactly one of"]),
        ({"base": {"uri": "s3://models/m", "parameters": 9}, "model": "m"}, ["a base model is loaded, and not asked"]),
        ({"base": {"uri": "s3://models/m", "parameters": 9}, "requestsPerMinute": 9}, ["loaded, and not asked"]),
        ({"base": {"uri": "s3://models/m", "parameters": 9, "adapters": ["Prefix"]}}, ["base.adapters[0]"]),
    ],
    ids=str,
)
def test_what_no_class_can_list_is_refused(api: Api, model: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, "FineTuneClass", {"models": [{"name": "m", **model}]}, told)


def test_a_learning_curve_needs_no_fields_of_its_own(api: Api) -> None:
    spec = {name: value for name, value in {**SWEEP, **CURVE}.items() if value is not None}
    assert "learningCurve" not in api.create("FineTuneSweep", "good", spec, query=DRY_RUN)["spec"]
    close = {**spec, "learningCurve": {"percents": [8, 32, 24, 16]}}
    assert api.create("FineTuneSweep", "good", close, query=DRY_RUN)["spec"]["learningCurve"]["seeds"] == 2
    full = {**spec, "learningCurve": {}}
    curve = api.create("FineTuneSweep", "good", full, query=DRY_RUN)["spec"]["learningCurve"]
    assert curve == {"percents": [6.25, 12.5, 25, 50, 100], "seeds": 2, "worthwhileGain": 0.01}


def test_a_share_of_the_examples_may_be_a_fraction(api: Api) -> None:
    training = {**JOB["dataset"]["training"], "limit": {"percent": 6.25}}
    api.create("FineTuneJob", "good", {**JOB, "dataset": {"training": training}}, query=DRY_RUN)
    training["limit"] = {"percent": 0}
    assert_refused(api, "FineTuneJob", {"dataset": {"training": training}}, ["spec.dataset.training.limit.percent"])


def test_what_is_compared_by_a_grader_needs_no_validation_data(api: Api) -> None:
    objective = {"type": "Evaluation", "evaluation": scoring()}
    spec = {**SWEEP, "template": {"spec": JOB}, "objective": objective}
    assert (
        api.create("FineTuneSweep", "good", spec, query=DRY_RUN)["spec"]["objective"]["evaluation"]["goal"]
        == "Maximize"
    )


def test_what_the_best_is_measured_on_may_be_a_split_of_a_dataset(api: Api) -> None:
    holdout = {"datasetRef": {"name": "tickets", "split": "test"}}
    objective = {"type": "Evaluation", "evaluation": {**scoring(), "holdout": holdout}}
    found = api.create("FineTuneSweep", "good", {**SWEEP, "objective": objective}, query=DRY_RUN)["spec"]
    assert found["objective"]["evaluation"]["holdout"] == holdout


def test_a_sweep_is_completed_with_its_defaults(api: Api) -> None:
    spec = api.create("FineTuneSweep", "good", SWEEP, query=DRY_RUN)["spec"]
    assert (spec["runId"], spec["suspend"]) == ("1", False)
    assert "parallel" not in spec, "it depends on the mode"
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
        ({"objective": {"type": "Evaluation", "evaluation": scoring()}}, False),
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
