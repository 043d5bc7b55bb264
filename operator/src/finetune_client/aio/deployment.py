"""ModelDeployment: a served model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from finetune_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_client.aio.objects import AsyncClusterObject
from finetune_client.errors import MissingPackageError, NoResultError
from finetune_client.kinds import MODEL_DEPLOYMENTS, Contract

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class AsyncModelDeployment(AsyncClusterObject):
    """A ModelDeployment."""

    contract: ClassVar[Contract] = MODEL_DEPLOYMENTS

    @property
    def spec(self) -> ModelDeploymentSpec:
        """The spec, with the defaults of its fields."""
        return ModelDeploymentSpec.from_another_version(self._view.fields.at("spec").value)

    @property
    def status(self) -> ModelDeploymentStatus:
        """The status. Raises UnreadableStatusError (finetune_api.lifecycle) for one of another version."""
        return ModelDeploymentStatus.read(self._view.status.value)

    @property
    def url(self) -> str:
        """The base URL within the cluster; "" while it does not serve."""
        return self._view.status.text("url")

    @property
    def model_name(self) -> str:
        """What requests name as their `model`."""
        return self._view.status.text("modelName")

    async def scale(self, replicas: int) -> Self:
        """Serve with so many replicas; 0 keeps the object and frees what it uses."""
        return await self.change({"replicas": replicas})

    async def change(self, changes: Mapping[str, Any]) -> Self:
        """Change the spec (as in YAML); the new model or settings are rolled out."""
        await self.refresh()
        return await self._patch(changes)

    def openai(self, *, base_url: str | None = None, api_key: str = "unused", **options: Any) -> AsyncOpenAI:
        """An openai client of this model.

        `base_url`: where this machine reaches it, if it is outside the cluster (kubectl port-forward).
        Raises MissingPackageError, or NoResultError while it does not serve.
        """
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise MissingPackageError("The openai package is not installed: `pip install openai`.") from None
        if not (base_url or self.url):
            raise NoResultError(
                f"{self._view.resource} did not serve when it was last read (phase {self.phase or 'unknown'}). "
                "deployment.wait() waits for it."
            )
        return AsyncOpenAI(base_url=base_url or self.url, api_key=api_key, **options)
