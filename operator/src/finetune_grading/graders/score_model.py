"""The grader ScoreModel: OpenAI's score_model, a judge's number within a range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.graders import Grader, Message
from finetune_grading.grade import Scored
from finetune_grading.graders.interface import AskingGrader, InvalidGraderError, item_variables
from finetune_grading.judge import Judge, ask_structured
from finetune_grading.judge_messages import question_on_output
from finetune_grading.sample import Row
from finetune_grading.templates import variables


def compile_score_model(grader: Grader, pass_threshold: float, judges: Mapping[str, Judge]) -> AskingGrader:
    """Raises InvalidGraderError for a range that is none, or messages that can't work."""
    spec = grader.score_model
    assert spec is not None, "a union's required member"
    least, most = spec.range
    if not (math.isfinite(most - least) and least < most):
        raise InvalidGraderError(grader.name, f"scoreModel.range: [{least:g}, {most:g}] is no range.")
    fields = checked_variables(grader.name, spec.input)
    judge = judge_of(grader.name, spec.model, judges)
    task = f"The result is a number from {least:g} to {most:g}."

    def read(reply: Mapping[str, Any]) -> Scored:
        result = reply.get("result")
        if isinstance(result, bool) or not isinstance(result, (int, float)) or not math.isfinite(result):
            raise ValueError(f"Its result is not a number from {least:g} to {most:g}.")
        clamped = min(most, max(least, float(result)))
        return Scored((clamped - least) / (most - least), {"result": result, "steps": reply.get("steps")})

    async def ask(row: Row) -> Scored:
        question = question_on_output(spec.input, row, {"type": "number"}, task, spec.sampling)
        return await ask_structured(judge, question, read)

    return AskingGrader(grader.name, pass_threshold, fields, ask, spec.model, f"{most:g}")


def judge_of(grader: str, name: str, judges: Mapping[str, Judge]) -> Judge:
    """The model of this name. Raises InvalidGraderError."""
    if name not in judges:
        known = ", ".join(sorted(judges)) or "none"
        raise InvalidGraderError(grader, f"there is no model {name!r}. There are: {known}.")
    return judges[name]


def checked_variables(grader: str, messages: Sequence[Message]) -> tuple[str, ...]:
    """The fields of an example that messages read. Raises InvalidGraderError, also where they read no output."""
    templates = {f"input[{at}].content": message.content for at, message in enumerate(messages)}
    of_items = item_variables(grader, templates)
    if not any(name.startswith("sample.") for template in templates.values() for name in variables(template)):
        raise InvalidGraderError(grader, "input: the judge sees nothing of the output; use {{sample.output_text}}.")
    return of_items
