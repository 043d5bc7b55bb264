"""Benchmarks of an evaluation: checked before anything is generated, then answered by every model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from finetune_api.conditions import Reason
from finetune_api.evaluation import Score
from finetune_api.evaluation.benchmarks import Benchmark
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import StorageLocation, parse_s3
from finetune_grading.grade import Grade, Scored
from finetune_grading.scores import Counting, Examples, scores_of
from finetune_trainer.benchmarks.catalogue import BY_SUBJECT, CATALOGUE
from finetune_trainer.benchmarks.kept import KeptAnswers, Measured, Row, kept_folder
from finetune_trainer.benchmarks.lm_eval_tasks import count_examples, load_task, most_shots
from finetune_trainer.benchmarks.mirror import MirrorManifest, fetch_dataset, how_to_fill, read_manifest
from finetune_trainer.generate.generation import Generator
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

SHOTS_SEED = 1234
"""lm-eval's own: every model gets the same solved examples."""
RIGHT = 1.0
"""The score of an example that passes."""
OnExamples = Callable[[int, bool], None]
"""Called with the number of examples that were answered, and whether an earlier try had done so."""
MeasuredModels = Mapping[str, Mapping[str, Measured]]
"""By model and benchmark."""


@dataclass(frozen=True)
class PreparedBenchmark:
    """A benchmark whose dataset is there, and is what lm-eval reads."""

    benchmark: Benchmark
    manifest: MirrorManifest
    task: Any
    """lm-eval's."""
    examples: int
    shots: int
    """Solved examples in each prompt."""
    max_tokens: int | None
    """Of an output; None: lm-eval's own limit."""


def prepare_benchmarks(
    benchmarks: Sequence[Benchmark], storage: Storage, directory: Path, allowed: Sequence[str]
) -> list[PreparedBenchmark]:
    """Fetch and check what the benchmarks read. `directory` must be there until the last model has answered.

    Raises DiagnosedError (BenchmarkNotFound, BenchmarkInvalid, SourceNotAllowed).
    """
    return [_prepare(benchmark, storage, directory / benchmark.name, allowed) for benchmark in benchmarks]


def _prepare(benchmark: Benchmark, storage: Storage, directory: Path, allowed: Sequence[str]) -> PreparedBenchmark:
    mirror = parse_s3(benchmark.mirror.uri)
    with log_progress(f"{benchmark.name}: reading the mirror {benchmark.mirror.uri}"):
        manifest = read_manifest(storage, mirror, benchmark.task)
        data = fetch_dataset(storage, mirror, manifest, directory / "files", allowed)
        task = load_task(benchmark.task, data, directory)
    examples = count_examples(task, benchmark.max_examples)
    if benchmark.few_shot is not None:
        task.set_config(key="num_fewshot", value=benchmark.few_shot)
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    shots = task.get_config("num_fewshot")
    there = most_shots(task) if shots else 0
    if shots > there:
        raise DiagnosedError(
            Reason.BENCHMARK_INVALID,
            f"Benchmark {benchmark.name}: prompts have {shots} solved examples, and the dataset's copy has {there}"
            f"{' of some subject' if benchmark.task in BY_SUBJECT else ''}. "
            f"Set fewShot lower. {how_to_fill(mirror, benchmark.task)}",
        )
    own_limit = _own_limit(task)
    return PreparedBenchmark(benchmark, manifest, task, examples, shots, benchmark.max_tokens or own_limit)


def _own_limit(task: Any) -> int | None:
    """The task's own limit of an output. It is taken out of the definition, where it would be more than ours."""
    settings = dict(task.get_config("generation_kwargs") or {})
    limit: int | None = settings.pop("max_gen_toks", None)
    if limit is not None:
        task.set_config(key="generation_kwargs", value=settings)
    return limit


def measure_all(
    benchmarks: Sequence[PreparedBenchmark],
    name: str,
    model: ModelSource,
    load: Callable[[], Generator],
    outputs_uri: str | None,
    storage: Storage,
    on_examples: OnExamples,
) -> dict[str, Measured]:
    """What a model makes of each benchmark, by its name. What an earlier try has saved below `outputs_uri` is used.

    `load`: loads the model, if it is needed. Raises DiagnosedError.
    """
    folder = None if outputs_uri is None else parse_s3(outputs_uri)
    return {one.benchmark.name: _measure(one, name, model, load, storage, folder, on_examples) for one in benchmarks}


