"""What the signs and functions of a formula do: with numbers, and with intervals, the numbers that something may be.

An interval of which no number has a result raises ArithmeticError or ValueError, as a number does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arithmetic:
    """How formulas are evaluated over one kind of values."""

    number: Callable[[float], Any]
    """The value of a number in the formula."""
    operators: Mapping[str, Callable[[Any, Any], Any]]
    functions: Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both of which may be infinite."""

    low: float
    high: float

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)


ALL = Interval(-math.inf, math.inf)


def finite(value: float) -> float:
    """min(1, a * b) is no value where a * b has none."""
    if not math.isfinite(value):
        raise OverflowError("a result is not a finite number")
    return value


def _hull(*found: float) -> Interval:
    """From the least to the greatest; all numbers where one is undefined (0 times infinity)."""
    return ALL if any(math.isnan(one) for one in found) else _reached(Interval(min(found), max(found)))


def _reached(of: Interval) -> Interval:
    """Raises OverflowError where none of it is a number."""
    if of.low == math.inf or of.high == -math.inf:
        raise OverflowError("a result is not a finite number")
    return of


def _corners(function: Callable[[float, float], float], left: Interval, right: Interval) -> Interval:
    """Of a function that is monotonic in each of its arguments."""
    return _hull(*(function(one, other) for one in (left.low, left.high) for other in (right.low, right.high)))


def _divide(left: Interval, right: Interval) -> Interval:
    if right.low == right.high == 0:
        raise ZeroDivisionError("division by zero")
    if right.low <= 0 <= right.high:
        return ALL
    return _corners(lambda one, other: one / other, left, right)


def _power(base: Interval, exponent: Interval) -> Interval:
    """A root of a negative number is none, and its whole powers change their sign: nothing is said of them."""
    if base.low == base.high == 0 and exponent.high < 0:
        raise ValueError("a negative power of zero")
    if base.high < 0 and exponent.low == exponent.high and not exponent.low.is_integer():
        raise ValueError("a root of a negative number")
    if base.low < 0 or (base.low == 0 and exponent.low < 0):
        return ALL
    return _corners(_unbounded(math.pow), base, exponent)


def _unbounded(function: Callable[..., float]) -> Callable[..., float]:
    """The function, which is infinite where its result is too large for a computer."""

    def evaluate(*arguments: float) -> float:
        try:
            return function(*arguments)
        except OverflowError:
            return math.inf

    return evaluate


def _absolute(of: Interval) -> Interval:
    least = 0.0 if of.low <= 0 <= of.high else min(abs(of.low), abs(of.high))
    return Interval(least, max(abs(of.low), abs(of.high)))


def _rising(function: Callable[[float], float]) -> Callable[[Interval], Interval]:
    return lambda of: _reached(Interval(_unbounded(function)(of.low), _unbounded(function)(of.high)))


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: float(function(value)) if math.isfinite(value) else value


def _root(of: Interval) -> Interval:
    if of.high < 0:
        raise ValueError("a root of a negative number")
    return Interval(math.sqrt(max(0.0, of.low)), math.sqrt(of.high))


def _log(of: Interval) -> Interval:
    if of.high <= 0:
        raise ValueError("a logarithm of what is not positive")
    return Interval(math.log(of.low) if of.low > 0 else -math.inf, math.log(of.high))


OF_NUMBERS = Arithmetic(
    number=lambda value: value,
    operators={
        "+": lambda left, right: finite(left + right),
        "-": lambda left, right: finite(left - right),
        "*": lambda left, right: finite(left * right),
        "/": lambda left, right: finite(left / right),
        "^": lambda base, exponent: finite(math.pow(base, exponent)),
    },
    functions={
        "min": min,
        "max": max,
        "abs": abs,
        "floor": lambda value: float(math.floor(value)),
        "ceil": lambda value: float(math.ceil(value)),
        "exp": math.exp,
        "sqrt": math.sqrt,
        "log": math.log,
    },
)
OF_INTERVALS = Arithmetic(
    number=lambda value: Interval(value, value),
    operators={
        "+": lambda left, right: _corners(lambda one, other: one + other, left, right),
        "-": lambda left, right: _corners(lambda one, other: one - other, left, right),
        "*": lambda left, right: _corners(lambda one, other: one * other, left, right),
        "/": _divide,
        "^": _power,
    },
    functions={
        "min": lambda *of: Interval(min(one.low for one in of), min(one.high for one in of)),
        "max": lambda *of: Interval(max(one.low for one in of), max(one.high for one in of)),
        "abs": _absolute,
        "floor": _rising(_whole(math.floor)),
        "ceil": _rising(_whole(math.ceil)),
        "exp": _rising(math.exp),
        "sqrt": _root,
        "log": _log,
    },
)
