"""What of an evaluation becomes its page for people."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.evaluation import Generation, Score
from finetune_api.graders import Grader
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import (
    CheckpointSource,
    EvaluateRun,
    JobIdentity,
    ModelSource,
    NamedModel,
    StorageConfig,
)
from finetune_grading.grade import Grade, GradeError
from finetune_grading.sample import Sample
from finetune_trainer.evaluation.report import to_page
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt
from finetune_trainer.outputs.output import Output

HUGE = 2**80


def run_of(*models: str, steps: Mapping[str, int] | None = None) -> EvaluateRun:
    """`steps`: of models that are checkpoints."""
    checkpoints = {
        name: CheckpointSource(uri=f"s3://runs/step-{step}", step=step) for name, step in (steps or {}).items()
    }
    return EvaluateRun(
        job=JobIdentity(namespace="team-a", name="judge", uid="u", run_id="1"),
        storage=StorageConfig(region="local"),
        output_uri="s3://runs/judge",
        models=[
            NamedModel(name=name, model=ModelSource(uri="s3://models/base", checkpoint=checkpoints.get(name)))
            for name in models
        ],
        dataset_uri="s3://data/test.jsonl",
        graders=[Grader.from_wire({"name": "exact", "type": "StringCheck"})],
        generation=Generation(),
    )


def report_of(*models: str) -> EvaluationReport:
    scores = [Score(candidate=name, grader="exact", score=0.5, low=0.2, high=0.8, examples=1) for name in models]
    return EvaluationReport(scores=scores)


def test_numbers_of_any_size_in_tool_calls_and_messages_of_parts_are_shown() -> None:
    parts = ({"role": "user", "content": [{"type": "text", "text": "Look"}, {"n": HUGE}]},)
    item = {"reference_tools": [{"type": "function", "function": {"name": "pay", "arguments": {"amount": HUGE}}}]}
    example = HeldOutExample(1, Prompt(parts), item)
    grades = {"tuned": {"exact": [Grade(0.0, "Failed")]}}
    html = to_page(
        run_of("tuned"), report_of("tuned"), [example], [], {"tuned": [Output(Sample("no"))]}, grades
    ).decode()
    assert html.count(str(HUGE)) >= 1


def test_an_output_that_is_not_there_is_reported_and_one_that_is_not_graded_too() -> None:
    example = HeldOutExample(1, Prompt("Question"), {"reference": "half a pair: \ud800"})
    outputs = {
        "baseline": [Output(Sample("what the baseline said"))],
        "tuned": [Output(Sample(""), error=GradeError("NoOutput", "the API did not answer"))],
    }
    grades = {"tuned": {"exact": [Grade.errored(GradeError("NoOutput", ""))]}}
    html = to_page(run_of("baseline", "tuned"), report_of("tuned"), [example], [], outputs, grades).decode()
    assert "(no output: NoOutput)" in html
    assert "what the baseline said" in html
    assert "Not graded" in html


def test_of_several_checkpoints_the_best_is_named_with_its_interval_and_those_that_may_be_as_good() -> None:
    steps = {"tuned-step-50": 50, "tuned-step-100": 100, "tuned-step-150": 150, "other-step-9": 9}
    measured = [("tuned-step-50", 0.3, 0.5), ("tuned-step-100", 0.6, 0.8), ("tuned-step-150", 0.5, 0.7)]
    measured += [("other-step-9", 0.7, 0.9), ("plain", 0.9, 1.0)]
    scores = [
        Score(candidate=name, grader="exact", score=(low + high) / 2, low=low, high=high, examples=1)
        for name, low, high in measured
    ]
    names = [*steps, "plain"]
    outputs = {name: [Output(Sample("no"))] for name in names}
    grades = {name: {"exact": [Grade(0.0, "Failed")]} for name in names}
    html = to_page(
        run_of(*names, steps=steps),
        EvaluationReport(scores=scores),
        [HeldOutExample(1, Prompt("Question"), {"reference": "yes"})],
        [],
        outputs,
        grades,
    ).decode()
    assert html.count("Best checkpoint") == 1, "of a candidate with one checkpoint nothing was chosen"
    assert (
        "tuned-step-100 scores highest of the checkpoints of tuned by exact: 70.0 % (60.0 % to 80.0 %). "
        "Intervals overlap with it, so these may be as good: tuned-step-150."
    ) in html
