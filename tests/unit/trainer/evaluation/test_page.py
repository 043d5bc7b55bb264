"""What of an evaluation becomes its page for people."""

from __future__ import annotations

from finetune_api.evaluation import Generation
from finetune_api.evaluation_results import Score
from finetune_api.graders import Grader
from finetune_api.outcome import EvaluationReport
from finetune_api.run import EvaluateRun, JobIdentity, ModelSource, NamedModel, StorageConfig
from finetune_grading.grade import Grade, GradeError
from finetune_grading.sample import Sample
from finetune_trainer.evaluation.heldout import HeldOutExample, Prompt
from finetune_trainer.evaluation.output import Output
from finetune_trainer.evaluation.report import to_page

HUGE = 2**80


def run_of(*models: str) -> EvaluateRun:
    return EvaluateRun(
        job=JobIdentity(namespace="team-a", name="judge", uid="u", run_id="1"),
        storage=StorageConfig(region="local"),
        output_uri="s3://runs/judge",
        models=[NamedModel(name=name, model=ModelSource(uri="s3://models/base")) for name in models],
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


def test_an_output_that_is_not_there_is_told_and_one_that_is_not_graded_too() -> None:
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
