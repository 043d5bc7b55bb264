"""The grader Pairwise: a judge's preference between an output and another model's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune_api.graders import Grader, GraderErrorCode, Pairwise
from finetune_grading.grade import Grade, RowError, Scored
from finetune_grading.graders.interface import AskingGrader, InvalidGraderError, item_variables
from finetune_grading.graders.score_model import judge_of
from finetune_grading.judge import Judge, ask_structured
from finetune_grading.judge_messages import question_on_pair
from finetune_grading.sample import Row
from finetune_grading.templates import variables

Outcome = Literal["Win", "Loss", "Tie"]
_SCORES: Mapping[Outcome, float] = {"Win": 1.0, "Tie": 0.5, "Loss": 0.0}
_RESULTS = ("A", "B", "Tie")
_TASK = "Two models wrote A and B. The result is 'A' or 'B', whichever is better by the criteria, or 'Tie'."


def compile_pairwise(grader: Grader, pass_threshold: float, judges: Mapping[str, Judge]) -> AskingGrader:
    """Raises InvalidGraderError."""
    spec = grader.pairwise
    assert spec is not None, "a union's required member"
    fields = item_variables(grader.name, {"pairwise.criteria": spec.criteria})
    if of_output := [name for name in variables(spec.criteria) if name not in fields]:
        message = (
            f"pairwise.criteria: {{{{{of_output[0]}}}}}: both outputs are shown anyhow; name fields of the example."
        )
        raise InvalidGraderError(grader.name, message, GraderErrorCode.INVALID_VARIABLE_ERROR)
    judge = judge_of(grader.name, spec.model, judges)

    async def ask(row: Row) -> Scored:
        if row.other is None:
            raise RowError(GraderErrorCode.INVALID_VARIABLE_ERROR, "There is no baseline's output to compare with.")
        mine, other = row.sample.output_text, row.other.output_text
        orders = [_ask_once(judge, spec, row, mine, other, mine_is="A")]
        if spec.both_orders:
            orders.append(_ask_once(judge, spec, row, other, mine, mine_is="B"))
        outcomes = await asyncio.gather(*orders)
        # A judge often prefers what stands first: a preference that the order decides is none.
        agreed: Outcome = outcomes[0] if len(set(outcomes)) == 1 else "Tie"
        return Scored(_SCORES[agreed], {"outcome": agreed, "byOrder": outcomes})

    best = "for this text, and against the other one"
    return AskingGrader(grader.name, pass_threshold, fields, ask, spec.model, best, compares=True)


@dataclass(frozen=True)
class Tally:
    """How often outputs were preferred."""

    wins: int
    ties: int
    losses: int
    position_consistency: float | None
    """The share of outputs of which both orders agree; None where they were asked in one order."""


def tally(grades: Sequence[Grade]) -> Tally | None:
    """Of the outputs that a Pairwise grader has graded; None where these are no grades of one."""
    outcomes = [grade.details["outcome"] for grade in grades if "outcome" in grade.details]
    if not outcomes:
        return None
    asked_twice = [orders for grade in grades if len(orders := grade.details.get("byOrder", ())) == 2]
    agreed = sum(first == second for first, second in asked_twice)
    consistency = agreed / len(asked_twice) if asked_twice else None
    return Tally(outcomes.count("Win"), outcomes.count("Tie"), outcomes.count("Loss"), consistency)


async def _ask_once(judge: Judge, spec: Pairwise, row: Row, a: str, b: str, mine_is: str) -> Outcome:
    def read(reply: Mapping[str, Any]) -> Outcome:
        result = reply.get("result")
        if result not in _RESULTS:
            raise ValueError("Its result is not 'A', 'B' or 'Tie'.")
        if result == "Tie":
            return "Tie"
        return "Win" if result == mine_is else "Loss"

    schema = {"type": "string", "enum": list(_RESULTS)}
    question = question_on_pair(spec.criteria, row, {"A": a, "B": b}, schema, _TASK, spec.sampling)
    return await ask_structured(judge, question, read)
