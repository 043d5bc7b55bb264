"""The grader LabelModel: OpenAI's label_model, a judge's choice among labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.graders import Grader
from finetune_grading.grade import Scored
from finetune_grading.graders.interface import AskingGrader, InvalidGraderError
from finetune_grading.graders.score_model import checked_variables, judge_of
from finetune_grading.judge import Judge, ask_structured
from finetune_grading.judge_messages import question_on_output
from finetune_grading.sample import Row


def compile_label_model(grader: Grader, pass_threshold: float, judges: Mapping[str, Judge]) -> AskingGrader:
    """Raises InvalidGraderError for labels that can't tell outputs apart, or messages that can't work."""
    spec = grader.label_model
    assert spec is not None, "a union's required member"
    labels, passing = spec.labels, frozenset(spec.passing_labels)
    if len(set(labels)) < len(labels):
        raise InvalidGraderError(grader.name, "labelModel.labels: a label is there twice.")
    if strange := sorted(passing - set(labels)):
        raise InvalidGraderError(grader.name, f"labelModel.passingLabels: {strange[0]!r} is not one of labels.")
    if passing == set(labels):
        raise InvalidGraderError(
            grader.name, "labelModel.passingLabels: every label passes, so that none tells anything."
        )
    fields = checked_variables(grader.name, spec.input)
    judge = judge_of(grader.name, spec.model, judges)
    task = f"The result is one of these labels: {', '.join(map(repr, labels))}."

    def read(reply: Mapping[str, Any]) -> Scored:
        result = reply.get("result")
        if result not in labels:
            raise ValueError(f"Its result is not one of {', '.join(map(repr, labels))}.")
        return Scored(float(result in passing), {"result": result, "steps": reply.get("steps")})

    async def ask(row: Row) -> Scored:
        question = question_on_output(spec.input, row, {"type": "string", "enum": list(labels)}, task, spec.sampling)
        return await ask_structured(judge, question, read)

    return AskingGrader(grader.name, pass_threshold, fields, ask, spec.model, spec.passing_labels[0])
