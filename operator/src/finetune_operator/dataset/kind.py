"""The Dataset kind: how the runtime observes and plans it."""

from __future__ import annotations

from functools import partial

from finetune_api.dataset import DatasetStatus
from finetune_operator.core.kind_definition import Body, Kind, OwnedResource
from finetune_operator.core.references import ObjectKey, class_reference, dataset_references
from finetune_operator.dataset.observe import observe
from finetune_operator.dataset.plan import FINISHED, plan
from finetune_operator.environment import Environment
from finetune_operator.kube.resources import DATASETS, JOBS, PODS
from finetune_operator.metrics.dataset_metrics import DatasetMetrics
from finetune_operator.retried_run.absence import rests_on_absence


def dataset(environment: Environment) -> Kind:
    """It owns Jobs and Pods."""
    return Kind(
        DATASETS,
        DatasetStatus,
        partial(observe, environment=environment),
        plan,
        owns=(OwnedResource(JOBS), OwnedResource(PODS)),
        rests_on_absence=rests_on_absence,
        references=_references,
        is_finished=lambda status: status.phase in FINISHED,
        metrics=(DatasetMetrics(),),
    )


def _references(body: Body) -> frozenset[ObjectKey]:
    generate = body.get("spec", {}).get("generate") or {}
    return class_reference(body) | dataset_references(body, generate.get("prompts"))
