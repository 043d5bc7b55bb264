"""The same spec has the same losses at every step, however many processes share the work, and however they do.

43 examples in batches of four: the last batch of an epoch has three, which two processes can't share evenly. The
fourth place must not be filled with an example that counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from datasets import Dataset, Features, List, Value
from torch.utils.data import DataLoader

from finetune_api.finetunejob import Adapter, LoRA, Method, Parallelism, TrainingData, ValidationData
from finetune_api.pod_contracts.outcome import EXIT_SUCCEEDED
from finetune_trainer.methods.method import method_of
from finetune_trainer.methods.shared_batches import BlanksLast, filled
from tests.integration.trainer.distributed.test_gang import exit_codes, nodes
from tests.integration.trainer.runs import Workplace, preference, question, train_here

EXAMPLES = 43
MEASURED = 7
TOLERANCE = 1e-5
"""Relative, for every step. Sums over processes round otherwise than sums over a batch: 2e-6 was the most seen."""

SFT = Method()
LORA = Adapter(lora=LoRA(rank=4, alpha=8, dropout=0.0))  # processes drop different numbers
ON_ONE_NODE = Parallelism(processes_per_node=2)
ON_TWO_NODES = Parallelism(nodes=2)
SHARDED = Parallelism(nodes=2, strategy="FSDP")


@dataclass(frozen=True)
class Case:
    """What is trained, in the words of a spec. With a `max_length` of 8192 or more, in passes of one example each."""

    name: str
    hyperparameters: dict[str, Any]
    method: Method = SFT
    adapter: Adapter = LORA

    def losses(self, workplace: Workplace, directory: Path, parallelism: Parallelism) -> list[tuple[int, str, float]]:
        """Of training and of validation, at each step."""
        line = preference if self.method.type == "DPO" else question
        put = workplace.bucket.put_lines
        data = f"data/scale-{self.method.type}"
        output = f"scale/{self.name}-{parallelism.nodes}x{parallelism.processes_per_node}-{parallelism.strategy}"
        run = workplace.train_run(
            output,
            {"epochs": 2.0, "checkpoint_every_steps": 11, "learning_rate": 2e-3, **self.hyperparameters},
            method=self.method,
            adapter=self.adapter,
            dataset=workplace.dataset(
                training=TrainingData(uri=put(f"{data}.jsonl", [line(n) for n in range(EXAMPLES)])),
                validation=ValidationData(uri=put(f"{data}-valid.jsonl", [line(50 + n) for n in range(MEASURED)])),
            ),
            parallelism=parallelism,
        )
        if parallelism == Parallelism():
            train_here(run, directory)
        else:
            with nodes(run, directory, forks=True) as started:
                assert exit_codes(started, directory) == [EXIT_SUCCEEDED] * parallelism.nodes
        return [
            (int(row["step"]), column, float(row[column]))
            for row in workplace.results(output)
            for column in ("train_loss", "valid_loss")
            if row[column]
        ]


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        (Case("together", {}), ON_ONE_NODE),
        (Case("one by one", {"max_length": 16_384}), ON_TWO_NODES),
        (Case("packed", {"packing": True}, adapter=Adapter(type="Full")), SHARDED),
        (Case("pairs", {"beta": 0.3}, Method(type="DPO")), ON_ONE_NODE),
        (Case("pairs one by one", {"beta": 0.3, "max_length": 8192}, Method(type="DPO")), ON_TWO_NODES),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else f"{value.nodes}x{value.processes_per_node}",
)
def test_losses_do_not_depend_on_how_many_processes_train(
    workplace: Workplace, tmp_path: Path, case: Case, shape: Parallelism
) -> None:
    expected = case.losses(workplace, tmp_path / "alone", Parallelism())
    assert [column for _, column, _ in expected].count("valid_loss") == 2
    found = case.losses(workplace, tmp_path / "together", shape)
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    for (step, column, loss), (_, _, wanted) in zip(found, expected, strict=True):
        assert loss == pytest.approx(wanted, rel=TOLERANCE), f"{column} of step {step}"


@pytest.mark.parametrize("skipped", [0, 2])
@pytest.mark.parametrize("epoch", [0, 1, 5])
@pytest.mark.parametrize(("examples", "processes", "micro_batch_size"), [(43, 2, 2), (3, 4, 1), (17, 4, 3), (8, 2, 2)])
def test_each_step_has_the_examples_that_one_process_would_take(
    examples: int, processes: int, micro_batch_size: int, epoch: int, skipped: int
) -> None:
    """Also where an attempt goes on in the middle of a later epoch."""
    size = processes * micro_batch_size
    blanks = -examples % size

    def order(micro_batch_size: int, processes: int, rank: int, blanks: int) -> list[list[int]]:
        torch.manual_seed(17)
        numbers = DataLoader(range(examples + blanks), batch_size=micro_batch_size, shuffle=True)
        loader = prepare_data_loader(numbers, num_processes=processes, process_index=rank, use_seedable_sampler=True)
        if blanks:
            loader.set_sampler(BlanksLast(examples, blanks))
        if skipped:
            loader = skip_first_batches(loader, skipped)
        loader.set_epoch(epoch)
        return [batch.tolist() for batch in loader]

    alone = order(size, 1, 0, 0)
    shares = [order(micro_batch_size, processes, rank, blanks) for rank in range(processes)]
    together = [
        [number for share in step for number in share if number < examples] for step in zip(*shares, strict=True)
    ]
    assert together == alone


NUMBERS = List(Value("int32"))


@pytest.mark.parametrize(
    ("features", "row", "blank"),
    [
        (
            {"input_ids": NUMBERS, "labels": NUMBERS},
            {"input_ids": [5, 6], "labels": [-100, 6]},
            {"input_ids": [5, 6], "labels": [-100, -100]},
        ),
        (
            {"prompt_ids": NUMBERS, "chosen_ids": NUMBERS, "rejected_ids": NUMBERS},
            {"prompt_ids": [5], "chosen_ids": [6], "rejected_ids": [7]},
            {"prompt_ids": [5], "chosen_ids": [], "rejected_ids": []},
        ),
        (
            {"text": Value("string"), "turns": List(NUMBERS), "images": List(Value("string"))},
            {"text": "<image>a cat", "turns": [[7, 12]], "images": ["cat.png"]},
            {"text": "<image>a cat", "turns": [], "images": ["cat.png"]},
        ),
    ],
    ids=["text", "pairs", "images"],
)
def test_nothing_is_learned_from_what_fills_a_batch_up(
    features: dict[str, Any], row: dict[str, Any], blank: dict[str, Any]
) -> None:
    method = method_of(Method(type="DPO")) if "chosen_ids" in row else method_of(SFT)
    dataset = Dataset.from_list([row] * 5, features=Features(features))
    assert filled(dataset, 4, method.without_loss).to_list() == [row] * 5 + [blank] * 3
    assert filled(dataset, 5, method.without_loss) is dataset
