"""Whether a JSON Schema can be used: its size, its references, and what it costs to apply it to one value.

The operator asks this of everybody's schemas, so nothing here applies a schema to a value or follows a reference twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

MOST_BYTES = 64 * 1024
MOST_VALUES = 2_000
"""Objects, lists, texts, numbers, ... of which a schema may consist."""
MOST_NESTED = 64
MOST_APPLIED = 2_000
"""Subschemas that may apply to one and the same value, each as often as it is referred to."""
MOST_PATTERN = 4_096
"""Characters of all regular expressions together: Python compiles them when they are checked."""

_MOST_TYPES = 7  # JSON Schema has no more; a check for duplicates takes the square of their number
_MOST_WIDE_CLASSES = 32  # Python writes out a class that reaches beyond Latin-1: 10 ms each
_MESSAGE_LENGTH = 300
_REFERENCES = ("$ref", "$dynamicRef")
# Keywords whose value is a schema, a list of schemas, or an object of schemas. Those of the first line of each apply
# to the same value as the schema that they are in.
_SAME_ONE = ("not", "if", "then", "else")
_SAME_LIST = ("allOf", "anyOf", "oneOf")
_SAME_MAP = ("dependentSchemas", "dependencies")
_ONE = (
    *_SAME_ONE,
    *("additionalProperties", "contains", "contentSchema", "items", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_LIST = (*_SAME_LIST, "prefixItems")
_MAP = (*_SAME_MAP, "$defs", "definitions", "patternProperties", "properties")
# Escapes and classes, in which "(?" is text.
_TEXT_OF_A_PATTERN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_BEYOND_LATIN = re.compile(r"[^\x00-\xff]|\\[uUN]")
_FLAGS_OR_COMMENT = re.compile(r"\(\?[aiLmsux#-]")


class _RefusedError(ValueError):
    """The schema can't be used. The message goes on after "its schema"."""


def schema_refusal(schema: Mapping[str, Any]) -> str | None:
    """Why a schema can't be used, to go on after "its schema"; None when it can. Kept by the schema's text."""
    try:
        text = json.dumps(schema)
    except RecursionError:
        return _too("nested", MOST_NESTED, "levels")
    return _too("large", MOST_BYTES, "bytes") if len(text) > MOST_BYTES else _refusal(text)


@lru_cache(maxsize=64)
def _refusal(text: str) -> str | None:
    schema = json.loads(text)
    try:
        _check_size(schema)
        _check_subschemas(schema)
        _check_draft(schema)
        _check_references(schema)
    except _RefusedError as refused:
        return str(refused)
    return None


def _check_size(schema: Any) -> None:
    values, waiting = 0, [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if values > MOST_VALUES:
            raise _RefusedError(_too("large", MOST_VALUES, "values"))
        if depth > MOST_NESTED:
            raise _RefusedError(_too("nested", MOST_NESTED, "levels"))
        if isinstance(value, dict):
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]


def _check_subschemas(schema: Any) -> None:
    """What makes the check against the draft slow, or lets a part of the schema follow another draft."""
    characters, wide_classes, waiting = 0, 0, [schema]
    while waiting:
        subschema = waiting.pop()
        waiting += _inner(subschema, _ONE, _LIST, _MAP)
        if not isinstance(subschema, dict):
            continue
        if subschema is not schema and "$schema" in subschema:
            raise _RefusedError("has a $schema inside; it is only allowed at the root.")
        if isinstance(types := subschema.get("type"), list) and len(types) > _MOST_TYPES:
            raise _RefusedError(f"has a type of {len(types)} types; there are {_MOST_TYPES}.")
        for pattern in _patterns(subschema):
            characters += len(pattern)
            wide_classes += pattern.count("[") if _BEYOND_LATIN.search(pattern) else 0
            if _FLAGS_OR_COMMENT.search(_TEXT_OF_A_PATTERN.sub("", pattern)):
                raise _RefusedError(f"has flags or a comment in the pattern {pattern[:80]!r}, which ECMA 262 lacks.")
    if wide_classes > _MOST_WIDE_CLASSES:
        raise _RefusedError(
            f"has {wide_classes} [...] in patterns beyond Latin-1; at most {_MOST_WIDE_CLASSES} may be."
        )
    if characters > MOST_PATTERN:
        raise _RefusedError(f"has patterns of {characters} characters; at most {MOST_PATTERN} are allowed.")


