"""How far an evaluation is: outputs that are there, and outputs that every grader has graded."""

from __future__ import annotations

import pytest

from finetune_api.evaluation import CandidateProgress
from finetune_api.pod_contracts.progress import TrainerStatus, to_progress
from finetune_trainer.report import evaluation_progress
from finetune_trainer.report.evaluation_progress import EvaluationReporter, FurtherOutputs


class Receiver:
    def __init__(self) -> None:
        self.reports: list[tuple[TrainerStatus, list[CandidateProgress]]] = []

    def send(self, status: TrainerStatus, *, candidates: list[CandidateProgress]) -> None:
        self.reports.append((status, candidates))


def test_where_a_grader_asks_a_model_an_output_is_half_of_the_work_and_its_grades_the_other_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(evaluation_progress.time, "monotonic", lambda: now)
    receiver = Receiver()
    progress = EvaluationReporter(receiver, ["baseline", "tuned"], total=10, graders=2, asks=True)
    progress.found("baseline", 10)
    now += 30
    progress.made("tuned", 5)
    status, candidates = receiver.reports[-1]
    assert [(one.candidate, one.outputs, one.graded, one.total) for one in candidates] == [
        ("baseline", 10, 0, 10),
        ("tuned", 5, 0, 10),
    ]
    shown = to_progress(status)
    assert shown is not None
    assert (shown.step, shown.total_steps, shown.percent) == (15, 40, 37)
    assert shown.estimated_remaining_seconds == 150, (
        "6 s for each of 25 steps: what was there tells nothing of the speed"
    )

    progress.graded("baseline", 9)
    assert receiver.reports[-1][1][0].graded == 0, "not every half a second"
    progress.report()
    assert receiver.reports[-1][1][0].graded == 4, "nine grades of two graders: four outputs have both"


def test_graders_that_ask_no_model_are_one_percent_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(evaluation_progress.time, "monotonic", lambda: now)
    receiver = Receiver()
    progress = EvaluationReporter(receiver, ["baseline", "tuned"], total=10, graders=1, asks=False)
    now += 60
    progress.made("baseline", 10)
    half = to_progress(receiver.reports[-1][0])
    assert half is not None
    assert (half.percent, half.estimated_remaining_seconds) == (49, 61), "half of the outputs took a minute"
    progress.made("tuned", 10)
    progress.report()
    made = to_progress(receiver.reports[-1][0])
    assert made is not None
    assert made.percent == 99, "they are not graded yet"
    for model in ("baseline", "tuned"):
        progress.graded(model, 10)
    progress.report()
    done = to_progress(receiver.reports[-1][0])
    assert done is not None
    assert done.percent == 100


def test_a_slow_first_output_of_very_many_is_reported_without_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its speed the rest would take decades, which no report can say; it must not end the evaluation."""
    now = 100.0
    monkeypatch.setattr(evaluation_progress.time, "monotonic", lambda: now)
    receiver = Receiver()
    progress = EvaluationReporter(receiver, ["baseline", "tuned"], total=2_000_000, graders=1, asks=True)
    now += 120
    progress.made("tuned")
    assert receiver.reports[-1][0].estimated_remaining_seconds is None
    now += 1
    progress.made("tuned", 1000)
    assert receiver.reports[-1][0].estimated_remaining_seconds == 966_912


def test_progress_is_counted_without_an_endpoint() -> None:
    progress = EvaluationReporter(None, ["tuned"], total=1, graders=0, asks=False)
    progress.made("tuned")
    progress.graded("tuned")
    progress.report()
    assert [(one.outputs, one.graded) for one in progress.candidates()] == [(1, 1)]


def test_answers_to_benchmarks_and_attacks_are_work_too() -> None:
    receiver = Receiver()
    progress = EvaluationReporter(receiver, ["baseline", "tuned"], total=10, graders=1, asks=False, further=90)
    progress.answered(90, earlier=True)
    progress.report()
    half = to_progress(receiver.reports[-1][0])
    FurtherOutputs(progress).made("tuned", 90)
    for model in ("baseline", "tuned"):
        progress.made(model, 10)
        progress.graded(model, 10)
    progress.report()
    done = to_progress(receiver.reports[-1][0])
    assert half is not None and done is not None
    assert (half.percent, done.percent) == (44, 100), "at first 90 of 200, less the share of grading"


def test_outputs_of_other_pods_are_added_to_its_own_once() -> None:
    """The first Pod of several makes its share, and then finds everything."""
    progress = EvaluationReporter(None, ["tuned"], 20, 1, asks=False)
    progress.made("tuned", 8)
    progress.found("tuned", 20)
    (candidate,) = progress.candidates()
    assert candidate.outputs == 20
