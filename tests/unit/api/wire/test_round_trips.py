"""Any spec that its CRD's schema takes is read, and written as it was: no field is lost, refused or changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity
from pydantic import TypeAdapter

from finetune_api.crd import structural_schema
from finetune_api.kinds import KINDS, Kind
from finetune_api.kubernetes_types import Quantity
from tests.unit.api.wire.test_versions import contains
from tests.unit.api.wire.wire_objects import objects_of

SPECS = {kind.name: objects_of(structural_schema(kind.spec)) for kind in KINDS}
QUANTITY: TypeAdapter[str] = TypeAdapter(Quantity)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_a_spec_comes_back_as_it_was(kind: Kind, data: Any) -> None:
    wire = data.draw(SPECS[kind.name])
    parsed = kind.spec.from_wire(wire)
    assert kind.spec.from_wire(parsed.to_wire()) == parsed
    assert contains(parsed.to_wire(), _with_text_quantities(wire))


def _with_text_quantities(value: Any, name: str = "") -> Any:
    """`cpu: 4` is written as "4", as Kubernetes does."""
    if isinstance(value, dict):
        return {key: _with_text_quantities(child, key) for key, child in value.items()}
    if isinstance(value, list):
        return [_with_text_quantities(child) for child in value]
    return str(value) if name in ("cpu", "memory", "ephemeralStorage", "sharedMemory") else value


@given(objects_of(TypeAdapter(Quantity).json_schema()))
def test_a_quantity_is_one_of_kubernetes(value: Any) -> None:
    text = QUANTITY.validate_python(value)
    assert parse_quantity(text) >= 0
    assert QUANTITY.validate_python(text) == text


@pytest.mark.parametrize("value", [-1, True, 1.5, "-1", "4 Gi", "Gi", "", "1e", "0x10", "1.2.3", None])
def test_what_is_no_quantity_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        QUANTITY.validate_python(value)
