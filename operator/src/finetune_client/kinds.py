"""The kinds that the client knows: their paths at the API server, and what may change while a run goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from finetune_api import kinds
from finetune_api.base import API_VERSION, ApiModel
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN
from finetune_client.errors import FineTuneError
from finetune_view.resource import EVALUATION, FINE_TUNE_JOB, MODEL_DEPLOYMENT, Kind

FIELD_MANAGER = "finetune-client"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""Of namespaces (RFC 1123), and of the operator's objects, by a rule of their CRDs."""


def checked_name(what: str, name: object, advice: str = "") -> str:
    """The name of `what`, which every object of a kind may have. Raises FineTuneError."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    rule = "at most 63 lower-case letters, digits and '-', with a letter or digit at both ends"
    raise FineTuneError(f"{name!r} can't be the name of a {what}: {rule}.{advice and f' {advice}'}")


def _segment(name: str) -> str:
    """The name as a part of a path, of which it makes no other path."""
    if name in ("", ".", ".."):
        raise FineTuneError(f"{name!r} can't be the name of an object.")
    return quote(name, safe="")


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

    def path(self, namespace: str, name: str | None = None) -> str:
        """Of the collection, or of one object."""
        collection = f"/apis/{API_VERSION}/namespaces/{_segment(namespace)}/{self.kind.plural}"
        return collection if name is None else f"{collection}/{_segment(name)}"


FINE_TUNE_JOBS = Contract(
    FINE_TUNE_JOB,
    kinds.FINE_TUNE_JOB.spec,
    CHANGEABLE_WITHIN_A_RUN,
    "job",
    "client",
    "job.rerun(changes=...)",
)
EVALUATIONS = Contract(
    EVALUATION,
    kinds.EVALUATION.spec,
    CHANGEABLE_WITHIN_A_RUN | {"gates"},
    "evaluation",
    "client.evaluations",
    "evaluation.rerun(changes=...)",
)
MODEL_DEPLOYMENTS = Contract(
    MODEL_DEPLOYMENT,
    kinds.MODEL_DEPLOYMENT.spec,
    frozenset({"replicas"}),
    "deployment",
    "client.deployments",
    "deployment.change(...)",
)


def class_path(name: str) -> str:
    """Of a FineTuneClass, which has no namespace."""
    return f"/apis/{API_VERSION}/{kinds.FINE_TUNE_CLASS.plural}/{_segment(name)}"


def core_path(plural: str, namespace: str, name: str | None = None) -> str:
    """Of Kubernetes' own objects: pods, events, secrets, jobs."""
    group = "/apis/batch/v1" if plural == "jobs" else "/api/v1"
    collection = f"{group}/namespaces/{_segment(namespace)}/{plural}"
    return collection if name is None else f"{collection}/{_segment(name)}"
