"""The body of a request for a fine-tuning job: OpenAI's fields, strictly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Auto = Literal["auto"]
FileId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Metadata = dict[
    Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Hyperparameters(_Strict):
    """What every method has."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=100)] = "auto"


class DpoHyperparameters(Hyperparameters):
    """DPO's."""

    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class Supervised(_Strict):
    hyperparameters: Hyperparameters = Hyperparameters()


class Dpo(_Strict):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(_Strict):
    type: Literal["supervised", "dpo"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None

    @model_validator(mode="before")
    @classmethod
    def _told_of_reinforcement(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") == "reinforcement":
            raise ValueError("the method 'reinforcement' is not available here; use 'supervised' or 'dpo'")
        return value

    @model_validator(mode="after")
    def _of_its_type(self) -> Method:
        for name in ("supervised", "dpo"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"'{name}' is not a member of the method '{self.type}'")
        return self


class JobRequest(_Strict):
    """POST /v1/fine_tuning/jobs."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    training_file: FileId
    validation_file: FileId | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    metadata: Annotated[Metadata, Field(max_length=16)] | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None
    trainingType: Annotated[str, StringConstraints(max_length=64)] | int | None = None

    @property
    def asked_hyperparameters(self) -> Hyperparameters:
        """Those of the method, or the older ones beside it."""
        of_method = self.method and (self.method.supervised or self.method.dpo)
        if of_method:
            return of_method.hyperparameters
        return self.hyperparameters or Hyperparameters()

    @property
    def type(self) -> Literal["supervised", "dpo"]:
        """The method's type."""
        return self.method.type if self.method else "supervised"
