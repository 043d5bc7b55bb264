"""Preflight stores the tokens of the chosen examples, and training takes them as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import SFT, Dataset, Method, TrainingData, ValidationData
from finetune_api.pod_contracts.run import ModelSource, TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.data.select.dataset_record import DatasetRecord, find_record
from finetune_trainer.data.select.token_record import TOKENS_NAME, TokenRecord
from finetune_trainer.model.loading import fetch_model, load_processor, load_tokenizer
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train.training_data import SequenceSets, load_sequences, write_sequences
from tests.integration.trainer.runs import Workplace, preference, question
from tests.integration.trainer_evaluation.tiny_models import save_adapter, save_model


def sets(run: TrainRun, base: Path, directory: Path) -> SequenceSets:
    """Those that it trains on, and those that it evaluates on."""
    write_sequences(run, Storage(run.storage), load_tokenizer(base), directory)
    return load_sequences(directory)


def chosen_of(storage: Storage, workplace: Workplace, output: str) -> DatasetRecord:
    found = find_record(storage, parse_s3(workplace.bucket.uri(output)))
    assert found is not None
    return found.record


def forget_tokens(storage: Storage, workplace: Workplace, output: str) -> None:
    """As if an earlier preflight, which stored none, had been there: training tokenizes then."""
    storage.delete([parse_s3(workplace.bucket.uri(f"{output}/{TOKENS_NAME}"))])


def questions(workplace: Workplace, name: str, count: int = 12) -> Dataset:
    lines = [question(number) for number in range(count)]
    return Dataset(training=TrainingData(uri=workplace.bucket.put_lines(f"{name}/train.jsonl", lines)))


def tokens_of(workplace: Workplace, output: str) -> TokenRecord:
    return TokenRecord.from_bytes(workplace.bucket.read(workplace.bucket.uri(f"{output}/{TOKENS_NAME}")))


def rows_of(storage: Storage, workplace: Workplace, output: str) -> set[str]:
    """What is in its folder of rows, by SHA-256."""
    folder = parse_s3(workplace.bucket.uri(f"{output}/tokens"))
    return {item.path.removesuffix(".arrow") for item in storage.list_objects(folder)}


def is_tokenized_here(directory: Path) -> bool:
    """Whether training has tokenized, whose rows `datasets` keeps in a folder."""
    return (directory / "training").is_dir()


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
    assert not is_tokenized_here(tmp_path / "stored")
    forget_tokens(storage, workplace, "tokens")
    made = sets(run, base, tmp_path / "made")
    assert is_tokenized_here(tmp_path / "made")
    assert made.validation is not None
    assert stored.training.features == made.training.features
    assert len(stored.training) == 32
    assert stored.training.to_dict() == made.training.to_dict()
    assert stored.validation.to_dict() == made.validation.to_dict()


def test_stored_tokens_that_changed_are_not_trained_on(workplace: Workplace, base: Path, tmp_path: Path) -> None:
    dataset = questions(workplace, "spoiled")
    preflight(workplace.preflight_run("spoiled", dataset=dataset), tmp_path / "preflight")
    workplace.bucket.put(f"spoiled/tokens/{tokens_of(workplace, 'spoiled').rows['training']}.arrow", b"other tokens")
    with pytest.raises(DiagnosedError, match="is not as preflight wrote it") as refused:
        sets(workplace.train_run("spoiled", dataset=dataset), base, tmp_path / "data")
    assert refused.value.failure.reason is Reason.DATASET_INVALID


def reordered(tokenizer: dict[str, Any]) -> None:
    """Two words of the vocabulary take each other's id."""
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


