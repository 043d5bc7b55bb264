"""Completions, rewarded by the graders of method.rft (finetune_grading/rewards.py computes the reward)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RFT
from finetune_grading.exact_json import parse_json
from finetune_grading.rewards import Reward, Rewarded
from finetune_grading.sample import Row
from finetune_trainer.generate.output_samples import to_sample
from finetune_trainer.generate.tool_calls import response_template
from finetune_trainer.methods.rft.first_rewards import FirstRewards
from finetune_trainer.methods.rft.tally import Tally
from finetune_trainer.methods.samples import readable_prompt
from finetune_trainer.process.failures import DiagnosedError

SHOWN_ERRORS = 3
SHOWN = 4
"""Completions of each evaluation that the report shows."""


class CompletionRewards:
    """Rewards completions, which are token ids."""

    def __init__(self, tokenizer: Any, reward: Reward) -> None:
        self._tokenizer = tokenizer
        self._template = response_template(tokenizer)
        self._reward = reward

    def rows(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], items: Sequence[str]
    ) -> list[Row]:
        """What graders read of each completion. `items`: as the method's rows have them."""
        return [self._row(*one) for one in zip(prompts, completions, items, strict=True)]

    def of(self, rows: Sequence[Row]) -> list[Rewarded]:
        """The reward of each row."""
        return asyncio.run(self._reward.of(rows))

    def _row(self, prompt: Sequence[int], completion: Sequence[int], written: str) -> Row:
        item = parse_json(written)
        return Row(item, to_sample(self._tokenizer, self._template, item.get("tools") or (), prompt, completion))


def too_many_errors(rewarded: Sequence[Rewarded], most_percent: float) -> DiagnosedError | None:
    """GraderFailed, if more of these completions than that could not be graded."""
    errors = [one.total.error for one in rewarded if one.reward is None and one.total.error is not None]
    percent = 100 * len(errors) / max(1, len(rewarded))
    if percent <= most_percent:
        return None
    first = "; ".join(dict.fromkeys(f"{error.code}: {error.details}" for error in errors[:SHOWN_ERRORS]))
    return DiagnosedError(
        Reason.GRADER_FAILED,
        f"{len(errors)} of {len(rewarded)} completions could not be graded, {percent:.0f} % "
        f"(method.rft.graderErrors.maximumPercent is {most_percent:g}). The first: {first}",
    )


class CompletionGrader:
    """TRL's reward function: rewards completions, and counts them in `tally`."""

    def __init__(self, tokenizer: Any, reward: Reward, spec: RFT) -> None:
        self.tally = Tally()
        self.evaluates = False
        """Whether the completions are to prompts of the validation set."""
        self._first = FirstRewards(spec.completions_per_prompt)
        self._tokenizer = tokenizer
        self._rewards = CompletionRewards(tokenizer, reward)
        self._most_errors_percent = spec.grader_errors.maximum_percent

    def rewards(
        self,
        prompts: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        item: Sequence[str],
        trainer_state: Any,
        **_: Any,
    ) -> list[float | None]:
        """A reward from 0 to 1 for each completion, and None for those that teach nothing.

        Raises DiagnosedError: GraderFailed when these are too many, RewardHasNoSignal when all are alike at first.
        """
        rows = self._rewards.rows(prompts, completion_ids, item)
        rewarded = self._rewards.of(rows)
        missing = slice(max(0, SHOWN - len(self.tally.shown)))
        outputs = [row.sample.output_text for row in rows[missing]]
        texts = [readable_prompt(self._tokenizer, prompt) for prompt in prompts[missing]]
        self.tally.add([len(ids) for ids in completion_ids], rewarded, list(zip(texts, outputs, strict=True)))
        rewards = [one.reward for one in rewarded]
        if not self.evaluates:  # an evaluation is judged as a whole, not batch by batch
            self._refuse(rewarded)
            self._first.add(trainer_state.global_step, rewards)
        return rewards

    def refuse_errors(self) -> None:
        """Raises DiagnosedError, with GraderFailed, if too many of those that are counted were not graded."""
        self._refuse(self.tally.rewarded)

    def _refuse(self, rewarded: Sequence[Rewarded]) -> None:
        error = too_many_errors(rewarded, self._most_errors_percent)
        if error is not None:
            raise error
