"""Which cluster, and as whom: a kubeconfig's context, or the service account of the Pod that this runs in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_KUBECONFIG = Path("~/.kube/config")
REQUEST_SECONDS = 30.0
"""How long the API server may take to answer one request."""


@dataclass(frozen=True)
class Source:
    """`file`: the kubeconfig; None takes KUBECONFIG or ~/.kube/config."""

    file: str | None
    context: str | None
    in_cluster: bool

    @classmethod
    def of(cls, kubeconfig: str | os.PathLike[str] | None, context: str | None) -> Source:
        """As kubectl chooses: what is given, KUBECONFIG, ~/.kube/config, and at last the Pod's service account."""
        configured = kubeconfig is not None or context is not None or bool(os.environ.get("KUBECONFIG"))
        is_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        in_cluster = not configured and is_pod and not DEFAULT_KUBECONFIG.expanduser().exists()
        file = os.fspath(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG") or None
        return cls(file, context, in_cluster)

    def problem(self, reason: str) -> str:
        """Why there is no connection, and what to do."""
        where = "The Pod's service account" if self.in_cluster else f"The kubeconfig {self.file or DEFAULT_KUBECONFIG}"
        why = " ".join(reason.split()).rstrip(".")
        return (
            f"{where} can't be used: {why}. Pass FineTuneClient(kubeconfig=..., context=...), set "
            "KUBECONFIG, or run in a Pod with a service account's token."
        )


def active_namespace(source: Source, contexts: Callable[[str | None], tuple[Any, Any]]) -> str:
    """The namespace of the context; `contexts` lists those of a kubeconfig, and the current one."""
    try:
        known, current = contexts(source.file)
    except Exception:  # the first request says what is wrong with the kubeconfig
        return "default"
    chosen = next((one for one in known if one["name"] == source.context), current)
    return str((chosen.get("context") or {}).get("namespace") or "default")
