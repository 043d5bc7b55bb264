"""Strategies of hypothesis that make what a CRD's schema takes: within its bounds, its patterns and its unions."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from hypothesis import strategies as st

_SHORT = 12


def objects_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema takes, but for rules between several parts of it."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(schema.get("minimum", 0), schema.get("maximum", 2**40)) | _texts(schema)
    kind = schema["type"]
    if kind == "object":
        return _objects(schema)
    if kind == "array":
        unique = schema["x-kubernetes-list-type"] == "set"
        least = schema.get("minItems", 0)
        most = min(schema["maxItems"], max(3, least))
        keys, items = schema.get("x-kubernetes-list-map-keys"), objects_of(schema["items"])
        if keys is not None:
            return st.lists(items, min_size=least, max_size=most, unique_by=lambda one: _key(one, keys))
        return st.lists(items, min_size=least, max_size=most, unique=unique)
    if kind == "string":
        return _texts(schema)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    return st.floats(
        schema["minimum"],
        schema["maximum"],
        exclude_min=schema.get("exclusiveMinimum", False),
        exclude_max=schema.get("exclusiveMaximum", False),
    )


def _key(item: dict[str, Any], keys: list[str]) -> tuple[Any, ...]:
    """What tells an item of a list from the others."""
    return tuple(item[key] for key in keys)


@cache
def _matching(pattern: str, longest: int) -> st.SearchStrategy[str]:
    printable = st.characters(min_codepoint=32, max_codepoint=126)
    return st.from_regex(pattern, fullmatch=True, alphabet=printable).filter(lambda text: len(text) <= longest)


def _texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    longest = schema["maxLength"]
    if "pattern" in schema:
        return _matching(schema["pattern"], longest)
    letters = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])
    return st.text(letters, min_size=schema.get("minLength", 0), max_size=min(longest, _SHORT))


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        values = objects_of(schema["additionalProperties"]) if "additionalProperties" in schema else st.integers(0, 9)
        return st.dictionaries(st.sampled_from(["a", "zone", "b.example"]), values, max_size=2)
    required = set(schema.get("required", []))
    fields = {name: objects_of(child) for name, child in schema["properties"].items()}
    drawn = st.fixed_dictionaries(
        {name: fields[name] for name in fields if name in required},
        optional={name: fields[name] for name in fields if name not in required},
    )
    rules = schema.get("x-kubernetes-validations", [])
    choice = next((rule["rule"] for rule in rules if rule["rule"].endswith(".exists_one(given, given)")), None)
    if choice is not None:
        return _one_of(re.findall(r"has\(self\.(\w+)\)", choice), fields, drawn)
    members = {rule["fieldPath"][1:]: rule for rule in rules if "is only allowed with type" in rule["message"]}
    return _with_member(schema, members, fields, drawn) if members else drawn


def _one_of(
    choices: list[str], fields: dict[str, st.SearchStrategy[Any]], drawn: st.SearchStrategy[dict[str, Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    """With exactly one of the choices."""
    chosen = st.one_of([st.fixed_dictionaries({name: fields[name]}) for name in choices])
    return st.builds(lambda rest, one: {**{k: v for k, v in rest.items() if k not in choices}, **one}, drawn, chosen)


def _with_member(
    schema: dict[str, Any],
    members: dict[str, Any],
    fields: dict[str, st.SearchStrategy[Any]],
    drawn: st.SearchStrategy[dict[str, Any]],
) -> st.SearchStrategy[dict[str, Any]]:
    """With the member of its type, and no other."""
    by_type = {rule["rule"].split("'")[1]: name for name, rule in members.items()}

    def complete(found: dict[str, Any], every: dict[str, Any]) -> dict[str, Any]:
        mine = by_type.get(found.get("type", schema["properties"]["type"].get("default")))
        rest = {name: value for name, value in found.items() if name not in members}
        return rest if mine is None else {**rest, mine: every[mine]}

    return st.builds(complete, drawn, st.fixed_dictionaries({name: fields[name] for name in members}))
