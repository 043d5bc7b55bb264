"""The resources of the API server that the operator reads or writes, and their paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_api.base import API_VERSION
from finetune_api.kinds import DATASET, EVALUATION, FINE_TUNE_CLASS, FINE_TUNE_JOB, FINE_TUNE_SWEEP, MODEL_DEPLOYMENT

Object = dict[str, Any]
FIELD_MANAGER = "finetune-operator"
CONDITIONS_MANAGER = "finetune-operator-conditions"
"""Owns the conditions of a status that this version can't read, and no other field of it."""


@dataclass(frozen=True)
class Resource:
    """A REST resource of the API server."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or its subresource."""
        parts = ["/api" if "/" not in self.api_version else "/apis", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join(parts)


FINE_TUNE_CLASSES = Resource(API_VERSION, FINE_TUNE_CLASS.name, FINE_TUNE_CLASS.plural, namespaced=False)
FINE_TUNE_JOBS = Resource(API_VERSION, FINE_TUNE_JOB.name, FINE_TUNE_JOB.plural)
EVALUATIONS = Resource(API_VERSION, EVALUATION.name, EVALUATION.plural)
MODEL_DEPLOYMENTS = Resource(API_VERSION, MODEL_DEPLOYMENT.name, MODEL_DEPLOYMENT.plural)
FINE_TUNE_SWEEPS = Resource(API_VERSION, FINE_TUNE_SWEEP.name, FINE_TUNE_SWEEP.plural)
DATASETS = Resource(API_VERSION, DATASET.name, DATASET.plural)
JOBS = Resource("batch/v1", "Job", "jobs")
PODS = Resource("v1", "Pod", "pods")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SERVICES = Resource("v1", "Service", "services")
EVENTS = Resource("v1", "Event", "events")
POD_DISRUPTION_BUDGETS = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
REPLICA_SETS = Resource("apps/v1", "ReplicaSet", "replicasets")
NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False)
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases")
TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "TokenReview", "tokenreviews", namespaced=False)

RESOURCES = (
    FINE_TUNE_CLASSES,
    FINE_TUNE_JOBS,
    EVALUATIONS,
    MODEL_DEPLOYMENTS,
    FINE_TUNE_SWEEPS,
    DATASETS,
    JOBS,
    PODS,
    CONFIG_MAPS,
    SERVICES,
    EVENTS,
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    LEASES,
)
"""The resources that the operator may write."""
