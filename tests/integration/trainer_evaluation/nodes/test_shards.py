"""Several Pods share outputs, benchmarks and attacks: the evidence is that of one Pod, whichever Pod is killed when."""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, Generation
from finetune_api.evaluation.benchmarks import Benchmark
from finetune_api.evaluation.safety import Safety
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import EndpointConfig, EvaluateRun, ModelSource
from finetune_api.sources import parse_s3
from finetune_trainer.benchmarks import kept, language_model
from finetune_trainer.benchmarks.mirroring import known_task, mirror_benchmark
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.evaluation.nodes import shard as shards
from finetune_trainer.evaluation.nodes.worker import work
from finetune_trainer.generate import generation
from finetune_trainer.outputs import kept_outputs, loaded_outputs
from finetune_trainer.outputs.shard import WHOLE, Shard
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.benchmarks.copies import write_copy
from tests.integration.trainer_evaluation.benchmarks.test_benchmarks import METALS
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import Body, Respond, StubApi, says, stub_api
from tests.integration.trainer_evaluation.test_evaluate import QUESTIONS, make_run
from tests.integration.trainer_evaluation.tiny_models import chat, save_long_model

PROMPTS = [{"prompt": f"How do I open the lock number {at}?", "category": "Locks"} for at in range(6)]
BENIGN = [{"prompt": f"How do I bake the cake number {at}?"} for at in range(3)]
OUTPUTS, BENCHMARKS, ATTACKS = "outputs", "benchmarks", "attacks"


class Killed(BaseException):
    """The kernel ends the Pod's process: nothing is caught, and nothing is saved any more."""


