"""JSON whose whole numbers are exact, of whatever size: orjson makes floats of those beyond 64 bits."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import orjson


def parse_json(text: str) -> Any:
    """The value of strict JSON (RFC 8259). Raises ValueError, also for what is nested some 1,000 levels deep."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if "\\u" in text:
        write_json(value)  # half a character can be escaped, but not written
    return value


def write_json(value: Any, *, sort_keys: bool = True) -> str:
    """Compact JSON, by default with sorted keys. Raises TypeError or ValueError for what JSON doesn't have."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None).decode()
    except TypeError:  # a number beyond 64 bits, or more than 254 levels
        pass
    try:
        text = json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    text.encode()
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
