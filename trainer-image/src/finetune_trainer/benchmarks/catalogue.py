"""The tasks of lm-eval that an Evaluation may use: which of their metrics is the score, and which dataset they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from finetune_api.evaluation.benchmarks import BenchmarkTask

EXECUTES_CODE = ("cruxeval", "humaneval", "humaneval_infilling", "longproc", "mbpp")
"""Families of tasks that run what the model writes."""
WITH_PUNKT = ("ifeval",)
"""Tasks that count sentences by nltk's model of them."""
BY_SUBJECT = ("mmlu",)
"""Tasks whose questions have a subject each, with solved examples of its own."""


@dataclass(frozen=True)
class Scored:
    """How a task is scored."""

    file: str
    """lm-eval's definition of the task, below its folder of tasks."""
    metric: str
    """The metric of an example that is its score, 0 to 1."""
    filter: str = "none"
    """How lm-eval reads an answer out of the output."""
    changes: Mapping[str, str] = field(default_factory=dict)
    """To the definition, where one task here is many of lm-eval's, which differ in this."""


CATALOGUE: dict[BenchmarkTask, Scored] = {
    "arc_challenge": Scored("arc/arc_challenge.yaml", "acc_norm"),
    "arc_easy": Scored("arc/arc_easy.yaml", "acc_norm"),
    "boolq": Scored("super_glue/boolq/default.yaml", "acc"),
    "gsm8k": Scored("gsm8k/gsm8k.yaml", "exact_match", "flexible-extract"),
    "hellaswag": Scored("hellaswag/hellaswag.yaml", "acc_norm"),
    "ifeval": Scored("ifeval/ifeval.yaml", "prompt_level_strict_acc"),
    "lambada_openai": Scored("lambada/lambada_openai.yaml", "acc"),
    "mmlu": Scored(
        "mmlu/default/_default_template_yaml",
        "acc",
        changes={
            "dataset_name": "all",
            "description": "The following are multiple choice questions (with answers) about "
            "{{subject.replace('_', ' ')}}.\n\n",
        },
    ),
    "openbookqa": Scored("openbookqa/openbookqa.yaml", "acc_norm"),
    "piqa": Scored("piqa/piqa.yaml", "acc_norm"),
    "truthfulqa_mc1": Scored("truthfulqa/truthfulqa_mc1.yaml", "acc"),
    "truthfulqa_mc2": Scored("truthfulqa/truthfulqa_mc2.yaml", "acc"),
    "winogrande": Scored("winogrande/default.yaml", "acc"),
}


@dataclass(frozen=True)
class PublishedDataset:
    """What a task reads: a configuration of a dataset on the hub, and its splits."""

    repository: str
    config: str | None
    splits: tuple[str, ...]


def definition_file(task: BenchmarkTask) -> Path:
    """The file with lm-eval's definition."""
    return Path(str(files("lm_eval"))) / "tasks" / CATALOGUE[task].file


@cache
def published_dataset(task: BenchmarkTask) -> PublishedDataset:
    """The dataset that the definition names."""
    from lm_eval.tasks._yaml_loader import load_yaml

    definition: dict[str, Any] = load_yaml(definition_file(task), resolve_func=False)
    definition.update(CATALOGUE[task].changes)
    splits = (definition.get(f"{use}_split") for use in ("training", "validation", "test", "fewshot"))
    return PublishedDataset(
        repository=definition["dataset_path"],
        config=definition.get("dataset_name"),
        splits=tuple(dict.fromkeys(split for split in splits if split)),
    )
