"""What a client's schema may cost the server."""

from __future__ import annotations

from typing import Any

import pytest
from llguidance import LLTokenizer

from finetune_trainer.serving import schemas
from finetune_trainer.serving.schemas import (
    SchemaError,
    Schemas,
    SchemasBusyError,
    check,
    compile_schema,
    grammar_of,
    refuse_costly,
)

ONE_LINE = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "integer"}}},
    "required": ["a", "b"],
}


@pytest.mark.parametrize("value", [10_001, 999_983, 2_999_999, 10**30, 1e30, 0.999983, 10000.5])
@pytest.mark.parametrize("place", ["properties", "anyOf", "items"])
def test_a_multiple_of_that_takes_long_is_refused_at_once(place: str, value: float) -> None:
    inner: Any = {"type": "number", "multipleOf": value}
    schema = {place: {"properties": {"default": inner, "price": inner}, "anyOf": [inner], "items": inner}[place]}
    with pytest.raises(SchemaError, match="multipleOf"):
        refuse_costly(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "multipleOf": 0.01},
        {"multipleOf": 10_000},
        {"multipleOf": 10000.0},
        {"properties": {"multipleOf": {"type": "integer"}}},
        {"enum": [{"multipleOf": 999_983}]},
    ],
)
def test_others_are_not(schema: dict[str, Any]) -> None:
    refuse_costly(schema)


async def test_a_schema_in_use_costs_little() -> None:
    names = [f"name_{number}" for number in range(300)]
    text = {"type": ["string", "null"], "maxLength": 100, "pattern": "^[a-z ]+$"}
    await check(grammar_of({"type": "object", "properties": dict.fromkeys(names, text), "required": names}))


@pytest.mark.parametrize(
    "schema",
    [
        {"multipleOf": 2_999_999},
        {"allOf": [{"multipleOf": 9_973}, {"multipleOf": 9_967}]},
        {"prefixItems": [{"multipleOf": 9_999 - number} for number in range(500)], "minItems": 500},
    ],
)
async def test_whatever_takes_too_long_is_refused_by_its_process(schema: dict[str, Any]) -> None:
    """Each passes llguidance's own limits."""
    with pytest.raises(SchemaError, match="MiB to compile"):
        await check(grammar_of(schema))


async def test_a_busy_machine_is_no_fault_of_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process had no CPU time at all: the client may ask again."""
    monkeypatch.setattr(schemas, "MOST_SECONDS", 0.0)
    with pytest.raises(SchemasBusyError, match="not compiled within 0 seconds: the server is busy"):
        await Schemas().compiled(ONE_LINE, lambda _: pytest.fail("compiled without a check"))


async def test_what_llguidance_refuses_keeps_its_reason() -> None:
    with pytest.raises(SchemaError, match="nonsense"):
        await check(grammar_of({"type": "nonsense"}))


@pytest.mark.parametrize("text", ['{"a": 1, "b": [1, 2]}', '{"a":1,"b":[1,2]}'])
def test_an_answer_is_json_on_one_line(text: str) -> None:
    matcher = compile_schema(LLTokenizer("byte"), ONE_LINE)
    assert matcher.validate_tokens(list(text.encode())) == len(text)


@pytest.mark.parametrize("begun", ["{", '{"a"', '{"a":', '{"a": 1', '{"a": 1,', '{"a": 1, "b": [', '{"a": 1, "b": [1,'])
@pytest.mark.parametrize("more", ["  ", "\n", "\t"])
def test_a_model_can_not_write_whitespace_for_ever(begun: str, more: str) -> None:
    """A model that was not trained to write JSON prefers it to anything else, until its max_tokens."""
    matcher = compile_schema(LLTokenizer("byte"), ONE_LINE)
    assert matcher.validate_tokens(list((begun + more).encode())) == len(begun) + len(more) - 1
