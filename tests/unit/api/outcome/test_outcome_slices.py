"""Termination messages with scores of slices: what gates read is kept longest."""

from __future__ import annotations

from finetune_api.evaluation import GatedSliceStatus, Score, SliceScore
from finetune_api.model_usage import ModelUsage
from finetune_api.pod_contracts.outcome import EvaluationReport, parse_termination_message
from finetune_api.pod_contracts.termination_message import to_termination_message
from tests.unit.api.outcome.test_outcome import SLICE


def test_of_too_many_slices_the_largest_are_kept_and_what_was_asked_of_models_is_too() -> None:
    usage = [ModelUsage(model="judge", requests=7, cached=3, prompt_tokens=100, completion_tokens=20, cost=0.5)]
    score = Score(candidate="a", grader="b", score=0.5, low=0, high=1, examples=9)
    slices = [SLICE.model_copy(update={"value": f"{at}-{'x' * 400}", "examples": 99 - at}) for at in range(48)]
    report = EvaluationReport(scores=[score], usage=usage, slices=slices)
    parsed = parse_termination_message(to_termination_message(report))
    assert isinstance(parsed, EvaluationReport)
    assert parsed.usage == usage
    assert 5 <= len(parsed.slices) < 48
    assert parsed.slices == slices[: len(parsed.slices)]
    small = report.model_copy(update={"slices": slices[:2]})
    assert parse_termination_message(to_termination_message(small)) == small


def test_slices_that_no_gate_is_about_go_first_and_those_of_gates_after_everything_but_intervals() -> None:
    numbers = {"score": 1 / 3, "low": 1 / 7, "high": 2 / 3, "examples": 99, "delta": 0.1}
    of_slices = [
        SliceScore(by="{{item.x}}", value=value, candidate=f"c{at}", grader="g", **numbers)
        for value in ("other", "gated", "more")
        for at in range(3)
    ]
    gated = [GatedSliceStatus(by="{{item.x}}", value="gated", grader="g", examples=99)]

    def sent(count: int) -> EvaluationReport:
        of_delta = {"delta_low": -1 / 3, "delta_high": 2 / 3, "p_value": 1 / 7}
        more = {**of_delta, "passed": 10**15, "failed": 10**15, "errored": 10**15}
        of_all = [Score(candidate=f"c{at}", grader="g", **{**numbers, **more}) for at in range(count)]
        report = EvaluationReport(scores=of_all, slices=of_slices, gated_slices=gated, warnings=["w" * 900] * 4)
        parsed = parse_termination_message(to_termination_message(report))
        assert isinstance(parsed, EvaluationReport)
        assert len(parsed.scores) == count
        return parsed

    some = sent(4)
    assert [(one.value, one.candidate) for one in some.slices] == [("gated", f"c{at}") for at in range(3)]
    assert (some.gated_slices, len(some.warnings)) == (gated, 3)
    counts = [sent(count) for count in range(24, 31)]
    assert {len(one.slices) for one in counts} == {0, 2, 3}
    for one in counts:
        (said,) = one.gated_slices or [None]
        assert said is None or said.left_out is (True if len(one.slices) < 3 else None), "what was lost is told"
        assert not one.slices or one.scores[0].delta_low is not None


def test_gates_on_slices_with_long_names_fit_as_well() -> None:
    gated = [GatedSliceStatus(by="x" * 1024, value=f"{at}" * 1024, grader="g", examples=1) for at in range(9)]
    score = Score(candidate="a", grader="b", score=0.5, low=0, high=1, examples=9)
    parsed = parse_termination_message(to_termination_message(EvaluationReport(scores=[score], gated_slices=gated)))
    assert parsed == EvaluationReport(scores=[score])
