"""The kinds that the client knows: their paths at the API server, and what may change while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api import crd
from finetune_api.base import API_VERSION, ApiModel
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN
from finetune_view.resource import EVALUATION, FINE_TUNE_JOB, MODEL_DEPLOYMENT, Kind

FIELD_MANAGER = "finetune-client"


@dataclass(frozen=True)
class Contract:
    """A kind, its specs, and the fields of a spec that do not make it another run."""

    kind: Kind
    spec: type[ApiModel]
    changeable: frozenset[str]
    variable: str
    """What examples and advice call such an object in Python."""
    collection: str
    change: str
    """How an object that exists is made to ask for something else."""

    def path(self, namespace: str, name: str = "") -> str:
        """Of the collection, or of one object."""
        collection = f"/apis/{API_VERSION}/namespaces/{namespace}/{self.kind.plural}"
        return f"{collection}/{name}" if name else collection


FINE_TUNE_JOBS = Contract(
    FINE_TUNE_JOB,
    crd.FINE_TUNE_JOB.spec,
    CHANGEABLE_WITHIN_A_RUN,
    "job",
    "client",
    "job.rerun(changes=...)",
)
EVALUATIONS = Contract(
    EVALUATION,
    crd.EVALUATION.spec,
    CHANGEABLE_WITHIN_A_RUN | {"gates"},
    "evaluation",
    "client.evaluations",
    "evaluation.rerun(changes=...)",
)
MODEL_DEPLOYMENTS = Contract(
    MODEL_DEPLOYMENT,
    crd.MODEL_DEPLOYMENT.spec,
    frozenset({"replicas"}),
    "deployment",
    "client.deployments",
    "deployment.change(...)",
)


def class_path(name: str) -> str:
    """Of a FineTuneClass, which has no namespace."""
    return f"/apis/{API_VERSION}/{crd.FINE_TUNE_CLASS.plural}/{name}"


def core_path(plural: str, namespace: str, name: str = "") -> str:
    """Of Kubernetes' own objects: pods, events, secrets, jobs."""
    group = "/apis/batch/v1" if plural == "jobs" else "/api/v1"
    return f"{group}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")
