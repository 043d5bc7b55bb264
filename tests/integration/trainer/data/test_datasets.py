"""Datasets on a real S3: several files, folders, globs, ConfigMaps; what preflight chooses, and training takes."""

from __future__ import annotations

import gzip
import json
import shutil
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import (
    ConfigMapKeys,
    Dataset,
    DatasetSource,
    Dropped,
    Limit,
    Prepare,
    TrainingData,
    ValidationData,
)
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.data.read.data_files import DataFile, fetch_files
from finetune_trainer.data.select import choice
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train.training_data import data_digests
from tests.integration.trainer.data.test_stored_tokens import chosen_of, forget_tokens, sets
from tests.integration.trainer.runs import Workplace, question
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import chat

FOLDER = "many"


@pytest.fixture(scope="module")
def folder(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six examples in each of four files of different kinds, among others that are no data."""
    rows = [[question(first + number) for number in range(6)] for first in (0, 6, 12, 18)]
    lines = ["".join(json.dumps(row) + "\n" for row in some).encode() for some in rows]
    parquet = tmp_path_factory.mktemp("parquet") / "d.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[3]), parquet)
    for path, body in {
        "a.jsonl": lines[0],
        "b.jsonl.gz": gzip.compress(lines[1]),
        "deep/er/c.jsonl": lines[2],
        "deep/d.parquet": parquet.read_bytes(),
        "README.md": b"# What this is",
        "_SUCCESS": b"",
        "dataset_info.json": b"{}",
    }.items():
        bucket.put(f"{FOLDER}/{path}", body)
    bucket.put("splits/dataset_dict.json", b"{}")
    bucket.put("splits/train/a.jsonl", lines[0])
    return bucket.uri(FOLDER)


def fetched(storage: Storage, directory: Path, source: dict[str, Any], **more: Any) -> list[DataFile]:
    return fetch_files(
        storage, DatasetSource(**source), directory, mounted=directory / "mounted", **{"allowed": ["*"], **more}
    )


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ({"uri": "/a.jsonl"}, ["a.jsonl"]),
        ({"uri": "/"}, ["a.jsonl", "b.jsonl.gz", "deep/d.parquet", "deep/er/c.jsonl"]),
        ({"uri": "/*.jsonl*"}, ["a.jsonl", "b.jsonl.gz"]),
        ({"uri": "/**/*.jsonl"}, ["a.jsonl", "deep/er/c.jsonl"]),
        ({"uri": "/deep/**"}, ["deep/d.parquet", "deep/er/c.jsonl"]),
        ({"uri": "/deep/*"}, ["deep/d.parquet"]),
        ({"uris": ["/deep/er/", "/a.jsonl", "/*.jsonl"]}, ["a.jsonl", "deep/er/c.jsonl"]),
    ],
    ids=str,
)
def test_a_uri_stands_for_a_file_a_folder_or_the_matches_of_a_glob(
    storage: Storage, folder: str, tmp_path: Path, source: dict[str, Any], names: list[str]
) -> None:
    given = {
        name: [folder + path for path in value] if isinstance(value, list) else folder + value
        for name, value in source.items()
    }
    files = fetched(storage, tmp_path, given)
    assert [file.uri for file in files] == [f"{folder}/{name}" for name in names]
    assert all(file.path.exists() for file in files)


def test_of_a_saved_folder_the_shards_are_read_that_its_state_names(
    bucket: Bucket, storage: Storage, tmp_path: Path
) -> None:
    """As load_from_disk does it: not the cache of a `map`, and never without one that is named."""
    rows = datasets.Dataset.from_list([question(number) for number in range(12)])
    rows.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    shutil.copy(tmp_path / "saved" / "data-00000-of-00003.arrow", tmp_path / "saved" / "cache-0123456789abcdef.arrow")
    uri = bucket.put_folder("saved/train", tmp_path / "saved")
    shards = [f"{uri}/data-0000{number}-of-00003.arrow" for number in range(3)]
    for folder in (f"{uri}/", bucket.uri("saved/")):
        assert [file.uri for file in fetched(storage, tmp_path / "fetched", {"uri": folder})] == shards
    storage.delete([parse_s3(shards[1])])
    for folder in (f"{uri}/", bucket.uri("saved/")):
        with pytest.raises(DiagnosedError, match=r"lists 3 shards, of which 1 are missing: .*data-00001-of") as refused:
            fetched(storage, tmp_path / "fetched", {"uri": folder})
        assert refused.value.failure.reason is Reason.DATASET_INVALID


@pytest.mark.parametrize(
    ("uri", "reason", "words"),
    [
        ("s3://trainer/many/none.jsonl", Reason.DATASET_NOT_FOUND, "s3://trainer/many/none.jsonl"),
        ("s3://trainer/none/", Reason.DATASET_NOT_FOUND, "matches no data file. In a folder, files ending in .jsonl"),
        ("s3://trainer/many/*.csv", Reason.DATASET_NOT_FOUND, "matches no data file. Listed: "),
        ("s3://trainer/many/[0-9]*", Reason.DATASET_NOT_FOUND, "matches no data file. Only * and ** are wildcards."),
        ("s3://trainer/splits/", Reason.DATASET_INVALID, "Use one of them, such as s3://trainer/splits/train/."),
        ("s3://trainer/m*/secret.txt", Reason.DATASET_NOT_FOUND, "matches no data file."),
    ],
)
def test_what_names_no_data_is_told(
    storage: Storage, bucket: Bucket, folder: str, tmp_path: Path, uri: str, reason: Reason, words: str
) -> None:
    with pytest.raises(DiagnosedError) as refused:
        fetched(storage, tmp_path, {"uri": uri})
    assert (refused.value.failure.reason, words in refused.value.failure.message) == (reason, True)
    is_missing = reason is Reason.DATASET_NOT_FOUND
    assert ((bucket.storage.endpoint or "AWS") in refused.value.failure.message) == is_missing, "and who was asked"


def test_every_file_of_a_glob_must_be_allowed(storage: Storage, folder: str, tmp_path: Path) -> None:
    """`**/` may be nothing at all: the glob matches the pattern as it is written, and the file does not."""
    uri, allowed = f"{folder}/**/*.jsonl", [f"{folder}/*/*.jsonl"]
    with pytest.raises(DiagnosedError, match=r"does not allow s3://trainer/many/a\.jsonl, which the dataset's URI"):
        fetched(storage, tmp_path, {"uri": uri}, allowed=allowed)
    assert fetched(storage, tmp_path, {"uri": uri}, allowed=[f"{folder}/*"])


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ConfigMap's volume, as the kubelet lays it out."""
    volume = tmp_path / "volumes" / "training"
    (volume / "..2026").mkdir(parents=True)
    (volume / "..data").symlink_to("..2026")
    for name, numbers in {"b.jsonl": range(8, 12), "a.jsonl": range(8)}.items():
        (volume / "..2026" / name).write_text("".join(json.dumps(question(number)) + "\n" for number in numbers))
        (volume / name).symlink_to(f"..data/{name}")
    monkeypatch.setattr(choice, "DATASET_DIRECTORY", str(tmp_path / "volumes"))
    yield volume


def test_a_config_map_is_a_dataset(
    workplace: Workplace, storage: Storage, base: Path, mounted: Path, tmp_path: Path
) -> None:
    dataset = Dataset(training=TrainingData(config_map_ref=ConfigMapKeys(name="small")))
    run = workplace.train_run("config-map", dataset=dataset)
    report = preflight(workplace.preflight_run("config-map", dataset=dataset), tmp_path / "preflight")
    assert report.dataset.training is not None
    assert report.dataset.training.examples == 12
    prepared = written(run, base, tmp_path / "data")
    assert len(prepared) == 12
    assert list(data_digests(tmp_path / "data")) == ["configmap://small/a.jsonl", "configmap://small/b.jsonl"]
    (mounted / "..2026" / "b.jsonl").write_text("")
    assert written(run, base, tmp_path / "as-checked")["input_ids"] == prepared["input_ids"]
    forget_tokens(storage, workplace, "config-map")
    with pytest.raises(DiagnosedError, match=r"configmap://small/b\.jsonl has changed since preflight read it"):
        written(run, base, tmp_path / "changed")


def test_a_config_map_that_is_not_there_is_looked_for_again(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(DiagnosedError) as refused:
        fetched(storage, tmp_path, {"config_map_ref": ConfigMapKeys(name="none", key="a.jsonl")})
    assert refused.value.failure.reason is Reason.DATASET_NOT_FOUND
    assert refused.value.failure.message.startswith("ConfigMap 'none' is not in the job's namespace, or has no key 'a.")


def written(run: TrainRun, base: Path, directory: Path) -> Any:
    """The sequences that a node trains on."""
    return sets(run, base, directory).training


def test_a_broken_line_names_its_file(workplace: Workplace, folder: str, tmp_path: Path) -> None:
    lines = [question(number) for number in range(30, 34)]
    broken = workplace.bucket.put_lines("broken/b.jsonl", [*lines, {"text": "4"}])
    uris = [f"{folder}/a.jsonl", workplace.bucket.put_lines("broken/a.jsonl", lines), broken]
    run = workplace.preflight_run("broken-file", dataset=Dataset(training=TrainingData(uris=uris)))
    with pytest.raises(DiagnosedError, match=rf"Line 5 of the training file {broken}: Unexpected") as refused:
        preflight(run, tmp_path)
    assert refused.value.failure.dataset is not None
    assert [(error.uri, error.line) for error in refused.value.failure.dataset.errors] == [(broken, 5)]
    (finding,) = findings(workplace, "broken-file")
    assert (finding["kind"], finding["uri"], finding["line"]) == ("error", broken, 5)


def test_a_format_that_was_asked_for_is_held_to(workplace: Workplace, tmp_path: Path) -> None:
    dataset = workplace.dataset(format="PromptCompletion")
    with pytest.raises(DiagnosedError) as refused:
        preflight(workplace.preflight_run("format", dataset=dataset), tmp_path)
    words = "Unexpected file format, expected prompt/completion pairs, found chat messages."
    assert words in refused.value.failure.message


def findings(workplace: Workplace, output: str) -> list[dict[str, Any]]:
    body = workplace.bucket.read(workplace.bucket.uri(f"{output}/dataset-findings.jsonl"))
    return [json.loads(line) for line in body.splitlines()]


WORDS = " ".join(string.ascii_lowercase + string.digits)
DOUBTFUL = [
    *(question(number) for number in range(12)),
    question(3),  # 13: a duplicate
    chat(WORDS, "yes"),
    chat(f"{WORDS} more", "yes"),  # 15: a near duplicate
    chat("2+2?", "4"),  # 16 and 17: a conflict
    chat("2+2?", "5"),
    question(41),  # 18: a leak
    chat("Why? " * 3, "Because. " * 20),  # 19: too long
]
VALIDATION = [question(41), question(42)]


def doubtful(workplace: Workplace, **prepare: Any) -> Dataset:
    return Dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("doubtful/train.jsonl", DOUBTFUL)),
        validation=ValidationData(uri=workplace.bucket.put_lines("doubtful/valid.jsonl", VALIDATION)),
        prepare=Prepare(**prepare),
    )


