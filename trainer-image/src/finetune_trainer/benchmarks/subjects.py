"""mmlu as one task. lm-eval has 57 of them, each for the rows of one subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import ConfigurableTask

SUBJECT = "subject"


class SubjectsTask(ConfigurableTask):
    """Solved examples are the first ones of the question's own subject, as each of lm-eval's tasks has them.

    The first questions are one of each subject, the next ones another of each, so that a limit leaves none out.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config=config)
        split = self.config.test_split
        questions = self.dataset[split]
        self.dataset[split] = questions.select(in_turn(questions[SUBJECT]))
        self.task_docs = self.eval_docs
        solved: dict[str, list[Any]] = {subject: [] for subject in questions[SUBJECT]}
        for one in self.fewshot_docs():
            solved.setdefault(one[SUBJECT], []).append(one)
        self._samplers = {subject: FirstNSampler(of_subject) for subject, of_subject in solved.items()}
        self.most_shots = min(map(len, solved.values()), default=0)
        """As many as each subject has."""

    def fewshot_context(self, doc: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        """lm-eval's prompt; it asks `sampler` for the solved examples."""
        self.sampler = self._samplers[doc[SUBJECT]]
        return super().fewshot_context(doc, *arguments, **options)


def in_turn(subjects: Sequence[str]) -> list[int]:
    """The positions: the first of each subject, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for at, subject in enumerate(subjects):
        turns.append((seen[subject], at))
        seen[subject] += 1
    return [at for _, at in sorted(turns)]
