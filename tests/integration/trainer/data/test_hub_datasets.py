"""Datasets of a Hugging Face Hub, which is played here: by commit, file by file, and what it does not have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_trainer.data.read import data_files
from finetune_trainer.data.read.tables.saved_folders import MOST_STATE_BYTES
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.data.played_hub import COMMIT, played_hub
from tests.integration.trainer.data.test_datasets import fetched


def test_a_hub_that_can_not_be_reached_is_reported_and_tried_again(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DiagnosedError) as refused:
        fetched(storage, tmp_path, {"uri": "hf://datasets/org/name@main/data/*.parquet"})
    assert (refused.value.failure.reason, refused.value.failure.retryable) == (Reason.HUB_UNREACHABLE, True)
    assert "http://127.0.0.1:9 could not be reached for hf://datasets/org/name@main/data/*.parquet" in str(
        refused.value.failure.message
    )


HUB_FILES = {
    "README.md": b"# What this is",
    "data/train-00000.jsonl": b'{"prompt": "a", "completion": "b"}\n',
    "data/train-00001.jsonl": b'{"prompt": "c", "completion": "d"}\n',
    "data/test.jsonl": b'{"prompt": "e", "completion": "f"}\n',
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with played_hub(HUB_FILES) as endpoint:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        yield


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("hf://datasets/org/name@main/data/train-*", ["data/train-00000.jsonl", "data/train-00001.jsonl"]),
        ("hf://datasets/org/name/data/test.jsonl", ["data/test.jsonl"]),
        ("hf://datasets/org/name", ["data/test.jsonl", "data/train-00000.jsonl", "data/train-00001.jsonl"]),
    ],
)
def test_a_dataset_of_a_hub_is_read_at_the_commit_that_its_revision_is(
    storage: Storage, hub: None, tmp_path: Path, uri: str, names: list[str]
) -> None:
    files = fetched(storage, tmp_path, {"uri": uri})
    assert [file.uri for file in files] == [f"hf://datasets/org/name@{COMMIT}/{name}" for name in names]
    assert [file.path.read_bytes() for file in files] == [HUB_FILES[name] for name in names]


@pytest.mark.parametrize(
    ("state", "most_files", "words"),
    [
        (b"{", 2, "matches 3 files; the maximum is 2."),
        (b"{", 3, "state.json can't be read"),
        (b" " * (MOST_STATE_BYTES + 1), 3, "MiB together, and the maximum is 16"),
    ],
    ids=["too many", "cut off", "too large"],
)
def test_a_saved_folder_of_a_hub_has_limits_too(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: bytes, most_files: int, words: str
) -> None:
    """The number of its files is the first: a state.json is fetched for each folder."""
    monkeypatch.setattr(data_files, "MOST_FILES", most_files)
    files = {"state.json": state} | {f"{number}.arrow": b"" for number in range(3)}
    with played_hub(files) as endpoint:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        with pytest.raises(DiagnosedError) as refused:
            fetched(storage, tmp_path, {"uri": "hf://datasets/org/name"})
    assert (refused.value.failure.reason, words in refused.value.failure.message) == (Reason.DATASET_INVALID, True)


@pytest.mark.parametrize(
    "uri", ["hf://datasets/org/other/data/", "hf://datasets/org/name@v9/data/", "hf://datasets/org/name/data/*.csv"]
)
def test_what_a_hub_does_not_have_is_reported(storage: Storage, hub: None, tmp_path: Path, uri: str) -> None:
    with pytest.raises(DiagnosedError) as refused:
        fetched(storage, tmp_path, {"uri": uri})
    assert (refused.value.failure.reason, uri in refused.value.failure.message) == (Reason.DATASET_NOT_FOUND, True)
