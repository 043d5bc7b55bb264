"""How Pods that train or evaluate reach this operator."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from finetune_operator.core.ownership import Owner
from finetune_operator.kube.resources import EVALUATIONS, FINE_TUNE_JOBS

REPORT_PATH = "/v1alpha1/namespaces/{namespace}/{plural}/{name}/attempts/{attempt}"
TRAFFIC_PATH = "/v1alpha1/namespaces/{namespace}/modeldeployments/{name}/traffic"
REPORTING = {resource.kind: resource.plural for resource in (FINE_TUNE_JOBS, EVALUATIONS)}
"""The kinds whose Pods report."""


@dataclass(frozen=True)
class ProgressEndpoint:
    """How Pods reach this operator: base URL and the PEM of the CA that signed its certificate."""

    url: str
    ca: str

    @property
    def digest(self) -> str:
        """Changes with the address or the CA: reports of Pods that were created before no longer arrive."""
        return hashlib.sha256(f"{self.url}\n{self.ca}".encode()).hexdigest()[:16]

    def url_for(self, owner: Owner, attempt: str) -> str:
        """Where the Pods of a Job (`attempt`: its name) report to."""
        plural = REPORTING[owner.kind]
        path = REPORT_PATH.format(namespace=owner.namespace, plural=plural, name=owner.name, attempt=attempt)
        return self.url.rstrip("/") + path

    def traffic_url_for(self, owner: Owner) -> str:
        """Where the gateways of a ModelDeployment report what they counted."""
        return self.url.rstrip("/") + TRAFFIC_PATH.format(namespace=owner.namespace, name=owner.name)
