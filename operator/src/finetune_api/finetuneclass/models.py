"""The models that a class offers: behind an API, or as base models of OpenAI's fine-tuning API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import ApiModel, Line, Name, cel
from finetune_api.graders import ModelName
from finetune_api.kubernetes_types import SET, SubdomainName, keyed_by
from finetune_api.sources import ModelUri
from finetune_api.unions import OneOf

REQUESTS_PER_MINUTE, CONCURRENCY, TIMEOUT_SECONDS = 600, 8, 120
"""Of a model behind an API, where the class says nothing else."""
Price = Annotated[float, Field(ge=0, le=1_000_000)]


class Prices(ApiModel):
    """What a million tokens cost, in any currency; the same for all models of a class."""

    prompt_per_million: Price = Field(0.0, description="Price of a million tokens of prompts.")
    completion_per_million: Price = Field(0.0, description="Price of a million tokens of replies.")


class ModelDeploymentReference(ApiModel):
    """A ModelDeployment that serves the model."""

    name: Name = Field(description="Name of the ModelDeployment.")
    namespace: Name | None = Field(None, description="Its namespace. Omitted: that of the object that names the model.")


class CatalogueModel(ApiModel):
    """A model to fine-tune, and what is known of it. A FineTuneSweep of mode SmallestModel chooses from these."""

    uri: ModelUri = Field(description="s3://bucket/folder or hf://org/name@revision.")
    parameters: int = Field(ge=1, le=10**15, description="Number of its parameters.")
    license: Line | None = Field(None, description="Its licence, for whoever chooses: apache-2.0.")
    context_tokens: int | None = Field(
        None, ge=1, le=10**9, description="Its context length. A longer hyperparameters.maxLength rules the model out."
    )
    adapters: list[Literal["LoRA", "QLoRA", "Full"]] = Field(
        default=["LoRA", "QLoRA", "Full"],
        max_length=3,
        json_schema_extra=SET,
        description="The values of adapter.type that it may be tuned with. Empty: it may not be tuned.",
    )


class ListedModel(OneOf):
    """A model by its name: behind an OpenAI-compatible API, for objects of the class, or one to fine-tune."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.modelDeploymentRef) || !(has(self.model) || has(self.credentialsSecretName))",
                "a ModelDeployment has no key, and is asked for its own model",
                "modelDeploymentRef",
            ),
            (
                "!has(self.base) || !(has(self.model) || has(self.credentialsSecretName) || has(self.caBundle) || "
                "has(self.requestsPerMinute) || has(self.concurrency) || has(self.timeoutSeconds))",
                "a base model is loaded, and not asked",
                "base",
            ),
        )
    )

    choices = ("url", "model_deployment_ref", "base")

    name: ModelName = Field(description="Name of the model in specs.")
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", max_length=512)] | None = Field(
        None, description="Base URL of the API, such as https://api.openai.com/v1. Redirects are not followed."
    )
    model_deployment_ref: ModelDeploymentReference | None = None
    base: CatalogueModel | None = None
    model: Line | None = Field(None, description="Value of the requests' `model` field. Omitted: `name`.")
    credentials_secret_name: SubdomainName | None = Field(
        None,
        description="Name of a Secret in the namespace of the OBJECT that names the model, with the key API_KEY. "
        "Omitted: requests have no key.",
    )
    ca_bundle: Annotated[str, StringConstraints(pattern=r"^-----BEGIN CERTIFICATE-----", max_length=65536)] | None = (
        Field(None, description="PEM CA certificates used to verify the endpoint. Omitted: the public CAs.")
    )
    requests_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="Maximum rate of requests of one Pod. Omitted: 600."
    )
    concurrency: int | None = Field(
        None, ge=1, le=256, description="Maximum number of concurrent requests of one Pod. Omitted: 8."
    )
    timeout_seconds: int | None = Field(None, ge=1, le=3600, description="How long a request may take. Omitted: 120.")
    prices: Prices | None = Field(
        None, description="Prices for the cost in status.usage, and of a base model for what a smaller one saves."
    )


OpenAIModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]
"""Without a colon: the names of fine-tuned models have one between each two parts."""


class OpenAIModel(ApiModel):
    """A base model of OpenAI's fine-tuning API."""

    name: OpenAIModelName = Field(description="What the API calls the model: `qwen3-0.6b`, `gpt-4o-mini-2024-07-18`.")
    aliases: list[OpenAIModelName] = Field(
        default=[],
        max_length=16,
        json_schema_extra=SET,
        description="Other names that clients may ask for: `gpt-4o-mini`.",
    )
    uri: ModelUri = Field(description="The model that is fine-tuned: s3://bucket/folder or hf://org/name@revision.")


class OpenAIApi(ApiModel):
    """What OpenAI's fine-tuning API offers to clients in namespaces whose API uses this class."""

    models: list[OpenAIModel] = Field(
        default=[],
        max_length=64,
        json_schema_extra=keyed_by("name"),
        description="The models that clients may fine-tune, by the names that they use.",
    )
