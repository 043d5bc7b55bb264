"""Copies of the benchmarks' datasets with two rows in each split, in the layout of the datasets' own repositories.

Nothing of the datasets themselves: the rows are made up, and have the fields of the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import yaml

from finetune_api.evaluation.benchmarks import BenchmarkTask
from finetune_trainer.benchmarks.catalogue import WITH_PUNKT
from finetune_trainer.benchmarks.punkt import FILES, FOLDER

Row = dict[str, Any]


@dataclass(frozen=True)
class Copied:
    """A dataset's repository: its configuration, and the rows of each split."""

    config: str
    splits: Mapping[str, Sequence[Row]]
    file: str = "{config}/{split}-00000-of-00001.parquet"


def _choices(question: str, texts: Sequence[str], answer: str, field: str = "question") -> Row:
    choices = {"text": list(texts), "label": list("ABCD")[: len(texts)]}
    return {"id": question, field: question, "choices": choices, "answerKey": answer}


_ARC = [
    _choices("Which is a metal?", ["iron", "wood", "wool", "water"], "A"),
    _choices("What falls?", ["light", "a stone"], "B"),
]
_OPEN_BOOK = [
    _choices("A stove is", ["hot", "blue", "wet", "far"], "A", "question_stem"),
    _choices("Rain is", ["dry", "wet", "old", "loud"], "B", "question_stem"),
]
_GSM8K = [
    {"question": "Ann has 2 pens and buys 3. How many has she?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
    {"question": "Bob eats 1 of 4 pears. How many are left?", "answer": "4 - 1 = <<4-1=3>>3\n#### 3"},
]
_BOOLQ = [
    {"question": "is snow cold", "passage": "Snow is frozen water.", "idx": 0, "label": 1},
    {"question": "is fire cold", "passage": "Fire gives heat.", "idx": 1, "label": 0},
]
_HELLASWAG = [
    {
        "ind": at,
        "activity_label": "Baking",
        "ctx_a": "A man takes flour.",
        "ctx_b": "he",
        "ctx": "A man takes flour. he",
        "endings": ["makes dough.", "flies away.", "sings [loudly].", "sleeps."],
        "source_id": f"wikihow~{at}",
        "split": "val",
        "split_type": "indomain",
        "label": str(at),
    }
    for at in range(2)
]
_PIQA = [
    {"goal": "Open a door", "sol1": "Push it.", "sol2": "Eat it.", "label": 0},
    {"goal": "Boil water", "sol1": "Freeze it.", "sol2": "Heat it.", "label": 1},
]
_TRUTHFUL = [
    {
        "question": f"Is {what} true?",
        "mc1_targets": {"choices": ["Yes.", "No."], "labels": [1, 0]},
        "mc2_targets": {"choices": ["Yes.", "It is.", "No."], "labels": [1, 1, 0]},
    }
    for what in ("this", "that")
]
_WINOGRANDE = [
    {"sentence": "The cup fell off the shelf because _ was wet.", "option1": "it", "option2": "he", "answer": "1"},
    {"sentence": "Ann thanked Bea since _ had helped.", "option1": "Ann", "option2": "Bea", "answer": "2"},
]
_LAMBADA = [{"text": "He looked for the key and found the key"}, {"text": "It rained, and she took her coat"}]
_MMLU = [
    {
        "question": "Which bone is in the leg? ",
        "subject": "anatomy",
        "choices": ["femur", "rib", "ulna", "jaw"],
        "answer": 0,
    },
    {"question": "Who wrote it?", "subject": "us_history", "choices": ["He", "She", "They", "We"], "answer": 2},
]
_IFEVAL = [
    {
        "key": 1,
        "prompt": "Write about rain, in less than 500 words.",
        "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"relation": "less than", "num_words": 500}],
    },
    {
        "key": 2,
        "prompt": "List metals as JSON.",
        "instruction_id_list": ["detectable_format:json_format"],
        "kwargs": [{"relation": None, "num_words": None}],
    },
]
"""The first one is what any short output follows, the second one what a model with random weights never does."""
_ALL = ("train", "validation", "test")

COPIES: dict[BenchmarkTask, Copied] = {
    "arc_challenge": Copied("ARC-Challenge", dict.fromkeys(_ALL, _ARC)),
    "arc_easy": Copied("ARC-Easy", dict.fromkeys(_ALL, _ARC)),
    "boolq": Copied("boolq", dict.fromkeys(_ALL, _BOOLQ)),
    "gsm8k": Copied("main", dict.fromkeys(("train", "test"), _GSM8K)),
    "hellaswag": Copied("default", dict.fromkeys(_ALL, _HELLASWAG), "data/{split}-00000-of-00001.parquet"),
    "ifeval": Copied("default", {"train": _IFEVAL}, "ifeval_input_data.jsonl"),
    "lambada_openai": Copied("default", {"test": _LAMBADA}, "data/lambada_{split}.jsonl"),
    "mmlu": Copied("all", dict.fromkeys(("test", "dev"), _MMLU)),
    "openbookqa": Copied("main", dict.fromkeys(_ALL, _OPEN_BOOK)),
    "piqa": Copied("default", dict.fromkeys(_ALL, _PIQA), "data/{split}-00000-of-00001.parquet"),
    "truthfulqa_mc1": Copied("multiple_choice", {"validation": _TRUTHFUL}),
    "truthfulqa_mc2": Copied("multiple_choice", {"validation": _TRUTHFUL}),
    "winogrande": Copied("winogrande_xl", dict.fromkeys(_ALL, _WINOGRANDE)),
}


def write_punkt(nltk_data: Path) -> None:
    """nltk's model of sentences, in the form of the real one: it knows that Dr. ends none."""
    folder = nltk_data / FOLDER
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("dr\n" if name == "abbrev_types.txt" else "", encoding="utf-8")


def write_copy(folder: Path, task: BenchmarkTask, rows: Sequence[Row] | None = None) -> Path:
    """The copy of a task's dataset. `rows`: those of every split, instead of the two."""
    copied = COPIES[task]
    names = {split: copied.file.format(config=copied.config, split=split) for split in copied.splits}
    for split, name in names.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_list(list(rows or copied.splits[split]))
        if file.suffix == ".parquet":
            table.to_parquet(file)
        else:
            table.to_json(file)
    card = {
        "configs": [
            {
                "config_name": copied.config,
                "data_files": [{"split": split, "path": name} for split, name in names.items()],
            }
        ]
    }
    if task in WITH_PUNKT:
        write_punkt(folder / "nltk_data")
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# What this is\n", encoding="utf-8")
    return folder
