"""The code of Python graders: what it must define, what it is given, and what runs it. Nothing here executes it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any, Protocol

from finetune_api.graders import MOST_SOURCE_BYTES
from finetune_grading.sample import MissingVariableError, Sample

FUNCTION = "grade"
MOST_CHECKED_BYTES = 32 * 1024
"""What is parsed where specs are checked: a tree is a thousand times its source, and one process serves all tenants."""
_PARAMETERS = 2


class RunningCode(Protocol):
    """A grader's code, in a process that grades one row after another."""

    async def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        """A score from 0 to 1. Raises RowError, StopGradingError."""


class PythonRunner(Protocol):
    """What runs the code of Python graders, where it can do no harm."""

    def run(self, source: str, timeout_seconds: int) -> AbstractAsyncContextManager[RunningCode]:
        """The code, started when it is entered. Raises StopGradingError."""


class NeverRun:
    """For checking a spec: a runner that is there, and runs nothing."""

    def run(self, source: str, timeout_seconds: int) -> AbstractAsyncContextManager[RunningCode]:
        raise NotImplementedError


@lru_cache(maxsize=32)
def code_problem(source: str, most_parsed: int = MOST_SOURCE_BYTES) -> str | None:
    """Why the source can't be a grader's, with its line; None if it can, or if more than `most_parsed` bytes are left.

    It is parsed, and never executed. The checks of a spec are made at every reconciliation.
    """
    if (size := len(source.encode(errors="replace"))) > MOST_SOURCE_BYTES:
        return f"it is {size:,} bytes long, and may be {MOST_SOURCE_BYTES:,}."
    if size > most_parsed:
        return None
    try:
        tree = compile(source, "source", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as error:
        return f"{'' if error.lineno is None else f'line {error.lineno}: '}{error.msg}."
    except ValueError as error:  # a null character, in some versions of Python
        return f"{error}."
    except (RecursionError, MemoryError):
        return "it is nested too deeply."
    assert isinstance(tree, ast.Module), "mode exec"
    return _function_problem(tree)


def sample_of(sample: Sample) -> dict[str, Any]:
    """The `sample` of a call, as OpenAI's graders get it."""
    message: dict[str, Any] = {"role": "assistant", "content": sample.output_text}
    if sample.tool_calls:
        message["tool_calls"] = sample.output_tools
    return {
        "output_text": sample.output_text,
        "output_json": _json_or_none(sample),
        "output_tools": sample.output_tools,
        "choices": [{"index": 0, "message": message}],
    }


def _json_or_none(sample: Sample) -> Any:
    try:
        return sample.output_json
    except MissingVariableError:
        return None


def _function_problem(tree: ast.Module) -> str | None:
    """Why the module can't define the function: by `def`, an import or an assignment, also a conditional one."""
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = next((node for node in reversed(defined) if node.name == FUNCTION and node in tree.body), None)
    if isinstance(found, ast.AsyncFunctionDef):
        return f"line {found.lineno}: {FUNCTION} is async; define it with `def`."
    if found is not None:
        return None if _takes_two(found.args) else f"line {found.lineno}: {FUNCTION} must take (sample, item)."
    return None if _is_bound(tree) else f"it defines no function {FUNCTION}(sample, item)."


def _takes_two(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    needs_keywords = any(default is None for default in arguments.kw_defaults)
    return (
        required <= _PARAMETERS and (positional >= _PARAMETERS or arguments.vararg is not None) and not needs_keywords
    )


def _is_bound(tree: ast.Module) -> bool:
    """Whether anything in the module binds the name: what exactly is found when it runs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == FUNCTION and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.alias) and FUNCTION in (node.asname, node.name):
            return True
        if isinstance(node, ast.FunctionDef) and node.name == FUNCTION:
            return True
    return False
