"""Preflight stores the tokens of the chosen examples, and training takes them as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import SFT, Dataset, Method, TrainingData, ValidationData
from finetune_api.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.data.select.dataset_record import DatasetRecord, find_record, store_record
from finetune_trainer.model.loading import load_tokenizer
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train.training_data import SequenceSets, load_sequences, write_sequences
from tests.integration.trainer.runs import Workplace, preference, question


def sets(run: TrainRun, base: Path, directory: Path) -> SequenceSets:
    """Those that it trains on, and those that it evaluates on."""
    write_sequences(run, Storage(run.storage), load_tokenizer(base), directory)
    return load_sequences(directory)


def chosen_of(storage: Storage, workplace: Workplace, output: str) -> DatasetRecord:
    record = find_record(storage, parse_s3(workplace.bucket.uri(output)))
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (Method(), question),
        (Method(sft=SFT(prompt_loss_weight=0.5)), question),
        (Method(type="DPO"), preference),
        (Method(), lambda number: {"prompt": f"{number} + 1 =", "completion": f" {number + 1}"}),
    ],
    ids=["SFT", "with loss on the prompt", "DPO", "completions"],
)
def test_the_stored_tokens_are_those_that_training_would_make(
    workplace: Workplace, storage: Storage, base: Path, tmp_path: Path, method: Method, line: Any
) -> None:
    lines = [line(number) for number in range(40)]
    dataset = Dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("tokens/train.jsonl", lines)),
        validation=ValidationData(split_percent=20),
    )
    run = workplace.train_run("tokens", dataset=dataset, method=method)
    preflight(workplace.preflight_run("tokens", dataset=dataset, method=method), tmp_path / "preflight")
    stored = sets(run, base, tmp_path / "stored")
    forget_tokens(storage, workplace, "tokens")
    made = sets(run, base, tmp_path / "made")
    assert made.validation is not None
    assert stored.training.features == made.training.features
    assert len(stored.training) == 32
    assert stored.training.to_dict() == made.training.to_dict()
    assert stored.validation.to_dict() == made.validation.to_dict()


def forget_tokens(storage: Storage, workplace: Workplace, output: str) -> None:
    """As if preflight had stored none: training tokenizes then."""
    record = chosen_of(storage, workplace, output)
    sets = {
        name: found.model_copy(update={"tokens": None})
        for name, found in {"training": record.training, "validation": record.validation}.items()
        if found is not None
    }
    store_record(storage, parse_s3(workplace.bucket.uri(output)), record.model_copy(update=sets), {})


def test_stored_tokens_that_changed_are_not_trained_on(
    workplace: Workplace, storage: Storage, base: Path, tmp_path: Path
) -> None:
    dataset = Dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("spoiled/train.jsonl", [question(n) for n in range(12)]))
    )
    preflight(workplace.preflight_run("spoiled", dataset=dataset), tmp_path / "preflight")
    tokens = f"spoiled/tokens/{chosen_of(storage, workplace, 'spoiled').training.tokens}.arrow"
    workplace.bucket.put(tokens, b"other tokens")
    with pytest.raises(DiagnosedError, match="is not as preflight wrote it") as refused:
        sets(workplace.train_run("spoiled", dataset=dataset), base, tmp_path / "data")
    assert refused.value.failure.reason is Reason.DATASET_INVALID
