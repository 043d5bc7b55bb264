"""Statuses against the CRDs' own schemas, as the API server would judge them."""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft4Validator

from finetune_api.crd import structural_schema
from finetune_api.lifecycle import KindStatus


def assert_storable(status: KindStatus) -> None:
    """The API server would take this status as it is, and give it back unchanged."""
    wire = status.to_wire()
    assert type(status).from_wire(wire) == status
    problems = [
        f"{'/'.join(map(str, error.path))}: {error.message}" for error in _validator(type(status)).iter_errors(wire)
    ]
    assert not problems


@cache
def _validator(status: type[KindStatus]) -> Draft4Validator:
    return Draft4Validator(_closed(structural_schema(status, with_defaults=False)))


def _closed(schema: Any) -> Any:
    """The API server prunes fields that a schema does not name: nothing may be lost that way."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if "properties" in schema and isinstance(schema["properties"], dict):
        closed["properties"] = {name: _closed(child) for name, child in schema["properties"].items()}
        closed.setdefault("additionalProperties", False)
    return closed