DROPPED = {
    "nothing": ({}, None, range(19)),
    "duplicates": ({"duplicates": "Drop"}, Dropped(duplicates=1), {*range(19)} - {12}),
    "near duplicates": ({"near_duplicates": "Drop"}, Dropped(near_duplicates=1), {*range(19)} - {14}),
    "conflicts": ({"conflicts": "Drop"}, Dropped(conflicts=2), {*range(19)} - {15, 16}),
    "leaks": ({"leaks": "Drop"}, Dropped(leaks=1), {*range(19)} - {17}),
    "too long": ({"too_long": "Drop"}, Dropped(too_long=1), range(18)),
    "all": (
        {"duplicates": "Drop", "near_duplicates": "Drop", "conflicts": "Drop", "leaks": "Drop", "too_long": "Drop"},
        Dropped(duplicates=1, near_duplicates=1, conflicts=2, leaks=1, too_long=1),
        {*range(19)} - {12, 14, 15, 16, 17, 18},
    ),
}


@pytest.mark.parametrize(("prepare", "dropped", "kept"), DROPPED.values(), ids=DROPPED)
def test_what_is_doubtful_is_told_and_dropped_when_asked(
    workplace: Workplace, storage: Storage, tmp_path: Path, prepare: dict[str, Any], dropped: Dropped, kept: Any
) -> None:
    dataset = doubtful(workplace, **prepare)
    report = preflight(workplace.preflight_run("doubtful", dataset=dataset), tmp_path)
    assert report.dataset.dropped == dropped
    assert chosen_of(storage, workplace, "doubtful").training.mask().nonzero()[0].tolist() == sorted(kept)
    assert report.dataset.training is not None
    assert report.dataset.training.examples == len(kept)
    assert {(finding["kind"], finding["line"]) for finding in findings(workplace, "doubtful")} == {
        ("duplicates", 13),
        ("near_duplicates", 15),
        ("conflicts", 16),
        ("conflicts", 17),
        ("leaks", 18),
    }