def _check_draft(schema: Any) -> None:
    try:
        Draft202012Validator.check_schema(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        message = f"{error.json_path}: {error.message}"[:_MESSAGE_LENGTH]
        raise _RefusedError(f"is not a JSON Schema (2020-12): at {message}") from error
    except (RecursionError, OverflowError) as error:  # of a pattern, too
        raise _RefusedError(f"is nested too deeply, or has a pattern that is too large: {error}.") from error


def _check_references(schema: Any) -> None:
    """Each leads to a part of the schema, none back to where it came from, and all of them not to too many."""
    try:
        applied = _applied(schema)
        order = list(TopologicalSorter(applied).static_order())
    except CycleError as error:
        raise _RefusedError("refers to itself without end.") from error
    except Unresolvable as error:
        raise _RefusedError(f"refers to {error.ref[:_MESSAGE_LENGTH]!r}, which is not in it.") from error
    except (ValueError, TypeError) as error:  # of a URI or a pointer
        raise _RefusedError(f"has a reference that can't be read: {error}"[:_MESSAGE_LENGTH]) from error
    count: dict[int, int] = {}
    for subschema in order:
        count[subschema] = 1 + sum(count[inner] for inner in applied[subschema])
        if count[subschema] > MOST_APPLIED:
            raise _RefusedError(f"applies more than {MOST_APPLIED} subschemas to one value; refer to fewer.")


def _applied(schema: Any) -> dict[int, list[int]]:
    """By subschema: those that apply to the same value. Raises Unresolvable, ValueError or TypeError."""
    root = DRAFT202012.create_resource(schema)
    registry: Registry[Any] = EMPTY_REGISTRY.with_resource(root.id() or "", root).crawl()
    found: dict[int, tuple[Any, Any]] = {}
    dynamic: dict[str, list[int]] = {}
    waiting = [(schema, registry.resolver_with_root(root))]
    while waiting:
        subschema, resolver = waiting.pop()
        found[id(subschema)] = subschema, resolver
        if isinstance(subschema, dict) and "$dynamicAnchor" in subschema:
            dynamic.setdefault(subschema["$dynamicAnchor"], []).append(id(subschema))
        inner = [DRAFT202012.create_resource(one) for one in _inner(subschema, _ONE, _LIST, _MAP)]
        waiting += [(one.contents, resolver.in_subresource(one)) for one in inner]
    applied: dict[int, list[int]] = {}
    for key, (subschema, resolver) in found.items():
        applied[key] = [id(one) for one in _inner(subschema, _SAME_ONE, _SAME_LIST, _SAME_MAP)]
        for reference in _references(subschema):
            target = id(resolver.lookup(reference).contents)
            if target not in found:
                raise _RefusedError(f"refers to {reference[:_MESSAGE_LENGTH]!r}, which is no schema; put it in $defs.")
            # Which of the anchors of a name a $dynamicRef leads to depends on the way there.
            applied[key] += {target, *dynamic.get(reference.rpartition("#")[2], [])}
    return applied


def _inner(subschema: Any, one: tuple[str, ...], many: tuple[str, ...], named: tuple[str, ...]) -> Iterator[Any]:
    """The subschemas under these keywords, whatever else may be under them."""
    if not isinstance(subschema, dict):
        return
    for keyword, value in subschema.items():
        if keyword in one:
            yield value
        elif keyword in many and isinstance(value, list):
            yield from value
        elif keyword in named and isinstance(value, dict):
            yield from value.values()


def _references(subschema: Any) -> Iterator[str]:
    if isinstance(subschema, dict):
        yield from (subschema[key] for key in _REFERENCES if key in subschema)


def _patterns(subschema: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(pattern := subschema.get("pattern"), str):
        yield pattern
    if isinstance(by_pattern := subschema.get("patternProperties"), dict):
        yield from by_pattern


def _too(what: str, most: int, unit: str) -> str:
    return f"is too {'deeply ' if what == 'nested' else ''}{what}: at most {most} {unit} are allowed."
