"""What an evaluation writes to the storage: every row, also as OpenAI's output items, all scores, and the page."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import orjson

from finetune_api.evaluation import BASELINE
from finetune_api.evaluation.safety import SafetyScore
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import EndpointConfig, EvaluateRun
from finetune_grading.exact_json import write_json
from finetune_grading.grade import Grade
from finetune_grading.graders.pairwise import tally
from finetune_grading.sample import REFERENCE_TOOLS
from finetune_grading.scores import Graded
from finetune_trainer.benchmarks.catalogue import CATALOGUE
from finetune_trainer.benchmarks.measuring import PreparedBenchmark
from finetune_trainer.evaluation.slices import Slice
from finetune_trainer.outputs.heldout import REFERENCE, HeldOutExample
from finetune_trainer.outputs.output import Output, Outputs
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


def to_output_items(
    run: EvaluateRun, model: str, examples: Sequence[HeldOutExample], outputs: Outputs, grades: Graded, now: int
) -> bytes:
    """JSON Lines in the form of OpenAI's Evals API: one model's outputs as the output items of a run."""
    name = f"{run.job.namespace}/{run.job.name}"
    times, of_model = run.generation.samples_per_example, grades.get(model, {})
    types = {grader.name: grader.type for grader in run.graders}
    rows = []
    for at, output in enumerate(outputs[model]):
        example, mine = examples[at // times], {grader: of_grader[at] for grader, of_grader in of_model.items()}
        rows.append(
            {
                "object": "eval.run.output_item",
                "id": f"{name}/{run.job.run_id}/{model}/{at + 1}",
                "created_at": now,
                "run_id": f"{name}/{run.job.run_id}/{model}",
                "eval_id": name,
                "status": _status(output, mine),
                "datasource_item_id": example.line,
                "datasource_item": {
                    key: value for key, value in example.item.items() if key not in (REFERENCE, REFERENCE_TOOLS)
                },
                "results": [_result(grader, types[grader], grade) for grader, grade in mine.items()],
                "sample": _sample(run, model, example, output),
            }
        )
    # Not by orjson, which refuses numbers beyond 64 bits.
    return "".join(f"{write_json(row)}\n" for row in rows).encode()


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
        "dataset": {
            "uri": run.dataset_uri,
            "examples": examples,
            **({} if run.revision is None else {"revision": run.revision.to_wire()}),
        },
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


def _status(output: Output, grades: Mapping[str, Grade]) -> str:
    verdicts = {grade.verdict for grade in grades.values()}
    if output.error is not None or "Errored" in verdicts:
        return "error"
    return "fail" if "Failed" in verdicts else "pass"


def _result(grader: str, type_: str, grade: Grade) -> dict[str, Any]:
    """Without a score there is an error, and no 0."""
    error = grade.error
    said = {"code": error.code, "message": error.details} if error is not None else None
    return {
        "name": grader,
        "type": type_,
        "passed": grade.verdict == "Passed",
        "score": grade.score,
        "sample": {"error": said} if said else dict(grade.details) or None,
    }


def _sample(run: EvaluateRun, model: str, example: HeldOutExample, output: Output) -> dict[str, Any]:
    content, said = example.prompt.content, output.sample
    asked = [{"role": "user", "content": content}] if isinstance(content, str) else list(content)
    answer: dict[str, Any] = {"role": "assistant", "content": said.output_text}
    if said.tool_calls:
        answer["tool_calls"] = said.output_tools
    prompt, completion = output.prompt_tokens, output.completion_tokens
    known = prompt is not None and completion is not None
    error = output.error
    return {
        "model": model,
        "input": asked,
        "output": [] if error is not None else [answer],
        "finish_reason": "length" if output.truncated else "tool_calls" if said.tool_calls else "stop",
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": 0}
        | {"total_tokens": (prompt or 0) + (completion or 0)}
        if known
        else None,
        "error": None if error is None else {"code": error.code, "message": error.details},
        "max_completion_tokens": run.generation.max_tokens,
        "temperature": run.generation.temperature,
        "top_p": 1.0 if run.generation.top_p is None else run.generation.top_p,
        "seed": run.generation.seed,
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
