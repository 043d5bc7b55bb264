"""The grader StringCheck: OpenAI's string_check."""

from __future__ import annotations

from finetune_api.evaluation import Grader, StringCheck
from finetune_grading.comparison import compile_comparison
from finetune_grading.grader import CompiledGrader


def compile_string_check(grader: Grader) -> CompiledGrader:
    """Raises InvalidGraderError."""
    spec = grader.string_check or StringCheck(operation="Eq")
    return compile_comparison(grader.name, spec, lambda text, reference: string_check(spec.operation, text, reference))


def string_check(operation: str, input_text: str, reference: str) -> float:
    """1.0 when the comparison holds, else 0.0. `Like` and `ILike` ask whether the input contains the reference."""
    match operation:
        case "Eq":
            holds = input_text == reference
        case "Ne":
            holds = input_text != reference
        case "Like":
            holds = reference in input_text
        case "ILike":
            holds = reference.casefold() in input_text.casefold()
        case _:
            raise ValueError(f"unknown operation {operation!r}")
    return float(holds)
