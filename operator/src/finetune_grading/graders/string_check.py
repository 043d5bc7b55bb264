"""The grader StringCheck: OpenAI's string_check."""

from __future__ import annotations

from finetune_api.graders import Grader, StringCheck
from finetune_grading.graders.comparison import compile_comparison
from finetune_grading.graders.interface import LocalGrader


def compile_string_check(grader: Grader, pass_threshold: float) -> LocalGrader:
    """Raises InvalidGraderError."""
    spec = grader.string_check or StringCheck(operation="Eq")

    def compare(text: str, reference: str) -> float:
        return string_check(spec.operation, text, reference)

    return compile_comparison(grader, spec, compare, pass_threshold)


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
