"""Examples that judge the models are others than those that they are trained on, or chosen by."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.finetunesweep.refusal import search_refusal
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, SweepWorld, sweep_spec

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
        (measuring(TRAIN, {"uris": [VALID["uri"]]}, TEST, VALID), "holdout: the trials are compared on s3://data/valid"),
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
def test_examples_that_are_used_twice_are_told_before_a_trial_begins(spec: Any, told: str) -> None:
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
    ],
)
def test_the_validation_examples_may_choose_the_best_and_the_holdout_judges_it(spec: Any) -> None:
    assert search_refusal(spec) is None
