"""Several Pods evaluate together: the result is that of one, and no Pod is waited for without end."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.machine.children import with_parent
from finetune_api.evaluation import BASELINE, Generation
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import EvaluateRun, ModelSource, NamedModel
from finetune_trainer.distributed.ranks import NODE_RANK
from finetune_trainer.evaluation.evaluate import evaluate, evaluate_in_pod
from finetune_trainer.evaluation.nodes import shard as shards
from finetune_trainer.evaluation.nodes.worker import work
from finetune_trainer.generate import generation
from finetune_trainer.outputs.shard import Shard
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.test_evaluate import QUESTIONS
from tests.integration.trainer_evaluation.test_kept_outputs import run_of
from tests.integration.trainer_evaluation.tiny_models import chat


@pytest.fixture(scope="session")
def uris(bucket: Bucket, base: Path, tuned: Path) -> list[str]:
    return [bucket.put_folder("models/nodes-base", base), bucket.put_folder("models/nodes-tuned", tuned)]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Five batches of four for each model; returns the sizes of those that are generated."""
    sizes: list[int] = []
    generate = generation._generate_batch

    def counted(generator: Any, prompts: Any, *rest: Any) -> list[list[int]]:
        sizes.append(len(prompts))
        return generate(generator, prompts, *rest)

    monkeypatch.setattr(generation, "_generate_batch", counted)
    monkeypatch.setattr(generation, "MAX_BATCH_PROMPTS", 4)
    monkeypatch.setattr(shards, "POLL_SECONDS", 0.1)
    return sizes


def run_on(nodes: int, bucket: Bucket, uris: list[str], **changes: Any) -> EvaluateRun:
    run = run_of(bucket, uris[1], f"runs/nodes-{secrets.token_hex(4)}", 1, **changes)
    models = [
        NamedModel(name=name, model=ModelSource(uri=uri)) for name, uri in zip((BASELINE, "tuned"), uris, strict=True)
    ]
    return run.model_copy(update={"models": models, "nodes": nodes})


def rows(bucket: Bucket, run: EvaluateRun) -> list[Any]:
    """Without how long each took."""
    lines = bucket.read(f"{run.output_uri}/samples.jsonl").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "usage"} for line in lines]


def test_three_pods_find_what_one_finds(bucket: Bucket, uris: list[str], small_batches: list[int]) -> None:
    alone = run_on(1, bucket, uris)
    expected = evaluate(alone)
    assert small_batches == [4] * 10

    small_batches.clear()
    together = run_on(3, bucket, uris)
    for index in (1, 2):
        work(together, Shard(index, 3))
    found = evaluate(together, Shard(0, 3))
    assert small_batches == [4] * 10, "each batch is made once, and as a Pod makes it that is alone"
    assert found.scores == expected.scores
    assert rows(bucket, together) == rows(bucket, alone)
    assert [(one.count, one.measurements) for one in found.outputs] == [(20, 5)] * 2, "each batch has its own number"


def test_two_processes_at_once_find_what_one_finds(bucket: Bucket, uris: list[str], tmp_path: Path) -> None:
    """The command of the Pods, with the index that their Indexed Job gives them; the first one waits for the other."""
    lines = [chat(f"Question {at}: {QUESTIONS[at % len(QUESTIONS)]}", "x") for at in range(150)]
    dataset = {"dataset_uri": bucket.put_lines("data/nodes.jsonl", lines)}
    alone, together = (run_on(nodes, bucket, uris).model_copy(update=dataset) for nodes in (1, 2))
    evaluate(alone)
    file = tmp_path / "run.json"
    file.write_text(together.model_dump_json(by_alias=True))
    pods = [
        subprocess.Popen(
            with_parent([sys.executable, "-m", "finetune_trainer", "evaluate", str(file)]),
            env={**os.environ, NODE_RANK: str(index), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for index in range(2)
    ]
    assert [pod.wait(240) for pod in pods] == [0, 0]
    assert rows(bucket, together) == rows(bucket, alone)
    assert {json.loads(bucket.read(f"{together.output_uri}/report.json"))["scores"][0]["examples"]} == {150}


def test_a_pod_of_the_next_try_goes_on_where_the_one_before_it_was(
    bucket: Bucket, uris: list[str], small_batches: list[int]
) -> None:
    run = run_on(2, bucket, uris)
    work(run, Shard(1, 2))
    assert small_batches == [4] * 4, "the second and fourth batch of each model"
    work(run.model_copy(update={"output_uri": f"{run.output_uri}-again"}), Shard(1, 2))
    assert small_batches == [4] * 4
    evaluate(run, Shard(0, 2))
    assert small_batches == [4] * 10


def test_a_pod_that_never_starts_is_not_waited_for_without_end(
    bucket: Bucket, uris: list[str], small_batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be no node for it. The first Pod does the work of all."""
    monkeypatch.setattr(shards, "SILENT_SECONDS", 0.3)
    alone, together = run_on(1, bucket, uris), run_on(2, bucket, uris)
    expected = evaluate(alone)
    assert evaluate(together, Shard(0, 2)).scores == expected.scores
    assert rows(bucket, together) == rows(bucket, alone)


def test_samples_of_an_example_differ_between_pods(bucket: Bucket, uris: list[str], small_batches: list[int]) -> None:
    """With one seed, the first batches of two Pods would draw the same numbers."""
    sampled = Generation(max_tokens=8, temperature=1.0, samples_per_example=8, seed=5)
    run = run_on(2, bucket, uris, generation=sampled, limit_examples=1)
    work(run, Shard(1, 2))
    evaluate(run, Shard(0, 2))
    said = [row["outputs"]["tuned"] for row in rows(bucket, run)]
    assert small_batches == [4] * 4
    assert said[:4] != said[4:]


def test_only_the_first_pod_reports(
    bucket: Bucket, uris: list[str], small_batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its index from the Indexed Job."""
    run, said = run_on(2, bucket, uris), []
    for index in ("1", "0"):
        monkeypatch.setenv(NODE_RANK, index)
        said.append(evaluate_in_pod(run))
    assert said[0] is None
    assert isinstance(said[1], EvaluationReport)
