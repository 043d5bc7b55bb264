# Made from finetune_client/aio/client.py by `make generate`; do not edit.
"""The client: creates, gets and lists the objects of one namespace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Generic, Self, TypeVar

from finetune_client.connecting import Source
from finetune_client.errors import AlreadyExistsError, FineTuneError
from finetune_client.kinds import FIELD_MANAGER, Contract, checked_name
from finetune_client.manifest import Given, check_same, manifest_of
from finetune_client.results.storage import StorageOptions
from finetune_client.sync.connection import Connection
from finetune_client.sync.deployment import ModelDeployment
from finetune_client.sync.objects import ClusterObject
from finetune_client.sync.requests import ask, items
from finetune_client.sync.runs import Evaluation, FineTuneJob

Kept = TypeVar("Kept", bound=ClusterObject)


class Collection(Generic[Kept]):
    """The objects of one kind in the namespace."""

    def __init__(self, client: FineTuneClient, kept: type[Kept]) -> None:
        self._client = client
        self._kept = kept

    @property
    def _contract(self) -> Contract:
        return self._kept.contract

    def create(
        self,
        spec: Given,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Kept:
        """Create an object, or return the one of this name if it has the same spec.

        `spec`: a model of finetune_api, a dict (the spec, or a whole object), or the path of a YAML file. Raises
        DifferentSpecError if the object that exists asks for something else, and InvalidSpecError.
        """
        connection, namespace = self._client._connection, self._client.namespace()
        wanted = manifest_of(self._contract, spec, name, namespace, labels, annotations)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        try:
            found = ask(connection, "POST", self._contract.path(namespace), query, wanted)
        except AlreadyExistsError:
            found = ask(connection, "GET", self._contract.path(namespace, wanted["metadata"]["name"]))
            check_same(self._contract, wanted, found)
            if found["metadata"].get("deletionTimestamp"):
                raise FineTuneError(
                    f"{self._contract.kind.name} {found['metadata']['name']} is being deleted. Create it again once it "
                    "is gone: delete(wait=True) waits for that."
                ) from None
        return self._kept(connection, found, self._client._storage)

    def get(self, name: str) -> Kept:
        """The object of this name. Raises NotFoundError."""
        checked_name(self._contract.kind.name, name)
        path = self._contract.path(self._client.namespace(), name)
        return self._kept(self._client._connection, ask(self._client._connection, "GET", path), self._client._storage)

    def list(self, *, labels: Mapping[str, str] | None = None) -> list[Kept]:
        """The objects with these labels, by name."""
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
        found = items(self._client._connection, self._contract.path(self._client.namespace()), query)
        found.sort(key=lambda one: str(one["metadata"]["name"]))
        return [self._kept(self._client._connection, one, self._client._storage) for one in found]


class FineTuneClient(Collection[FineTuneJob]):
    """A client of one namespace. Its own `create`, `get` and `list` are of FineTuneJobs.

    Its Collections `evaluations` and `deployments` have those of Evaluations and ModelDeployments. It has none of
    FineTuneSweeps and Datasets: `kubectl finetune` shows, suspends and cancels these.

    `namespace`: that of the kubeconfig's context, or of the Pod, if it is not given. `kubeconfig` and `context` choose
    the cluster as kubectl's options do; in a Pod without a kubeconfig, its service account is used.
    """

    def __init__(
        self,
        namespace: str | None = None,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        storage: StorageOptions | None = None,
    ) -> None:
        super().__init__(self, FineTuneJob)
        self._connection = Connection(Source.of(kubeconfig, context))
        self._storage = storage or StorageOptions()
        self.evaluations = Collection(self, Evaluation)
        self.deployments = Collection(self, ModelDeployment)
        self._namespace = namespace

    def namespace(self) -> str:
        """The namespace of its objects."""
        if self._namespace is None:
            self._namespace = self._connection.namespace()
        return checked_name("namespace", self._namespace)

    def close(self) -> None:
        """End all connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
