"""What is counted of completions and their rewards, and the names that OpenAI has for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from finetune_grading.rewards import Rewarded
from finetune_trainer.report.measures import Measure

REWARD = "reward_mean"
TOKENS = "completion_tokens_mean"
UNRESPONSIVE = "unresponsive_rewards_mean"
MEASURES = (
    Measure("train mean reward", REWARD, rises=True),
    Measure("full validation mean reward", f"eval_{REWARD}", rises=True),
)


def metrics_of(graders: Sequence[str]) -> Iterator[str]:
    """The names of all metrics: results.csv has them with train_ and valid_ before."""
    yield REWARD
    for grader in graders:
        yield from (_score(grader), _errors(grader))
    yield from (TOKENS, UNRESPONSIVE)


@dataclass
class Tally:
    """The completions of a step, or of an evaluation."""

    tokens: list[int] = field(default_factory=list)
    rewarded: list[Rewarded] = field(default_factory=list)
    shown: list[tuple[str, str]] = field(default_factory=list)
    """The prompt and the text of the first of them."""

    def add(self, tokens: Sequence[int], rewarded: Sequence[Rewarded], shown: Sequence[tuple[str, str]]) -> None:
        """Count completions: the number of tokens and the reward of each, and texts of some."""
        self.tokens += tokens
        self.rewarded += rewarded
        self.shown += shown

    def metrics(self) -> dict[str, float]:
        """The mean of each metric that there is something to say of."""
        found: dict[str, Sequence[float | None]] = {
            REWARD: [one.reward for one in self.rewarded],
            TOKENS: list(map(float, self.tokens)),
            UNRESPONSIVE: [float(one.reward is None) for one in self.rewarded],
        }
        graders = list(self.rewarded[0].grades) if self.rewarded else []
        for grader in graders:
            grades = [one.grades[grader] for one in self.rewarded]
            found[_score(grader)] = [grade.score for grade in grades]
            found[_errors(grader)] = [float(grade.error is not None) for grade in grades]
        known = {name: [value for value in values if value is not None] for name, values in found.items()}
        return {name: sum(values) / len(values) for name, values in known.items() if values}


def scores_of(rewarded: Rewarded) -> dict[str, float | str]:
    """The reward of a completion and each grader's score, or why there is none."""
    grades = {"reward": rewarded.total, **rewarded.grades}
    return {
        name: str(grade.error.code) if grade.score is None and grade.error else grade.score or 0.0
        for name, grade in grades.items()
    }


def _score(grader: str) -> str:
    return f"{grader}_reward_mean"


def _errors(grader: str) -> str:
    return f"{grader}_error_mean"
