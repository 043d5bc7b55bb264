"""What is measured: a product, which is one or two controllers and the kind of jobs that they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.controller.audit import Family
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import Resource

FINISHING = "finishing"
"""The job whose Pods end: kwok lets those of every other train on for ever."""
INSTALLED = frozenset(
    {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"}
)
"""Which kinds of a product's own manifests are created; its controllers run as processes of this machine."""


@dataclass(frozen=True)
class Launch:
    """A process of a product. `ready` is its probe's address."""

    name: str
    argv: Sequence[str | Path]
    ready: str
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Metrics:
    """Where a product says how much it has looked at, in Prometheus' text format.

    `looks` and `waiting` are a metric's name and labels: reconciliations since the start, and objects that wait.
    """

    address: str
    looks: tuple[str, Mapping[str, str]]
    waiting: tuple[str, Mapping[str, str]]


class Product(Protocol):
    """A product on one control plane."""

    @property
    def name(self) -> str:
        """As it is called in the table."""

    @property
    def family(self) -> Family:
        """How its requests are known in the audit log."""

    @property
    def jobs(self) -> Resource:
        """The kind of job that users create."""

    @property
    def resyncs(self) -> bool:
        """Whether it looks at every unfinished job again after the resync interval."""

    def install(self) -> None:
        """Create CRDs and rights, from the product's own manifests."""

    def launches(self, resync_seconds: float) -> tuple[list[Launch], Metrics]:
        """Its processes, on free ports."""

    def stopped(self) -> None:
        """Its processes have been ended: what they have locked is freed."""

    def leads(self, log: Path) -> bool:
        """Whether the process with this log leads, or need not."""

    def without_admission(self) -> AbstractContextManager[None]:
        """Inside, its jobs can be created while none of its processes runs."""

    async def prepare(self, kube: Kube) -> None:
        """Create what its jobs refer to. Its processes run."""

    def job(self, name: str, namespace: str) -> dict[str, Any]:
        """A job as a user writes it: one node with one process."""

    def has_succeeded(self, job: dict[str, Any]) -> bool:
        """Whether it has ended well. Raises StepFailed where it has failed."""
