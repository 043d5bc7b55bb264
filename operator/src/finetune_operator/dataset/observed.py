"""The state of a Dataset from which its plan is made."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decision, Plan
from finetune_operator.retried_run.observed import ObservedRun

DatasetPlan = Plan[DatasetStatus]
DatasetDecision = Decision[DatasetStatus]


@dataclass(frozen=True, kw_only=True)
class ObservedDataset(ObservedRun[DatasetSpec, DatasetStatus]):
    """Its run, and what the spec refers to."""

    classifier: EndpointConfig | Readiness | None = None
    """The class's model that spec.screening asks."""
    endpoints: tuple[EndpointConfig | Readiness, ...] = ()
    """The class's models that spec.generate asks, each once."""
    prompts: PinnedRevision | Readiness | None = None
    """The revision that the Dataset of generate.prompts.datasetRef has now."""
    refusal: Readiness | None = None
    """Why the spec is invalid."""
