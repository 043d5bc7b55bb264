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
from tests.unit.operator.finetunesweep.sweeps import RANK, RATE, TEMPLATE, SweepWorld, sweep_spec


@pytest.mark.parametrize(
    ("parameter", "template", "told"),
    [
        (RATE, {"hyperparameters": {"learningRate": 1e-4}}, "is 0.0001 already: a field is either set or searched"),
        (RANK, {"adapter": {"type": "QLoRA"}}, "lora is only allowed with type LoRA"),
        ({"path": "adapter.lora.rank", "numbers": [8, 5000]}, {}, "5000 is not possible"),
        ({"path": "hyperparameters.learningRate", "uniform": {"minimum": 0, "maximum": 1}}, {}, "greater than 0"),
        ({"path": "hyperparameters.learningRate", "texts": ["fast"]}, {}, "'fast' is not possible"),
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
    ],
)
def test_what_the_template_cannot_have(parameter: dict[str, Any], template: dict[str, Any], told: str) -> None:
    world = SweepWorld(sweep_spec(template, {"parameters": [parameter]}))
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
