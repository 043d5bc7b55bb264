"""The body of a request for a fine-tuning job: OpenAI's fields, strictly."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from finetune_grading.openai_graders.as_rewards import to_rft

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


class ReinforcementHyperparameters(Hyperparameters):
    """Reinforcement's."""

    compute_multiplier: Auto | Annotated[float, Field(gt=0, le=8)] = "auto"
    eval_interval: Auto | Annotated[int, Field(ge=1, le=1000)] = "auto"
    eval_samples: Auto | Annotated[int, Field(ge=1, le=16)] = "auto"
    reasoning_effort: Literal["default"] = "default"


class Supervised(_Strict):
    hyperparameters: Hyperparameters = Hyperparameters()


class Dpo(_Strict):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Reinforcement(_Strict):
    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()

    @property
    def rft(self) -> dict[str, Any]:
        """method.rft. Raises ValueError."""
        asked = self.hyperparameters
        return to_rft(
            self.grader,
            1.0 if asked.compute_multiplier == "auto" else asked.compute_multiplier,
            None if asked.eval_samples == "auto" else asked.eval_samples,
        )

    @model_validator(mode="after")
    def _can_reward(self) -> Reinforcement:
        assert self.rft
        return self


MethodName = Literal["supervised", "dpo", "reinforcement"]


class Method(_Strict):
    type: MethodName
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None

    @model_validator(mode="after")
    def _of_its_type(self) -> Method:
        for name in get_args(MethodName):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"'{name}' is not a member of the method '{self.type}'")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("the method 'reinforcement' needs the member 'reinforcement' with a grader")
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

    @model_validator(mode="after")
    def _is_measured(self) -> JobRequest:
        if self.type == "reinforcement" and self.validation_file is None:
            raise ValueError("the method 'reinforcement' needs a validation_file")
        return self

    @property
    def asked_hyperparameters(self) -> Hyperparameters:
        """Those of the method, or the older ones beside it."""
        method = self.method
        of_method = method and (method.supervised or method.dpo or method.reinforcement)
        if of_method:
            return of_method.hyperparameters
        return self.hyperparameters or Hyperparameters()

    @property
    def type(self) -> MethodName:
        """The method's type."""
        return self.method.type if self.method else "supervised"
