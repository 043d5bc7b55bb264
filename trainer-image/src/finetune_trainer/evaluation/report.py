"""What an evaluation writes to the storage: samples.jsonl with every row, report.json with all scores, report.html."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import orjson

from finetune_api.evaluated_models import BASELINE
from finetune_api.outcome import EvaluationReport
from finetune_api.run import EndpointConfig, EvaluateRun
from finetune_api.safety.attack import SafetyScore
from finetune_grading.grade import Grade
from finetune_grading.graders.pairwise import tally
from finetune_grading.scores import Graded
from finetune_trainer.benchmarks.catalogue import CATALOGUE
from finetune_trainer.benchmarks.measuring import PreparedBenchmark
from finetune_trainer.evaluation.heldout import HeldOutExample
from finetune_trainer.evaluation.output import Output, Outputs
from finetune_trainer.evaluation.slices import Slice
from finetune_trainer.report.evaluation.page import Answer, ComparedExample, EvaluationPage, SliceScores, page_html
from finetune_trainer.report.evaluation.safety_matrix import matrices
from finetune_trainer.report.evaluation.shown_examples import choose

MOST_ERRORS = 20
"""How many kinds of errors the report lists at most; each row has its own errors."""


def to_samples(examples: Sequence[HeldOutExample], outputs: Outputs, grades: Graded) -> bytes:
    """JSON Lines with a row for each sample of each example.

    A row has the line in the dataset, prompt and reference, and for each model its output, `usage` and scores. An
    output that is missing and a score that could not be given are null, and `errors` says why. If the example has
    tools, the row also has the calls of the reference and of each model.
    """
    count = max((len(of_model) for of_model in outputs.values()), default=0)
    per_example = count // len(examples) if examples else 1
    return b"".join(
        orjson.dumps(
            _row(examples[at // per_example], at, at % per_example, outputs, grades), option=orjson.OPT_APPEND_NEWLINE
        )
        for at in range(count)
    )


def to_report(
    run: EvaluateRun,
    report: EvaluationReport,
    examples: int,
    slices: Sequence[Slice],
    grades: Graded,
    benchmarks: Sequence[PreparedBenchmark] = (),
    rates: Sequence[SafetyScore] = (),
) -> bytes:
    """report.json: all scores, with the dataset, models, graders and settings they were measured with."""
    content: dict[str, Any] = {
        "job": run.job.to_wire(),
        "dataset": {"uri": run.dataset_uri, "examples": examples},
        "graders": [grader.to_wire() for grader in run.graders],
        "models": [model.to_wire() for model in run.models],
        "askedModels": [_asked(one) for one in run.endpoints],
        "generation": run.generation.to_wire(),
        "onError": run.on_error,
        "maxErroredPercent": run.max_errored_percent,
        "scores": [score.to_wire() for score in report.scores],
        "preferences": _preferences(grades),
        "errors": [errors.to_wire() for errors in report.errors],
        "usage": [usage.to_wire() for usage in report.usage],
        "outputs": [one.to_wire() for one in report.outputs],
        "calibrations": [one.to_wire() for one in report.calibrations],
        "warnings": report.warnings,
        "slices": [
            {"by": one.by, "value": one.value, "scores": [score.to_wire() for score in one.scores]} for one in slices
        ],
    }
    if benchmarks:
        content["benchmarks"] = [_benchmark(one) for one in benchmarks]
    if run.safety is not None:
        content["safety"] = {"settings": run.safety.to_wire(), "rates": [rate.to_wire() for rate in rates]}
    if run.cluster_by is not None:
        content["clusterBy"] = run.cluster_by
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_page(
    run: EvaluateRun,
    report: EvaluationReport,
    examples: Sequence[HeldOutExample],
    slices: Sequence[Slice],
    outputs: Outputs,
    grades: Graded,
    rates: Sequence[SafetyScore] = (),
) -> bytes:
    """The report as a page for people. It has the first output of each model to some of the examples."""
    grader, times = run.graders[0].name, run.generation.samples_per_example
    compared = [
        ComparedExample(
            line=example.line,
            prompt=_as_text(example.prompt.content),
            reference=example.reference or _as_text(example.reference_tools or ""),
            answers=[
                _answer(model, of_model[at * times], grades.get(model, {}).get(grader), at * times)
                for model, of_model in outputs.items()
            ],
        )
        for at, example in enumerate(examples)
    ]
    candidates = [score for score in report.scores if score.candidate != BASELINE and score.grader == grader]
    best = max(candidates, key=lambda score: score.score).candidate if candidates else ""
    page = EvaluationPage(
        title=f"Evaluation {run.job.namespace}/{run.job.name}, run {run.job.run_id}",
        dataset=run.dataset_uri,
        examples=len(examples),
        graders=[one.name for one in run.graders],
        scores=report.scores,
        slices=[SliceScores(one.by, one.value, one.examples, one.scores) for one in slices],
        samples=choose(compared, best) if candidates else {},
        outputs=report.outputs,
        warnings=report.warnings,
        attacks=matrices(rates),
        checkpoints=_checkpoints(run, [score.candidate for score in candidates]),
        benchmarks={one.name: one.task for one in run.benchmarks},
    )
    return page_html(page).encode(errors="replace")


def _checkpoints(run: EvaluateRun, scored: Collection[str]) -> dict[str, list[str]]:
    """The candidates of which several checkpoints were compared (`checkpoint: All`), by step."""
    found: dict[str, dict[int, str]] = {}
    for one in run.models:
        if one.model is not None and one.model.checkpoint is not None and one.name in scored:
            step = one.model.checkpoint.step
            if one.name.endswith(suffix := f"-step-{step}"):
                found.setdefault(one.name.removesuffix(suffix), {})[step] = one.name
    return {name: [by_step[step] for step in sorted(by_step)] for name, by_step in found.items() if len(by_step) > 1}


def _answer(model: str, output: Output, grades: Sequence[Grade] | None, at: int) -> Answer:
    """`grades`: the first grader's; None of a model that it does not grade (a baseline that it compares with)."""
    said = output.sample.output_text or _as_text(output.sample.output_tools or "")
    if output.error is not None:
        said = f"(no output: {output.error.code})"
    return Answer(model, said) if grades is None else Answer(model, said, grades[at].score, grades[at].verdict)