def test_too_long_examples_fail_when_asked(workplace: Workplace, tmp_path: Path) -> None:
    dataset = doubtful(workplace, too_long="Fail")
    with pytest.raises(DiagnosedError, match=r"Line 19 of .*: The example has \d+ tokens; the maximum is 128"):
        preflight(workplace.preflight_run("fail", dataset=dataset), tmp_path)


def test_subsets_stay_nested_and_apart_from_what_is_held_out_after_preparing(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    lines = [question(number % 40) for number in range(50)]
    uri = workplace.bucket.put_lines("nested/train.jsonl", lines)
    taken = []
    for percent in (25, 50, 100):
        dataset = Dataset(
            training=TrainingData(uri=uri, limit=Limit(percent=percent)),
            validation=ValidationData(split_percent=20),
            prepare=Prepare(duplicates="Drop"),
        )
        preflight(workplace.preflight_run("nested", dataset=dataset), tmp_path / str(percent))
        record = chosen_of(storage, workplace, "nested")
        assert record.validation is not None
        held_out = set(record.validation.mask().nonzero()[0])
        assert len(held_out) == 8
        taken.append(set(record.training.mask().nonzero()[0]))
        assert not held_out & taken[-1]
    assert [len(one) for one in taken] == [8, 16, 32]
    assert taken[0] < taken[1] < taken[2] <= set(range(40))


def test_training_takes_what_preflight_chose_and_no_other(workplace: Workplace, base: Path, tmp_path: Path) -> None:
    dataset = doubtful(workplace, duplicates="Drop", conflicts="Drop")
    report = preflight(workplace.preflight_run("taken", dataset=dataset), tmp_path / "preflight")
    run = workplace.train_run("taken", {"max_length": 128}, dataset=dataset)
    sequences = written(run, base, tmp_path / "data")
    assert report.dataset.training is not None
    assert (len(sequences), sum(map(len, sequences["input_ids"]))) == (16, report.dataset.training.tokens)
    without = run.model_copy(update={"output_uri": workplace.bucket.uri("no-preflight")})
    assert written(without, base, tmp_path / "alone")["input_ids"] == sequences["input_ids"]


def test_a_file_that_changed_after_preflight_is_not_trained_on(
    workplace: Workplace, storage: Storage, base: Path, tmp_path: Path
) -> None:
    """Its tokens as preflight read it are; where there are none, the run is refused."""
    dataset = doubtful(workplace)
    report = preflight(workplace.preflight_run("changed", dataset=dataset), tmp_path / "preflight")
    uri = workplace.bucket.put_lines("doubtful/train.jsonl", [*DOUBTFUL, question(20)])
    run = workplace.train_run("changed", dataset=dataset)
    assert report.dataset.training is not None
    assert len(written(run, base, tmp_path / "as-checked")) == report.dataset.training.rows
    forget_tokens(storage, workplace, "changed")
    with pytest.raises(DiagnosedError) as refused:
        written(run, base, tmp_path / "data")
    assert refused.value.failure.reason is Reason.DATASET_INVALID
    assert refused.value.failure.message == (
        f"{uri} has changed since preflight read it. Change spec.runId to train on its current content."
    )


def test_a_set_of_which_nothing_is_left_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    lines = [chat("2+2?", str(number)) for number in range(12)]
    dataset = Dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("doubtful/all.jsonl", lines)),
        prepare=Prepare(conflicts="Drop"),
    )
    with pytest.raises(DiagnosedError, match=r"No training example is left\. See status\.dataset\.dropped"):
        preflight(workplace.preflight_run("nothing", dataset=dataset), tmp_path)
