"""mmlu, which is one task here and 57 of lm-eval's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import parse_s3
from finetune_trainer.benchmarks.catalogue import definition_file
from finetune_trainer.benchmarks.lm_eval_tasks import load_task
from finetune_trainer.benchmarks.mirror import LocalDataset
from finetune_trainer.benchmarks.mirroring import mirror_benchmark
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.benchmarks.copies import write_copy
from tests.integration.trainer_evaluation.benchmarks.test_benchmarks import TUNED, benchmark, lines_of, run_of
from tests.integration.trainer_evaluation.buckets import Bucket


def row(subject: str, at: int) -> dict[str, Any]:
    choices = ["one", "two", "three", "four"]
    return {"question": f" {subject} {at}? ", "subject": subject, "choices": choices, "answer": at % 4}


SUBJECTS = ("anatomy", "high_school_us_history", "virology")
ROWS = [row(subject, at) for subject in SUBJECTS for at in range(4)]


def parquet(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    file = folder / f"{name}.parquet"
    datasets.Dataset.from_list(rows).to_parquet(file)
    return file


def lm_evals_own(subject: str, folder: Path) -> Any:
    """lm-eval's task for one subject, as it comes with the package."""
    from lm_eval.tasks import TaskManager

    rows = parquet(folder, subject, [one for one in ROWS if one["subject"] == subject])
    name = f"mmlu_{subject}"
    definition = {
        "include": str(definition_file("mmlu").parent / f"{name}.yaml"),
        "task": name,
        "tag": "none",
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": [str(rows)], "dev": [str(rows)]}, "cache_dir": str(folder / "cache")},
    }
    own = folder / "own"
    own.mkdir(exist_ok=True)
    (own / f"{name}.yaml").write_text(yaml.safe_dump(definition))
    return TaskManager(include_path=str(own), include_defaults=False).load([name])["tasks"][name]


@pytest.mark.parametrize("shots", [0, 3])
def test_each_question_is_put_as_lm_eval_puts_it_in_the_task_of_its_subject(tmp_path: Path, shots: int) -> None:
    file = parquet(tmp_path, "all", ROWS)
    ours = load_task("mmlu", LocalDataset("parquet", {"test": [file], "dev": [file]}), tmp_path)
    for subject in SUBJECTS:
        own = lm_evals_own(subject, tmp_path)
        for question in own.eval_docs:
            prompt = ours.fewshot_context(question, shots)
            assert prompt == own.fewshot_context(question, shots)
            assert ours.doc_to_choice(question) == own.doc_to_choice(question) == list("ABCD")
    assert "(with answers) about high school us history." in ours.fewshot_context(row("high_school_us_history", 0), 0)


def test_a_limit_takes_a_question_of_each_subject_in_turn(bucket: Bucket, tmp_path: Path, long_base_uri: str) -> None:
    mirror = bucket.uri("mirror/subjects")
    mirror_benchmark("mmlu", Storage(bucket.storage), parse_s3(mirror), write_copy(tmp_path, "mmlu", ROWS), None)
    models = {TUNED: ModelSource(uri=long_base_uri)}
    run = run_of(bucket, [benchmark("mmlu", mirror, maxExamples=4, fewShot=1)], models, "subjects")
    evaluate(run)
    asked = [line["prompt"].rpartition("\n\n")[2].partition("?")[0] for line in lines_of(bucket, run, "mmlu")]
    assert asked == ["anatomy 0", "high_school_us_history 0", "virology 0", "anatomy 1"]

    with pytest.raises(DiagnosedError, match=r"5 solved examples, and the dataset's copy has 4 of some subject"):
        evaluate(run_of(bucket, [benchmark("mmlu", mirror, fewShot=5)], models, "too-many-of-a-subject"))
