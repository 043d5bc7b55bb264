"""Formulas over graders' scores, as OpenAI's multi grader has them: + - * / ^, min max abs floor ceil exp sqrt log.

A small parser of its own, so that nothing is ever evaluated but arithmetic, and nothing runs long: numbers are floats,
so `9^9^9^9` overflows instead of growing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.graders import GraderErrorCode
from finetune_grading.arithmetic import OF_INTERVALS, OF_NUMBERS, Arithmetic, Interval, finite

MOST_NESTED = 50
"""Parentheses, powers and signs within each other."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))|(?P<name>\w+)|(?P<sign>[-+*/^(),]))"
)
_OF_MANY = frozenset({"min", "max"})

_Node = Callable[[Mapping[str, Any], Arithmetic], Any]
"""The value of a part, from those of the names, by an arithmetic: of numbers, or of what numbers may be."""


class FormulaError(ValueError):
    """The formula can't be worked out; the message says where, counted in characters from 1."""

    def __init__(self, code: GraderErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Formula:
    """A formula that was parsed."""

    names: tuple[str, ...]
    """The names that it reads."""
    _evaluate: _Node

    def __call__(self, values: Mapping[str, float]) -> float:
        """Its value, a finite number. Raises ArithmeticError (or ValueError, of math) where it, or a part, has none."""
        value: float = self._evaluate(values, OF_NUMBERS)
        return finite(value)

    def bounds(self, least: float, most: float) -> tuple[float, float]:
        """Numbers that its value is never below and above, while every name's is between these two.

        They may lie further apart than its values: a - a is between -1 and 1 by them. Raises ArithmeticError or
        ValueError where it certainly has no value, whatever the names' are.
        """
        found = self._evaluate(dict.fromkeys(self.names, Interval(least, most)), OF_INTERVALS)
        return found.low, found.high


def parse_formula(text: str, names: Collection[str]) -> Formula:
    """Raises FormulaError: formula_parse_error, or invalid_variable_error for a name that is not one of `names`."""
    parser = _Parser(text, names)
    node = parser.sum()
    parser.expect_end()
    return Formula(tuple(dict.fromkeys(parser.read)), node)


class _Parser:
    """Recursive descent. A power binds more than a sign (-a^2 is -(a^2)) and goes from the right, as in OpenAI's."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.names = names
        self.read: list[str] = []
        self._tokens = _tokens(text, names)
        self._next = 0
        self._depth = 0

    def expect_end(self) -> None:
        kind, text, position = self._tokens[self._next]
        if kind != "end":
            raise _unexpected(text, position)

    def sum(self) -> _Node:
        return self._chain("+-", self._product)

    def _product(self) -> _Node:
        return self._chain("*/", self._signed)

    def _chain(self, signs: str, part: Callable[[], _Node]) -> _Node:
        """Left to right, in a loop: a long sum is no deep one."""
        first = part()
        rest: list[tuple[str, _Node]] = []
        while (sign := self._take_sign(signs)) is not None:
            rest.append((sign, part()))
        if not rest:
            return first

        def evaluate(values: Mapping[str, Any], arithmetic: Arithmetic) -> Any:
            result = first(values, arithmetic)
            for operator, node in rest:
                result = arithmetic.operators[operator](result, node(values, arithmetic))
            return result

        return evaluate

    def _signed(self) -> _Node:
        sign = self._take_sign("+-")
        if sign is None:
            return self._power()
        with_sign = self._nested(self._signed)
        return (lambda values, arithmetic: -with_sign(values, arithmetic)) if sign == "-" else with_sign

    def _power(self) -> _Node:
        base = self._atom()
        if self._take_sign("^") is None:
            return base
        exponent = self._nested(self._signed)
        return lambda values, arithmetic: arithmetic.operators["^"](
            base(values, arithmetic), exponent(values, arithmetic)
        )

    def _atom(self) -> _Node:
        kind, text, position = self._tokens[self._next]
        self._next += 1
        if kind == "number":
            number = float(text)
            return lambda values, arithmetic: arithmetic.number(number)
        if kind == "name":
            return self._call(text, position) if self._take_sign("(") else self._name(text, position)
        if text == "(":
            inner = self._nested(self.sum)
            self._close()
            return inner
        raise _unexpected(text, position)

    def _name(self, name: str, position: int) -> _Node:
        if name not in self.names:
            known = ", ".join(sorted(self.names)) or "none"
            raise FormulaError(
                GraderErrorCode.INVALID_VARIABLE_ERROR,
                f"character {position}: {name!r} is not the name of another grader (a hyphen is written _). "
                f"There are: {known}.",
            )
        self.read.append(name)
        return lambda values, arithmetic: values[name]

    def _call(self, name: str, position: int) -> _Node:
        if name not in OF_NUMBERS.functions:
            raise FormulaError(
                GraderErrorCode.FORMULA_PARSE_ERROR,
                f"character {position}: {name!r} is not a function. There are: {', '.join(OF_NUMBERS.functions)}.",
            )
        arguments = [self._nested(self.sum)]
        while self._take_sign(",") is not None:
            arguments.append(self._nested(self.sum))
        self._close()
        if (len(arguments) < 2) if name in _OF_MANY else (len(arguments) != 1):
            wanted = "two or more values" if name in _OF_MANY else "one value"
            raise FormulaError(
                GraderErrorCode.FORMULA_PARSE_ERROR,
                f"character {position}: {name} takes {wanted}, and has {len(arguments)}.",
            )
        return lambda values, arithmetic: arithmetic.functions[name](
            *(argument(values, arithmetic) for argument in arguments)
        )

    def _nested(self, part: Callable[[], _Node]) -> _Node:
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise FormulaError(
                GraderErrorCode.FORMULA_PARSE_ERROR, f"it is nested more than {MOST_NESTED} levels deep."
            )
        node = part()
        self._depth -= 1
        return node

    def _close(self) -> None:
        if self._take_sign(")") is None:
            _, text, position = self._tokens[self._next]
            raise _unexpected(text, position)

    def _take_sign(self, signs: str) -> str | None:
        kind, text, _ = self._tokens[self._next]
        if kind != "sign" or text not in signs:
            return None
        self._next += 1
        return text


def _tokens(text: str, names: Collection[str]) -> list[tuple[str, str, int]]:
    """Kind, text and position of each token, with one that marks the end. Names may begin with a digit: 3d."""
    found: list[tuple[str, str, int]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise _unexpected(text[at], at + 1)
        kind = match.lastgroup or ""
        if kind == "name" and match[kind][0].isdigit() and match[kind] not in names:
            raise _unexpected(match[kind], match.start(kind) + 1)
        if kind == "number":
            _check_number(match[kind], match.start(kind) + 1, names)
        found.append((kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return [*found, ("end", "", end + 1)]


def _check_number(text: str, position: int, names: Collection[str]) -> None:
    if text in names:
        problem = f"{text!r} is a number and the name of a grader; rename the grader, or write the number otherwise"
    elif not math.isfinite(float(text)):
        problem = f"{text!r} is too large a number"
    else:
        return
    raise FormulaError(GraderErrorCode.FORMULA_PARSE_ERROR, f"character {position}: {problem}.")


def _unexpected(text: str, position: int) -> FormulaError:
    what = f"{text!r} is not expected there" if text else "something is missing at the end"
    return FormulaError(GraderErrorCode.FORMULA_PARSE_ERROR, f"character {position}: {what}.")