def _as_text(content: Any) -> str:
    """Text as it is; messages by their roles; what has another form as JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, tuple) and all(isinstance(one.get("content"), str) for one in content):
        return "\n\n".join(f"{one.get('role', '')}: {one['content']}" for one in content)
    # Not by orjson, which refuses numbers beyond 64 bits.
    return json.dumps(content, indent=2, ensure_ascii=False, default=str)


def _benchmark(prepared: PreparedBenchmark) -> dict[str, Any]:
    """With what its scores can be reproduced by: the dataset's commit, and how it is scored."""
    scored = CATALOGUE[prepared.benchmark.task]
    return {
        **prepared.benchmark.to_wire(),
        "fewShot": prepared.shots,
        "examples": prepared.examples,
        "dataset": prepared.manifest.dataset,
        "revision": prepared.manifest.revision,
        "metric": scored.metric,
        "filter": scored.filter,
        "lmEval": version("lm-eval"),
    }


def _asked(endpoint: EndpointConfig) -> dict[str, str]:
    revision = {} if endpoint.digest is None else {"revision": endpoint.digest}
    return {"name": endpoint.name, "url": endpoint.url, "model": endpoint.model, **revision}


def _row(example: HeldOutExample, at: int, sample: int, outputs: Outputs, grades: Graded) -> dict[str, Any]:
    mine = {model: of_model[at] for model, of_model in outputs.items()}
    of_row = {
        model: {grader: of_grader[at] for grader, of_grader in of_model.items()} for model, of_model in grades.items()
    }
    return {
        "line": example.line,
        "sample": sample + 1,
        "prompt": example.prompt.content,
        "reference": example.reference,
        "outputs": {model: None if one.error is not None else one.sample.output_text for model, one in mine.items()},
        **_said("usage", {model: _usage(one) for model, one in mine.items()}),
        **_calls(example, mine),
        "scores": {
            model: {grader: grade.score for grader, grade in of_model.items()} for model, of_model in of_row.items()
        },
        "verdicts": {
            model: {grader: grade.verdict for grader, grade in of_model.items()} for model, of_model in of_row.items()
        },
        **_said("errors", {model: _errors(of_model) for model, of_model in of_row.items()}),
        **_said("details", {model: _details(of_model) for model, of_model in of_row.items()}),
    }


def _preferences(grades: Graded) -> list[dict[str, Any]]:
    """Wins, ties and losses of each model against the baseline, by Pairwise grader."""
    return [
        {
            "candidate": model,
            "grader": grader,
            "wins": found.wins,
            "ties": found.ties,
            "losses": found.losses,
            "positionConsistency": found.position_consistency,
        }
        for model, of_model in grades.items()
        for grader, of_grader in of_model.items()
        if (found := tally(of_grader)) is not None
    ]


def _errors(grades: Mapping[str, Grade]) -> dict[str, Any]:
    return {
        grader: {"code": grade.error.code, "details": grade.error.details}
        for grader, grade in grades.items()
        if grade.error is not None
    }


def _details(grades: Mapping[str, Grade]) -> dict[str, Any]:
    return {grader: grade.details for grader, grade in grades.items() if grade.details}


def _said(key: str, by_model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Only the models that have a value."""
    said = {model: of_model for model, of_model in by_model.items() if of_model}
    return {key: said} if said else {}


def _usage(output: Output) -> dict[str, Any]:
    """The tokens, cost and seconds of an output."""
    found = {
        "promptTokens": output.prompt_tokens,
        "completionTokens": output.completion_tokens,
        "cost": output.cost,
        "seconds": None if output.seconds is None else round(output.seconds, 3),
    }
    return {name: number for name, number in found.items() if number is not None}


def _calls(example: HeldOutExample, outputs: Mapping[str, Output]) -> dict[str, Any]:
    if not example.prompt.tools:
        return {}
    return {
        "referenceTools": example.reference_tools,
        "outputTools": {name: output.sample.output_tools for name, output in outputs.items()},
    }
