"""Calibration: the starting model answers some prompts, and their rewards say whether it can learn.

It asks for no accelerator, and takes a few minutes of a CPU: what needs more is left to the first steps of training.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from finetune_api.evaluation import Generation
from finetune_api.finetunejob import RFT, RewardCalibration
from finetune_grading.registered_graders import load_graders
from finetune_grading.rewards import Reward, Rewarded
from finetune_trainer.methods.method import Calibration, Machine, Measured, Row, Start
from finetune_trainer.methods.rft.first_rewards import (
    PROMPTS,
    calibration_of,
    has_signal,
    weak_signal_warning,
    without_signal,
)

MOST_SECONDS = 300.0
LEAST_PROMPTS = 16
"""A model that can't answer so many in MOST_SECONDS is not tried."""
ROWS_AT_ONCE = 32
CACHED_TOKENS = 8_192
"""Of a batch, whose keys and values are kept."""
OPERATIONS_PER_SECOND = 2e10
"""Of one CPU, in float32."""
NUMBER_BYTES = 4
HEADROOM = 1.25
"""A layer's numbers on the way, and copies while weights are read."""
MOST_DOWNLOADED = 4 << 30
GIB = 1 << 30


@dataclass(frozen=True)
class RewardsOfStart(Calibration):
    """The rewards of the starting model's answers."""

    spec: RFT
    reward: Reward

    def why_not(self, start: Start, machine: Machine) -> str | None:
        size = start.size
        if size is None:
            return "the model's config does not say how large it is"
        if start.download_bytes > MOST_DOWNLOADED:
            gibibytes = start.download_bytes / GIB
            return f"its weights are {gibibytes:.1f} GiB, and preflight fetches at most {MOST_DOWNLOADED // GIB}"
        numbers = size.parameters + CACHED_TOKENS * size.layers * size.keys_and_values
        needed = int(HEADROOM * NUMBER_BYTES * numbers)
        if needed > machine.free_bytes:
            return (
                f"it takes {needed / GIB:.1f} GiB of memory, and preflight has {machine.free_bytes / GIB:.1f} left "
                "(preflight.resources.memory of the class)"
            )
        tokens = LEAST_PROMPTS * self.spec.completions_per_prompt * self.spec.max_completion_tokens
        seconds = tokens * 2 * size.parameters / (OPERATIONS_PER_SECOND * machine.cpus)
        if seconds > MOST_SECONDS:
            return f"{LEAST_PROMPTS} prompts could take {seconds / 60:.0f} minutes on {machine.cpus} CPU(s)"
        return None

    def measure(self, start: Start) -> Measured:
        from finetune_trainer.methods.rft.grading import too_many_errors

        groups: list[list[Rewarded]] = []
        for answered in self._answered(start):
            groups += answered
            if len(groups) >= LEAST_PROMPTS and has_signal(_rewards(groups)):
                break
        if not groups:
            return Measured(RewardCalibration(not_measured=f"no prompt was answered within {MOST_SECONDS:.0f} seconds"))
        found = calibration_of(_rewards(groups))
        rewarded = [one for group in groups for one in group]
        error = too_many_errors(rewarded, self.spec.grader_errors.maximum_percent)
        error = error or without_signal(found, self.spec.completions_per_prompt)
        return Measured(found, weak_signal_warning(found), None if error is None else error.failure)

    def _answered(self, start: Start) -> Iterator[list[list[Rewarded]]]:
        """The rewards of the answers to a few prompts at a time, as in training, until MOST_SECONDS are over."""
        from finetune_trainer.generate.generation import generate_tokens, load_generator
        from finetune_trainer.methods.rft.grading import CompletionRewards

        load_graders([grader.as_grader() for grader in self.spec.graders])
        prompts = _sample(start)
        generator = load_generator(start.fetch())
        settings = generator.model.generation_config
        # Training samples from all tokens, whatever the model's own settings are.
        settings.top_k, settings.top_p, settings.min_p, settings.repetition_penalty = 0, 1.0, None, 1.0
        rewards = CompletionRewards(generator.tokenizer, self.reward)
        completions = self.spec.completions_per_prompt
        at_once = max(1, ROWS_AT_ONCE // completions)
        deadline = time.monotonic() + MOST_SECONDS
        for first in range(0, len(prompts), at_once):
            rows = [row for row in prompts[first : first + at_once] for _ in range(completions)]
            ids, items = [row["prompt"] for row in rows], [row["item"] for row in rows]
            settings.max_time = max(0.0, deadline - time.monotonic())
            generation = Generation(
                max_tokens=self.spec.max_completion_tokens,
                temperature=self.spec.temperature,
                seed=(start.seed + first) % 2**32,
            )
            answers = generate_tokens(generator, ids, generation)
            if time.monotonic() > deadline:
                return  # the last answers may have been cut off
            rewarded = rewards.of(rewards.rows(ids, answers, items))
            yield [rewarded[at : at + completions] for at in range(0, len(rewarded), completions)]


def _sample(start: Start) -> list[Row]:
    """PROMPTS rows, or as many as the run trains on if that is less: then nothing is refused.

    Of a small training set some are there several times, as they are in training.
    """
    numbers = random.Random(start.seed).sample(range(start.examples), min(PROMPTS, start.examples))
    rows = start.rows(frozenset(numbers))
    return [rows[number] for number in islice(cycle(numbers), min(PROMPTS, start.prompts))]


def _rewards(groups: Sequence[Sequence[Rewarded]]) -> list[list[float | None]]:
    return [[one.reward for one in group] for group in groups]
