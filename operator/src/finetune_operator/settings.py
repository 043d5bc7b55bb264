"""Settings of the operator's process, from its command line and environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune_operator.kube.transport import REQUEST_TIMEOUT_SECONDS
from finetune_operator.runtime.sharding import WHOLE, Shard


@dataclass(frozen=True)
class Settings:
    """How one operator process runs."""

    kubeconfig: Path | None = None
    """None: the service account of the Pod that it runs in."""
    namespace: str = "default"
    """The operator's own: the election's Lease and the budgets' ledgers are there."""
    leader_election: bool = False
    """Whether another replica may run beside this one."""
    identity: str | None = None
    """This replica's name in the Lease; None: one that no other process has."""
    shard: Shard = WHOLE
    """Which namespaces this operator and its replicas work on."""
    trainer_image: str | None = None
    """The trainer image of classes that name none."""
    gateway_image: str | None = None
    """The image of gateways: the operator's own."""
    workers: int = 16
    resync_seconds: float = 600.0
    request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    health_port: int = 8080
    metrics_port: int = 9090
    progress_port: int = 8443
    progress_url: str | None = None
    """Base URL under which Pods reach the progress endpoint; None: no endpoint, jobs report only at their end."""
    tls_directory: Path | None = None
    """tls.crt, tls.key and ca.crt of the progress endpoint."""
