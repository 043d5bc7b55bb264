"""What our reinforcement trainers share: completions that graders reward, and what is logged of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_trainer.methods.on_policy import OnPolicy
from finetune_trainer.methods.rft.grading import CompletionGrader
from finetune_trainer.methods.rft.hacking import signs_at
from finetune_trainer.methods.rft.tally import Tally, scores_of
from finetune_trainer.report.events import COMPLETION

SHOWN_CHARACTERS = 1000
KEPT_METRICS = {"entropy": "entropy", "frac_reward_zero_std": "groups_without_spread", "kl": "kl"}
"""Of TRL's own metrics; most others repeat ours."""


class Rollouts(OnPolicy):
    """A mixin that goes before a Trainer class of TRL, with saves in the background."""

    grader: CompletionGrader
    note: Callable[..., None]
    num_generations: int
    _metrics: Any
    _prepare_inputs: Any

    def evaluation_loop(self, *inputs: Any, **more: Any) -> Any:
        """Grade what is answered apart from what is answered in training."""
        of_training, self.grader.tally, self.grader.evaluates = self.grader.tally, Tally(), True
        try:
            output = super().evaluation_loop(*inputs, **more)
            self.grader.refuse_errors()
            measured = self.grader.tally.metrics()
            self._note_completions(self.grader.tally)
            measured |= signs_at(self.state.log_history, self.state.global_step, measured)
        finally:
            self.grader.tally, self.grader.evaluates = of_training, False
        output.metrics.update({f"eval_{name}": value for name, value in measured.items()})
        return output

    def _note_completions(self, tally: Tally) -> None:
        for number, (shown, rewarded) in enumerate(zip(tally.shown, tally.rewarded, strict=False), start=1):
            prompt, output = (text[:SHOWN_CHARACTERS] for text in shown)
            self.note(
                f"Completion {number} of the evaluation of step {self.state.global_step}",
                type=COMPLETION,
                step=self.state.global_step,
                number=number,
                prompt=prompt,
                output=output,
                scores=scores_of(rewarded),
            )

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Answer and grade: there is no loss to measure."""
        self._prepare_inputs(inputs)
        return None, None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log our own metrics in place of TRL's."""
        kept = self._metrics["train" if self.model.training else "eval"]
        if "loss" in logs:
            means = {name: kept[key] for key, name in KEPT_METRICS.items() if kept[key]}
            logs.update({name: sum(values) / len(values) for name, values in means.items()})
            logs.update(self.grader.tally.metrics())
            self.grader.tally = Tally()
        kept.clear()
        super().log(logs, start_time)  # type: ignore[misc]
