"""lm-eval's tasks upon datasets on the local disk."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from finetune_api.conditions import Reason
from finetune_api.evaluation.benchmarks import BenchmarkTask
from finetune_trainer.benchmarks.catalogue import BY_SUBJECT, CATALOGUE, definition_file
from finetune_trainer.benchmarks.mirror import LocalDataset
from finetune_trainer.benchmarks.punkt import use_punkt
from finetune_trainer.process.failures import DiagnosedError, first_line, sentence


def load_task(task: BenchmarkTask, data: LocalDataset, scratch: Path) -> Any:
    """lm-eval's task, which reads these files instead of the hub. It tries the first example.

    The definition is lm-eval's own; nothing of the mirror is used but rows. Raises DiagnosedError (BenchmarkInvalid).
    """
    import datasets
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    from finetune_trainer.benchmarks.instructions import check_instructions
    from finetune_trainer.benchmarks.subjects import SubjectsTask

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = scratch / f"task-{task}"
    folder.mkdir(parents=True)
    definition = {
        "include": str(definition_file(task)),
        **CATALOGUE[task].changes,
        "task": task,
        "dataset_path": data.reader,
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: [str(file) for file in files] for split, files in data.splits.items()},
            "cache_dir": str(folder / "cache"),
        },
    }
    file = folder / f"{task}.yaml"
    file.write_text(yaml.safe_dump(definition), encoding="utf-8")
    datasets.disable_progress_bars()
    if data.nltk_data is not None:
        use_punkt(data.nltk_data)
    try:
        if task in BY_SUBJECT:
            return SubjectsTask(load_yaml(file))
        loaded = TaskManager(include_path=str(folder), include_defaults=False).load([task])["tasks"][task]
        if task == "ifeval":
            check_instructions(loaded)
        return loaded
    except Exception as error:  # whatever a library raises on rows that are not the task's
        raise DiagnosedError(
            Reason.BENCHMARK_INVALID,
            f"The rows of the benchmark {task} are not what lm-eval reads: {type(error).__name__}: "
            f"{sentence(first_line(error))}",
        ) from error


def count_examples(task: Any, limit: int | None) -> int:
    """How many examples are used."""
    there = len(task.eval_docs)
    return there if limit is None else min(limit, there)


def most_shots(task: Any) -> int:
    """How many solved examples there are for a prompt."""
    of_subject: int | None = getattr(task, "most_shots", None)
    return len(list(task.fewshot_docs() or [])) if of_subject is None else of_subject
