"""A search that can't work is refused before a trial is started, with the field and what to change."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from finetune_operator.finetunesweep import observe as observing
from finetune_operator.finetunesweep.refusal import search_refusal
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object, Resource
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, RANK, RATE, TEMPLATE, SweepWorld, sweep_spec


@pytest.mark.parametrize(
    ("parameter", "template", "told"),
    [
        (RATE, {"hyperparameters": {"learningRate": 1e-4}}, "is 0.0001 already: a field is either set or searched"),
        (RANK, {"adapter": {"type": "QLoRA"}}, "lora is only allowed with type LoRA"),
        ({"path": "adapter.lora.rank", "numbers": [8, 5000]}, {}, "5000 is not possible"),
        ({"path": "hyperparameters.learningRate", "uniform": {"minimum": 0, "maximum": 1}}, {}, "greater than 0"),
        ({"path": "hyperparameters.learningRate", "texts": ["fast"]}, {}, "'fast' is not possible"),
        (
            {"path": "hyperparameters.learningRate", "texts": ["0.1"]},
            {},
            "'0.1' is not possible. The field takes numbers",
        ),
        ({"path": "hyperparameters.schedule", "uniform": {"minimum": 0, "maximum": 1}}, {}, "takes no numbers"),
        ({"path": "adapter.lora.rank", "uniform": {"minimum": 1.5, "maximum": 8}}, {}, "1.5 is not possible"),
        (
            {"path": "hyperparameters.batchSize", "numbers": [8, 12, 15]},
            {"parallelism": {"nodes": 2}},
            "15 is no multiple of parallelism.nodes * processesPerNode, 2",
        ),
        (
            {"path": "hyperparameters.batchSize", "uniform": {"minimum": 2, "maximum": 8}},
            {"parallelism": {"processesPerNode": 2}},
            "name numbers, all of them multiples",
        ),
        (
            {"path": "hyperparameters.seed", "numbers": [1, 2]},
            {"dataset": {**TEMPLATE["dataset"], "validation": {"splitPercent": 10}}},
            "trials would be compared on different ones",
        ),
        (
            {"path": "hyperparameters.earlyStopping.patience", "numbers": [1, 2]},
            {"dataset": {"training": TEMPLATE["dataset"]["training"]}},
            "earlyStopping needs dataset.validation",
        ),
    ],
)
def test_what_the_template_cannot_have(parameter: dict[str, Any], template: dict[str, Any], told: str) -> None:
    objective = {} if "validation" in template.get("dataset", TEMPLATE["dataset"]) else {"objective": OBJECTIVE}
    world = SweepWorld(sweep_spec(template, {"parameters": [parameter]}, **objective))
    world.settle()
    assert not world.created
    assert world.reason("Stalled") == ("True", "InvalidSpec")
    (message,) = {one.message for one in world.status.conditions}
    assert f"spec.search.parameters[0] ({parameter['path']})" in message
    assert told in message


@pytest.mark.parametrize(
    "parameter",
    [
        RATE,
        RANK,
        {"path": "hyperparameters.schedule", "texts": ["Cosine", "Linear"]},
        {"path": "hyperparameters.epochs", "numbers": [0.5, 1, 3]},
        {"path": "hyperparameters.warmupPercent", "uniform": {"minimum": 0, "maximum": 10}},
        {"path": "adapter.lora.rank", "logUniform": {"minimum": 4, "maximum": 64}},
        {"path": "hyperparameters.seed", "numbers": [1, 2]},
    ],
)
def test_what_it_can(parameter: dict[str, Any]) -> None:
    assert search_refusal(sweep_spec(search={"parameters": [parameter]})) is None


def test_a_default_that_the_api_server_fills_in_does_not_set_the_field() -> None:
    template = {"adapter": {"type": "LoRA", "lora": {"rank": 16, "alpha": 64}}}
    assert search_refusal(sweep_spec(template)) is None


TRAIN, VALID, TEST, OTHER = ({"uri": f"s3://data/{name}.jsonl"} for name in ("train", "valid", "test", "other"))


def split(name: str, dataset: str = "tickets") -> dict[str, Any]:
    return {"datasetRef": {"name": dataset, "split": name}}


def measuring(
    training: dict[str, Any],
    validation: dict[str, Any] | None,
    compared: dict[str, Any],
    holdout: dict[str, Any] | None = None,
) -> Any:
    evaluation = OBJECTIVE["evaluation"]
    measured = {**evaluation["template"]["spec"], "dataset": {**compared, "maxExamples": 50}}
    objective = {**evaluation, "template": {"spec": measured}, **({} if holdout is None else {"holdout": holdout})}
    dataset = {"training": training, **({} if validation is None else {"validation": validation})}
    return sweep_spec({"dataset": dataset}, objective={"type": "Evaluation", "evaluation": objective})


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (measuring(TRAIN, VALID, TRAIN), "template.spec.dataset: the trials are trained on s3://data/train.jsonl."),
        (
            measuring({"uris": [OTHER["uri"], TEST["uri"]]}, VALID, TEST),
            "template.spec.dataset: the trials are trained on s3://data/test.jsonl.",
        ),
        (
            measuring({"uri": "s3://data/all/"}, {"splitPercent": 10}, {"uri": "s3://data/all/test.jsonl"}),
            "template.spec.dataset: the trials are trained on s3://data/all/test.jsonl.",
        ),
        (
            measuring(split("training"), None, split("training")),
            "template.spec.dataset: the trials are trained on split training of Dataset 'tickets'.",
        ),
        (measuring(TRAIN, VALID, TEST, TRAIN), "holdout: the trials are trained on s3://data/train.jsonl."),
        (
            measuring({"uris": [TRAIN["uri"], OTHER["uri"]]}, VALID, TEST, OTHER),
            "holdout: the trials are trained on s3://data/other.jsonl.",
        ),
        (
            measuring(TRAIN, {"uris": [VALID["uri"]]}, TEST, VALID),
            "holdout: the trials are compared on s3://data/valid",
        ),
        (
            measuring({"uri": "s3://data/all/train.jsonl"}, VALID, {"uri": "s3://data/all/"}),
            "template.spec.dataset: the trials are trained on s3://data/all/.",
        ),
        (
            measuring({"uri": "s3://data/all/train.jsonl"}, VALID, TEST, {"uri": "s3://data/all/"}),
            "holdout: the trials are trained on s3://data/all/.",
        ),
        (
            measuring(TRAIN, VALID, {"uri": "s3://data/all/test.jsonl"}, {"uri": "s3://data/all/"}),
            "holdout: the trials are compared on s3://data/all/.",
        ),
        (
            measuring(TRAIN, VALID, {"uri": "s3://data/all/test.jsonl"}, {"uri": "s3://data/all/*.jsonl"}),
            "holdout: the trials are compared on s3://data/all/*.jsonl.",
        ),
        (
            measuring({"uri": "s3://data/**/train-*.jsonl"}, VALID, {"uri": "s3://data/all/train-1.jsonl"}),
            "template.spec.dataset: the trials are trained on s3://data/all/train-1.jsonl.",
        ),
        (
            measuring({"uri": "hf://datasets/o/n@main/train.jsonl"}, VALID, {"uri": "hf://datasets/o/n@main"}),
            "template.spec.dataset: the trials are trained on hf://datasets/o/n@main.",
        ),
        (measuring(TRAIN, VALID, TEST, TEST), "holdout: the trials are compared on s3://data/test.jsonl."),
        (
            measuring(split("training"), split("validation"), TEST, split("validation")),
            "holdout: the trials are compared on split validation of Dataset 'tickets'.",
        ),
        (
            measuring(TRAIN, VALID, split("test"), split("test")),
            "holdout: the trials are compared on split test of Dataset 'tickets'.",
        ),
    ],
)
def test_examples_that_are_used_twice_are_reported_before_a_trial_begins(spec: Any, told: str) -> None:
    world = SweepWorld(spec)
    world.settle()
    assert (world.created, world.reason("Stalled")) == ([], ("True", "InvalidSpec"))
    (message,) = {one.message for one in world.status.conditions}
    assert message.startswith(f"spec.objective.evaluation.{told}")


@pytest.mark.parametrize(
    "spec",
    [
        measuring(TRAIN, VALID, VALID, TEST),
        measuring(split("training"), split("validation"), split("validation"), split("test")),
        measuring(split("training"), None, split("training", "others"), split("test")),
        measuring({"uri": "s3://data/train/"}, None, {"uri": "s3://data/training.jsonl"}, TEST),
        measuring({"uri": "s3://data/train-*.jsonl"}, None, {"uri": "s3://data/test-*.jsonl"}, {"uri": "s3://data/a*"}),
    ],
)
def test_the_validation_examples_may_choose_the_best_and_the_holdout_judges_it(spec: Any) -> None:
    assert search_refusal(spec) is None


class EmptyCluster:
    """There is nothing in it."""

    @property
    def live(self) -> Reader:
        return self

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        return None

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Object]:
        return []


async def test_other_objects_do_not_wait_while_a_search_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schemas of its graders are untrusted and may take long."""
    checked_in: list[threading.Thread] = []

    def noting(spec: Any) -> None:
        checked_in.append(threading.current_thread())

    monkeypatch.setattr(observing, "search_refusal", noting)
    meta = {"namespace": "team-a", "name": "router", "uid": "5a3c", "generation": 1}
    sweep = {"kind": "FineTuneSweep", "metadata": meta, "spec": sweep_spec().to_wire()}
    await observing.observe(EmptyCluster(), sweep, trainer_image=None)
    assert [one is threading.main_thread() for one in checked_in] == [False]


def test_a_trial_that_is_refused_holds_up_none_that_is_not() -> None:
    """By a webhook or a policy of the API server that has something against its values."""
    world = SweepWorld(sweep_spec(parallel=2, budget={"trials": 4}), refused=frozenset({1}))
    world.settle()
    assert set(world.jobs) == {world.trial(2).fine_tune_job_name}
    for number in (2, 3, 4):
        world.ends(number)
        world.settle()
    assert world.states() == ["Running", "Succeeded", "Succeeded", "Succeeded"]
    assert (world.status.phase, world.status.running) == ("Running", 1), "the refused one is still tried"
    world.refused = frozenset()
    world.settle()
    world.ends(1)
    world.settle()
    assert world.status.phase == "Succeeded"
