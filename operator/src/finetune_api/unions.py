"""The two forms of a union, the same in every kind; the API server checks them with CEL, Python with the same messages.

With a `type`: only the member of that type may be set (like a Deployment's strategy.rollingUpdate). Without one:
exactly one member is set (like a volume's source).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self, get_args

from pydantic import GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from finetune_api.base import ANOTHER_VERSION, ApiModel

AnyModel = type[Any]


class _Checked(ApiModel):
    """A model with validation rules across its members."""

    @classmethod
    @abstractmethod
    def rules(cls) -> list[dict[str, str]]:
        """CEL rules, as x-kubernetes-validations holds them."""

    @abstractmethod
    def faults(self) -> list[str]:
        """The messages of the rules that this value violates."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        inner = handler.resolve_ref_schema(schema)
        inner["x-kubernetes-validations"] = [*cls.rules(), *inner.get("x-kubernetes-validations", [])]
        return schema

    @model_validator(mode="after")
    def _refuse_faults(self, info: ValidationInfo) -> Self:
        faults = [] if info.context is ANOTHER_VERSION else self.faults()
        if faults:
            raise PydanticCustomError("union", "{message}", {"message": "; ".join(faults)})
        return self


class TypedUnion(_Checked):
    """A union with a `type`. The member of type `LoRA` is the field `lora`; a type without such a field has no member.

    A member may be omitted if all of its fields are optional.
    """

    type: str

    @classmethod
    def members(cls) -> dict[str, str]:
        """The field of the member by type, for types that have one."""
        types = cls.model_fields["type"].annotation
        fields = {name.replace("_", ""): name for name in cls.model_fields if name != "type"}
        return {kind: fields[kind.lower()] for kind in get_args(types) if kind.lower() in fields}

    @property
    def member(self) -> str:
        """The wire name of the member of this type."""
        return _wire(type(self), self.members()[self.type])

    @classmethod
    def member_model(cls, field: str) -> AnyModel:
        """The model of a member."""
        found: list[AnyModel] = [one for one in get_args(cls.model_fields[field].annotation) if one is not type(None)]
        (model,) = found
        return model

    @classmethod
    def _needs(cls, field: str) -> bool:
        """Whether the member is required, because one of its fields is."""
        return any(inner.is_required() for inner in cls.member_model(field).model_fields.values())

    @classmethod
    def rules(cls) -> list[dict[str, str]]:
        found = []
        for kind, field in cls.members().items():
            name = _wire(cls, field)
            rule = f"!has(self.{name}) || self.type == '{kind}'"
            found.append(_rule(rule, _forbidden(name, kind), name, "FieldValueForbidden"))
            if cls._needs(field):
                rule = f"self.type != '{kind}' || has(self.{name})"
                if not cls.model_fields["type"].is_required():  # the API server tries it on the default {}, too
                    rule = f"!has(self.type) || {rule}"
                found.append(_rule(rule, _required(name, kind), name, "FieldValueRequired"))
        return found

    def faults(self) -> list[str]:
        found = []
        for kind, field in self.members().items():
            name, is_set = _wire(type(self), field), getattr(self, field) is not None
            if is_set and kind != self.type:
                found.append(_forbidden(name, kind))
            if not is_set and kind == self.type and self._needs(field):
                found.append(_required(name, kind))
        return found


class OneOf(_Checked):
    """A union without a type."""

    choices: ClassVar[tuple[str, ...]]
    """The fields of which exactly one must be set."""

    @classmethod
    def rules(cls) -> list[dict[str, str]]:
        given = ", ".join(f"has(self.{_wire(cls, field)})" for field in cls.choices)
        return [{"rule": f"[{given}].exists_one(given, given)", "message": cls._message()}]

    def faults(self) -> list[str]:
        given = [field for field in self.choices if getattr(self, field) is not None]
        return [] if len(given) == 1 else [self._message()]

    @classmethod
    def _message(cls) -> str:
        *first, last = [_wire(cls, field) for field in cls.choices]
        return f"set exactly one of {', '.join(first)} and {last}"


def _wire(model: type[ApiModel], field: str) -> str:
    return model.model_fields[field].alias or field


def _forbidden(name: str, kind: str) -> str:
    return f"{name} is only allowed with type {kind}"


def _required(name: str, kind: str) -> str:
    return f"{name} is required with type {kind}"


def _rule(rule: str, message: str, field: str, reason: str) -> dict[str, str]:
    return {"rule": rule, "message": message, "fieldPath": f".{field}", "reason": reason}