@pytest.mark.parametrize("changed", ["vocabulary", "template"])
def test_a_model_folder_that_is_overwritten_with_another_tokenizer_is_refused(
    workplace: Workplace, base: Path, tmp_path: Path, changed: str
) -> None:
    model = ModelSource(uri=workplace.bucket.put_folder(f"overwritten-{changed}", base))
    dataset = questions(workplace, f"before-{changed}")
    preflight(workplace.preflight_run(f"before-{changed}", model=model, dataset=dataset), tmp_path / "preflight")
    if changed == "vocabulary":
        tokenizer = json.loads((base / "tokenizer.json").read_text())
        reordered(tokenizer)
        workplace.bucket.put(f"overwritten-{changed}/tokenizer.json", json.dumps(tokenizer).encode())
    else:
        template = (base / "chat_template.jinja").read_bytes()
        workplace.bucket.put(f"overwritten-{changed}/chat_template.jinja", b"Be brief.\n" + template)
    run = workplace.train_run(f"before-{changed}", model=model, dataset=dataset)
    storage = Storage(run.storage)
    processor = load_processor(fetch_model(model, storage, tmp_path / "model"))
    with pytest.raises(DiagnosedError, match=f"{model.uri} has changed since preflight.*spec.runId") as refused:
        write_sequences(run, storage, processor, tmp_path / "data")
    assert refused.value.failure.reason is Reason.MODEL_INVALID
    assert not refused.value.failure.retryable


def test_the_tokens_of_a_run_on_an_adapter_are_made_by_the_tokenizer_that_came_with_it(
    workplace: Workplace, base: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", base, seed=3)
    template = adapter / "chat_template.jinja"
    template.write_text("Be brief.\n" + template.read_text())
    model = ModelSource(uri=workplace.model, adapter_uri=workplace.bucket.put_folder("brief", adapter))
    dataset = questions(workplace, "on-adapter")
    preflight(workplace.preflight_run("on-adapter", model=model, dataset=dataset), tmp_path / "preflight")
    run = workplace.train_run("on-adapter", model=model, dataset=dataset)
    storage = Storage(run.storage)
    processor = load_processor(fetch_model(model, storage, tmp_path / "model"))
    write_sequences(run, storage, processor, tmp_path / "data")
    assert not is_tokenized_here(tmp_path / "data")
    first = load_sequences(tmp_path / "data").training[0]
    assert processor.decode(first["input_ids"]).startswith("Be brief.")


def test_a_model_folder_with_other_weights_keeps_its_tokens(workplace: Workplace, tmp_path: Path) -> None:
    dataset = questions(workplace, "reweighted")
    preflight(workplace.preflight_run("reweighted", dataset=dataset), tmp_path / "preflight")
    other = save_model(tmp_path / "other", seed=2)
    sets(workplace.train_run("reweighted", dataset=dataset), other, tmp_path / "data")
    assert not is_tokenized_here(tmp_path / "data")


@pytest.mark.parametrize(
    "change",
    [
        {"libraries": "tokenizers 0.1"},
        {"dataset": "0" * 64},
        {"rows": {"training": "0" * 64}},
        {"format": 2},
        {"tokenizer": None},
    ],
    ids=["other libraries", "another dataset.json", "rows that are gone", "a later format", "no tokenizer"],
)
def test_training_tokenizes_where_the_stored_tokens_are_not_known_to_be_its_own(
    workplace: Workplace, base: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    dataset = questions(workplace, "unsure")
    preflight(workplace.preflight_run("unsure", dataset=dataset), tmp_path / "preflight")
    record = tokens_of(workplace, "unsure").to_wire() | change
    workplace.bucket.put(f"unsure/{TOKENS_NAME}", json.dumps(record).encode())
    assert len(sets(workplace.train_run("unsure", dataset=dataset), base, tmp_path / "data").training) == 12
    assert is_tokenized_here(tmp_path / "data")


def test_the_rows_of_an_earlier_preflight_are_removed(workplace: Workplace, storage: Storage, tmp_path: Path) -> None:
    for count in (12, 14):
        dataset = questions(workplace, "repeated", count)
        preflight(workplace.preflight_run("repeated", dataset=dataset), tmp_path / str(count))
        assert rows_of(storage, workplace, "repeated") == set(tokens_of(workplace, "repeated").rows.values())
