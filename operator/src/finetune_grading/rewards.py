"""The reward of a completion: the graders of method.rft, and a formula of their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetune_api.finetunejob import RFT
from finetune_api.graders import Grader, Multi
from finetune_grading.grade import Grade
from finetune_grading.grade_rows import grade_rows
from finetune_grading.graders.interface import CompiledGrader, InvalidGraderError
from finetune_grading.graders.multi import MultiGrader, compile_multi
from finetune_grading.registered_graders import check_graders, is_binary
from finetune_grading.sample import REFERENCE_TOOLS, Item, Row
from finetune_grading.scores import OF_THE_OUTPUT
from finetune_grading.tool_calls import problem_of_calls

REWARD = "reward"


class InvalidRewardError(ValueError):
    """A reward that can't work. The message names the field, and says what to change."""


@dataclass(frozen=True)
class Rewarded:
    """The reward of one completion, and each grader's grade."""

    reward: float | None
    """From 0 to 1; None where it could not be graded through no fault of the model."""
    grades: Mapping[str, Grade]
    total: Grade
    """What the reward was made of: says why there is none."""


@dataclass(frozen=True)
class Reward:
    """Graders, and which of them is the reward, or a formula of their scores."""

    graders: Sequence[CompiledGrader]
    total: str | MultiGrader
    of_calls: Sequence[str] = ()
    """The graders that read an item's tool calls, by name."""

    def missing_from(self, item: Item) -> Iterator[tuple[str, str]]:
        """Each variable that a grader reads and the item lacks: the grader's name, and the variable."""
        for grader in self.graders:
            for name in grader.missing_from(item):
                yield grader.name, name

    def problem_of(self, item: Item) -> str | None:
        """Why the item's tool calls are none, with the grader that reads them; None if there is nothing wrong."""
        if not self.of_calls:
            return None
        calls = item[REFERENCE_TOOLS]
        problem = problem_of_calls(calls)
        if problem is None and calls and not item.get("tools"):
            problem = "the example has no 'tools' that the model could call"
        return None if problem is None else f"Grader {self.of_calls[0]!r} reads {REFERENCE_TOOLS}: {problem}."

    async def of(self, rows: Sequence[Row]) -> list[Rewarded]:
        """The reward of each row, in their order."""
        grades = await grade_rows(self.graders, rows)
        by_row = [{name: of_rows[at] for name, of_rows in grades.items()} for at in range(len(rows))]
        return [self._rewarded(of_row) for of_row in by_row]

    def _rewarded(self, grades: Mapping[str, Grade]) -> Rewarded:
        total = grades[self.total] if isinstance(self.total, str) else self.total.combine(grades)
        if total.error is not None:
            return Rewarded(0.0 if total.error.code in OF_THE_OUTPUT else None, grades, total)
        return Rewarded(total.score, grades, total)


def compile_reward(spec: RFT) -> Reward:
    """Check graders and formula. No I/O. Raises InvalidRewardError."""
    given = [grader.as_grader() for grader in spec.graders]
    try:
        graders = check_graders(given, as_rewards=True)
    except InvalidGraderError as error:
        raise InvalidRewardError(str(error).replace("spec.graders", "spec.method.rft.graders", 1)) from error
    names = [grader.name for grader in graders]
    of_calls = [grader.name for grader in given if grader.type == "ToolCall"]
    wanted = spec.reward if spec.reward is not None else names[0]
    if wanted in names:
        return Reward(graders, wanted, of_calls)
    formula = Grader(name=REWARD, type="Multi", multi=Multi(calculate_output=wanted))
    try:
        binary = [grader.name for grader in given if is_binary(grader)]
        return Reward(graders, compile_multi(formula, 0.5, names, binary=binary, as_reward=True), of_calls)
    except InvalidGraderError as error:
        problem = error.problem.replace("multi.calculateOutput: ", "", 1)
        raise InvalidRewardError(f"spec.method.rft.reward: {problem}") from error


def reward_problem(spec: RFT) -> str | None:
    """Why a reward can't work, with its field; None if it can."""
    try:
        compile_reward(spec)
    except InvalidRewardError as error:
        return str(error)
    return None
