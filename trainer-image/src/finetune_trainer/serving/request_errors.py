"""Validation errors of requests in the wording of OpenAI's API instead of pydantic's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

NAMES = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", list: "an array", dict: "an object"}
EXPECTED = {
    **dict.fromkeys(("string_type",), "a string"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "a boolean"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "an integer"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a decimal"),
    **dict.fromkeys(("list_type",), "an array"),
    **dict.fromkeys(("dict_type", "model_type"), "an object"),
}
BOUNDS = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="), "less_than_equal": ("le", "<=")}
LENGTHS = {
    "too_short": ("min_length", "at least", "items"),
    "too_long": ("max_length", "at most", "items"),
    "string_too_short": ("min_length", "at least", "characters"),
    "string_too_long": ("max_length", "at most", "characters"),
}


def explain(invalid: ValidationError) -> tuple[str, str | None]:
    """The message of the first error, and its parameter (None if the request is not an object)."""
    errors = invalid.errors(include_url=False)
    first: Mapping[str, Any] = next((one for one in errors if not _is_of_another_member(one)), errors[0])
    parts = [str(part) for part in first["loc"] if str(part).isidentifier() or isinstance(part, int)]
    if len(parts) > 1 and parts[-1] == "str":  # pydantic's name of a union member, not a key
        parts.pop()
    if parts[:1] == ["response_format"]:
        parts[1:2] = []  # pydantic's name of the member of its union
    if not parts:
        whole = first["msg"].removeprefix("Value error, ") if first["type"] == "value_error" else None
        return (f"Invalid request: {whole}." if whole else "The body must be a JSON object."), None
    return _message(first, ".".join(parts)), parts[0]


def _is_of_another_member(error: Mapping[str, Any]) -> bool:
    """Whether it says that an array is no string, of a union of both: what is wrong in the array is said after it."""
    return error["loc"][-1:] == ("str",) and isinstance(error["input"], list)


def _message(error: Mapping[str, Any], where: str) -> str:
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return f"Missing required parameter: '{where}'."
    if kind == "extra_forbidden":
        return f"Unknown parameter: '{where}'. This server does not have it."
    if kind == "literal_error":
        return f"Invalid value for '{where}': supported values are {context['expected'].removesuffix(' or None')}."
    if kind in EXPECTED:
        got = "null" if found is None else NAMES.get(type(found), "something else")
        return f"Invalid type for '{where}': expected {EXPECTED[kind]}, but got {got} instead."
    if kind in BOUNDS:
        name, sign = BOUNDS[kind]
        return f"Invalid '{where}': expected a value {sign} {context[name]:g}, but got {found!r} instead."
    if kind in LENGTHS:
        name, bound, unit = LENGTHS[kind]
        most = context[name]
        return f"Invalid '{where}': expected {bound} {most} {unit.removesuffix('s') if most == 1 else unit}."
    return f"Invalid '{where}': {error['msg'].removeprefix('Value error, ')}."
