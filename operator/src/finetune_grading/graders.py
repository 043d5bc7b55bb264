"""The graders of a spec, checked and compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from finetune_api.evaluation import Grader
from finetune_grading.grader import CompiledGrader, InvalidGraderError
from finetune_grading.json_schema import compile_json_schema
from finetune_grading.string_check import compile_string_check
from finetune_grading.text_similarity import compile_text_similarity
from finetune_grading.tool_call_match import compile_tool_call

COMPILERS: Mapping[str, Callable[[Grader], CompiledGrader]] = {
    "StringCheck": compile_string_check,
    "TextSimilarity": compile_text_similarity,
    "JsonSchema": compile_json_schema,
    "ToolCall": compile_tool_call,
}
"""By the type of a grader."""


def compile_graders(graders: Sequence[Grader]) -> list[CompiledGrader]:
    """Check the graders before any model is loaded. Raises InvalidGraderError."""
    names = [grader.name for grader in graders]
    for name in names:
        if names.count(name) > 1:
            raise InvalidGraderError(name, "its name is used twice; give each grader a name of its own.")
    return [COMPILERS[grader.type](grader) for grader in graders]