def _measure(
    prepared: PreparedBenchmark,
    name: str,
    model: ModelSource,
    load: Callable[[], Generator],
    storage: Storage,
    folder: StorageLocation | None,
    on_examples: OnExamples,
) -> Measured:
    benchmark = prepared.benchmark
    asked = {"benchmark": benchmark.to_wire(), "dataset": prepared.manifest.to_wire()}
    kept = KeptAnswers(storage, None if folder is None else kept_folder(storage, folder, model, asked))
    earlier = kept.measured()
    if earlier is not None and len(earlier.rows) == prepared.examples:
        on_examples(prepared.examples, True)
        return earlier
    from finetune_trainer.benchmarks.language_model import AskedModel

    answered = _Answered(prepared.examples, on_examples)
    asked_model = AskedModel(load(), kept, answered.add, prepared.max_tokens)
    try:
        with log_progress(
            f"{name}: {benchmark.name}", lambda: {"examples": f"{answered.examples}/{prepared.examples}"}
        ):
            rows = _rows(prepared, asked_model)
    except BaseException:
        # The Pod is told to stop, or the memory is used up: that is the cause, whatever the storage answers.
        with suppress(DiagnosedError):
            kept.write()
        raise
    found = Measured(rows=rows, truncated=asked_model.truncated, cut=asked_model.cut)
    kept.finish(found)
    return found


class _Answered:
    """Counts examples by the requests that were answered, of which an example has as many as it has choices."""

    def __init__(self, total: int, on_examples: OnExamples) -> None:
        self._total = total
        self._on_examples = on_examples
        self._requests = 0
        self.examples = 0

    def add(self, requests: int, of: int, earlier: bool) -> None:
        """Count requests."""
        self._requests += requests
        before, self.examples = self.examples, self._total * self._requests // of
        self._on_examples(self.examples - before, earlier)


def _rows(prepared: PreparedBenchmark, model: Any) -> list[Row]:
    from lm_eval.evaluator import evaluate

    benchmark, task = prepared.benchmark, prepared.task
    scored = CATALOGUE[benchmark.task]
    task.set_fewshot_seed(seed=SHOTS_SEED)
    found = evaluate(
        lm=model,
        task_dict={"tasks": {benchmark.task: task}, "groups": {}, "group_map": {}},
        limit=benchmark.max_examples,
        bootstrap_iters=0,
        apply_chat_template=benchmark.chat_template,
        fewshot_as_multiturn=benchmark.chat_template,
    )
    return [
        Row(
            example=sample["doc_id"],
            digest=sample["doc_hash"],
            prompt=str(sample["arguments"][0][0]),
            target=str(sample["target"]),
            answers=[_plain(response) for response in sample["filtered_resps"]],
            score=_score(sample[scored.metric]),
        )
        for sample in sorted(found["samples"][benchmark.task], key=lambda sample: sample["doc_id"])
        if sample["filter"] == scored.filter
    ]


def _plain(response: Any) -> Any:
    """A text as it is; of a log-probability with its greedy mark only the number."""
    return response if isinstance(response, str) else float(response[0])


def _score(value: Any) -> float | None:
    """Rounding may leave the scale."""
    score = float(value)
    return min(1.0, max(0.0, score)) if math.isfinite(score) else None


def scores_of_benchmarks(measured: MeasuredModels) -> list[Score]:
    """The mean scores with their intervals, and the gains over the baseline, which compare example by example."""
    names = list(dict.fromkeys(name for of_model in measured.values() for name in of_model))
    found: list[Score] = []
    for name in names:
        rows = {model: of_model[name].rows for model, of_model in measured.items()}
        grades = {model: {name: [_grade(row) for row in of_model]} for model, of_model in rows.items()}
        examples = Examples([row.example + 1 for row in next(iter(rows.values()))])
        found += scores_of(grades, {name: RIGHT}, examples, Counting())
    return found


def truncations(measured: MeasuredModels) -> list[str]:
    """Warnings about prompts that models got only in part, and outputs that they did not end."""
    found = [(model, name, one) for model, of_model in measured.items() for name, one in of_model.items()]
    return [
        f"PromptsTruncated: {one.truncated} prompts of the benchmark {name!r} are longer than the context of "
        f"{model!r}: their beginning is left out. Set fewShot lower."
        for model, name, one in found
        if one.truncated
    ] + [
        f"OutputsTruncated: {one.cut} of {len(one.rows)} outputs of {model!r} for the benchmark {name!r} are as long "
        "as outputs may be, and their end may be missing: a gain may only mean that outputs became shorter."
        for model, name, one in found
        if one.cut
    ]


def to_lines(measured: MeasuredModels, name: str) -> bytes:
    """JSON Lines with a row for each example of one benchmark: what every model made of it."""
    models = list(measured)
    return b"".join(
        orjson.dumps(
            {
                "example": same[0].example,
                "digest": same[0].digest,
                "prompt": same[0].prompt,
                "target": same[0].target,
                "answers": {model: row.answers for model, row in zip(models, same, strict=True)},
                "scores": {model: row.score for model, row in zip(models, same, strict=True)},
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for same in zip(*(of_model[name].rows for of_model in measured.values()), strict=True)
    )


def _grade(row: Row) -> Grade:
    return Grade.of(Scored(math.nan if row.score is None else row.score), RIGHT)