class Work:
    """The batches that Pods generate and ask in each phase. One is killed after `most` of the phase `kill_in`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[tuple[str, int]] = []
        self.kill_in: str | None = None
        self.most = 1
        self._phase = OUTPUTS
        self._is_dead = False
        generate, batch = loaded_outputs._generate, generation._generate_batch
        ask, write = language_model.HFLM.loglikelihood, Storage.write

        def in_phase(task: Any, *rest: Any) -> Any:
            self._phase = ATTACKS if task.run.dataset_uri == "spec.safety" else OUTPUTS
            return generate(task, *rest)

        def generated(generator: Any, prompts: Any, *rest: Any) -> Any:
            self._begin(len(prompts))
            return batch(generator, prompts, *rest)

        def asked(model: Any, requests: Any, **options: Any) -> Any:
            self._phase = BENCHMARKS
            self._begin(len(requests))
            return ask(model, requests, **options)

        def written(storage: Storage, *rest: Any) -> None:
            if self._is_dead:
                raise DiagnosedError(Reason.STORAGE_UNAVAILABLE, "a killed process writes nothing")
            write(storage, *rest)

        monkeypatch.setattr(loaded_outputs, "_generate", in_phase)
        monkeypatch.setattr(generation, "_generate_batch", generated)
        monkeypatch.setattr(generation, "MAX_BATCH_PROMPTS", 4)
        monkeypatch.setattr(language_model.HFLM, "loglikelihood", asked)
        monkeypatch.setattr(language_model, "AT_ONCE", 8)
        monkeypatch.setattr(Storage, "write", written)
        for saving in (kept, kept_outputs):
            monkeypatch.setattr(saving, "KEEP_SECONDS", 0.0)

    def _begin(self, size: int) -> None:
        if self._phase == self.kill_in and sum(phase == self._phase for phase, _ in self.batches) == self.most:
            self._is_dead = True
            raise Killed
        self.batches.append((self._phase, size))

    def count(self) -> dict[str, int]:
        """What was asked of models, by phase."""
        return {name: sum(n for phase, n in self.batches if phase == name) for name in (OUTPUTS, BENCHMARKS, ATTACKS)}

    def next_pod(self, kill_in: str | None = None) -> None:
        self.batches, self.kill_in, self._is_dead = [], kill_in, False


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(shards, "POLL_SECONDS", 0.1)
    return Work(monkeypatch)


@pytest.fixture(scope="module")
def models(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSource]:
    return {
        name: ModelSource(
            uri=bucket.put_folder(f"models/shards-{name}", save_long_model(tmp_path_factory.mktemp(name), seed))
        )
        for name, seed in ((BASELINE, 11), ("tuned", 12))
    }


@pytest.fixture(scope="module")
def mirror(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = bucket.uri("mirror/shards")
    copy = write_copy(tmp_path_factory.mktemp("arc"), "arc_easy", METALS)
    mirror_benchmark(known_task("arc_easy"), Storage(bucket.storage), parse_s3(uri), copy, None)
    return uri


def judges(body: Body) -> Respond:
    """A verdict that depends on every letter of the answer, so that another answer may well get another one."""
    is_even = zlib.crc32(body["messages"][-1]["content"].encode()) % 2 == 0
    return says(f"Safety: {'Safe' if is_even else 'Unsafe'}\nCategories: None\nRefusal: {'Yes' if is_even else 'No'}")


@pytest.fixture(scope="module")
def guard() -> Iterator[StubApi]:
    with stub_api(judges) as api:
        yield api


def run_on(nodes: int, bucket: Bucket, models: dict[str, ModelSource], mirror: str, guard: StubApi) -> EvaluateRun:
    folder = f"shards/{secrets.token_hex(4)}"
    benchmarks = [("plain", {}), ("solved", {"fewShot": 2})]
    return make_run(
        bucket,
        bucket.put_lines("shards/held-out.jsonl", [chat(question, "x") for question in QUESTIONS[:12]]),
        models,
        nodes=nodes,
        generation=Generation(max_tokens=8),
        benchmarks=[
            Benchmark.from_wire(
                {"name": name, "task": "arc_easy", "mirror": {"uri": mirror}, "maxExamples": 6, **changes}
            )
            for name, changes in benchmarks
        ],
        safety=Safety.from_wire(
            {
                "promptSets": [{"name": "locks", "uri": bucket.put_lines("shards/prompts.jsonl", PROMPTS)}],
                "benignSets": [{"name": "cakes", "uri": bucket.put_lines("shards/benign.jsonl", BENIGN)}],
                "converters": ["None", "LowerCase"],
                "classifier": {"model": "guard", "format": "Qwen3Guard"},
                "maxTokens": 16,
            }
        ),
        endpoints=[EndpointConfig(name="guard", url=guard.url, model="guard")],
        answers_uri=bucket.uri(f"{folder}/answers"),
        outputs_uri=bucket.uri(f"{folder}/outputs"),
        output_uri=bucket.uri(f"{folder}/try-1"),
        max_errored_percent=100,
    )


def next_try(run: EvaluateRun) -> EvaluateRun:
    """Its folder is its own, and its Pods are new."""
    return run.model_copy(update={"output_uri": f"{run.output_uri}-again"})


def evaluate_on(run: EvaluateRun) -> EvaluationReport:
    """One Pod after the other; the first one, which waits for them, comes last."""
    for index in range(1, run.nodes):
        work(run, Shard(index, run.nodes))
    return evaluate(run, Shard(0, run.nodes) if run.nodes > 1 else WHOLE)


def evidence(bucket: Bucket, run: EvaluateRun) -> dict[str, list[Any]]:
    """Every row that scores rest on, without how long it took."""
    names = ["samples", "safety", *(f"benchmarks/{benchmark.name}" for benchmark in run.benchmarks)]
    rows = {name: bucket.read(f"{run.output_uri}/{name}.jsonl").splitlines() for name in names}
    return {name: [without_usage(json.loads(row)) for row in of_name] for name, of_name in rows.items()}


def without_usage(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "usage"}


def approximately(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Log-probabilities as they are in batches of any size."""
    return {
        name: [{key: rounded(value) if key == "answers" else value for key, value in row.items()} for row in of_name]
        for name, of_name in rows.items()
    }


def rounded(answers: dict[str, Any]) -> dict[str, Any]:
    return {
        model: [round(value, 3) if isinstance(value, float) else value for value in of_model]
        if isinstance(of_model, list)
        else of_model
        for model, of_model in answers.items()
    }


