"""`response_format` of a chat request: text, any JSON object, or JSON that matches a schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from finetune_trainer.serving.engine.constraints import ANY_OBJECT

LONGEST_SCHEMA_BYTES = 64 * 1024
MOST_FIELDS = 64
"""Of any object that is not passed on as it is; requests have 24."""


def few_fields(value: Any) -> Any:
    """Refuse an object with many fields at once: pydantic would list what is wrong with each, which takes seconds."""
    if isinstance(value, dict) and len(value) > MOST_FIELDS:
        raise ValueError(f"has {len(value)} fields; at most {MOST_FIELDS} are read")
    return value


class Strict(BaseModel):
    """An object of known fields, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        return few_fields(value)


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]

    @property
    def schema_of_answer(self) -> None:
        return None


class JsonObjectFormat(Strict):
    """A JSON object."""

    type: Literal["json_object"]

    @property
    def schema_of_answer(self) -> dict[str, Any]:
        return ANY_OBJECT


class NamedSchema(Strict):
    """A JSON schema. It is followed whether `strict` is set or not."""

    name: str = Field(pattern="^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None

    @field_validator("schema_")
    @classmethod
    def _not_too_long(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(orjson.dumps(value))
        except orjson.JSONEncodeError as error:  # nested too deeply
            raise ValueError(str(error)) from error
        if size > LONGEST_SCHEMA_BYTES:
            raise ValueError(f"has {size} bytes; at most {LONGEST_SCHEMA_BYTES} are read")
        return value


class JsonSchemaFormat(Strict):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    @property
    def schema_of_answer(self) -> dict[str, Any]:
        return self.json_schema.schema_


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