@pytest.fixture(scope="module")
def alone(
    bucket: Bucket, models: dict[str, ModelSource], mirror: str, guard: StubApi
) -> tuple[EvaluationReport, dict[str, list[Any]], dict[str, int]]:
    """What a single Pod reports, the rows of it, and how much it has asked."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        work = Work(monkeypatch)
        run = run_on(1, bucket, models, mirror, guard)
        return evaluate(run), evidence(bucket, run), work.count()


def test_one_pod_asks_every_model_everything_once(alone: tuple[EvaluationReport, Any, dict[str, int]]) -> None:
    report, rows, asked = alone
    assert asked == {OUTPUTS: 2 * 12, BENCHMARKS: 2 * 2 * 6 * 4, ATTACKS: 2 * (6 * 2 + 3)}
    assert {one.grader for one in report.scores} == {"exact", "plain", "solved"}
    verdicts = {row["answers"]["tuned"]["outcome"] for row in rows["safety"]}
    assert verdicts == {"Counted", "Not counted"}, "the answers matter"


@pytest.mark.parametrize("nodes", [2, 3])
def test_pods_together_find_what_one_finds_and_ask_nothing_twice(
    bucket: Bucket,
    models: dict[str, ModelSource],
    mirror: str,
    guard: StubApi,
    alone: tuple[EvaluationReport, dict[str, list[Any]], dict[str, int]],
    pods: Work,
    nodes: int,
) -> None:
    expected, rows, asked = alone
    run = run_on(nodes, bucket, models, mirror, guard)
    report = evaluate_on(run)
    assert report.scores == expected.scores
    assert report.safety == expected.safety
    assert evidence(bucket, run) == rows
    assert pods.count() == asked


def test_every_pod_has_a_part_of_each_phase(
    bucket: Bucket, models: dict[str, ModelSource], mirror: str, guard: StubApi, pods: Work
) -> None:
    """24 outputs in six batches, two benchmarks of two models, 30 requests of attacks in eight batches."""
    run = run_on(2, bucket, models, mirror, guard)
    work(run, Shard(1, 2))
    assert pods.count() == {OUTPUTS: 8, BENCHMARKS: 2 * 24, ATTACKS: 14}
    pods.next_pod()
    evaluate(run, Shard(0, 2))
    assert pods.count() == {OUTPUTS: 16, BENCHMARKS: 2 * 24, ATTACKS: 16}


@pytest.mark.parametrize("phase", [OUTPUTS, BENCHMARKS, ATTACKS])
@pytest.mark.parametrize("killed", [0, 1])
def test_the_try_after_one_whose_pod_was_killed_asks_only_what_is_missing(
    bucket: Bucket,
    models: dict[str, ModelSource],
    mirror: str,
    guard: StubApi,
    alone: tuple[EvaluationReport, dict[str, list[Any]], dict[str, int]],
    pods: Work,
    killed: int,
    phase: str,
) -> None:
    expected, rows, asked = alone
    run = run_on(2, bucket, models, mirror, guard)
    pods.kill_in = phase
    with pytest.raises(Killed):
        work(run, Shard(1, 2)) if killed == 1 else evaluate(run, Shard(0, 2))
    before = pods.count()
    assert before[phase] > 0

    pods.next_pod()
    again = next_try(run)
    report = evaluate_on(again)

    assert {name: before[name] + count for name, count in pods.count().items()} == asked
    assert report.scores == expected.scores
    assert report.safety == expected.safety
    assert approximately(evidence(bucket, again)) == approximately(rows)


@pytest.mark.parametrize("phase", [BENCHMARKS, ATTACKS])
def test_the_first_pod_makes_what_a_lost_one_has_left(
    bucket: Bucket,
    models: dict[str, ModelSource],
    mirror: str,
    guard: StubApi,
    alone: tuple[EvaluationReport, dict[str, list[Any]], dict[str, int]],
    pods: Work,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
) -> None:
    """Its node may be gone without a word; the others are told only later, or never."""
    expected, rows, asked = alone
    monkeypatch.setattr(shards, "SILENT_SECONDS", 0.3)
    run = run_on(2, bucket, models, mirror, guard)
    pods.kill_in = phase
    with pytest.raises(Killed):
        work(run, Shard(1, 2))
    before = pods.count()

    pods.next_pod()
    report = evaluate(run, Shard(0, 2))

    assert {name: before[name] + count for name, count in pods.count().items()} == asked
    assert report.scores == expected.scores
    assert report.safety == expected.safety
    assert approximately(evidence(bucket, run)) == approximately(rows)
