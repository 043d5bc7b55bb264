"""Folders of this machine keep the promises of the S3 edge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.local_folders import LocalFolders
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.storage.s3_and_local import S3AndLocalStorage
from finetune_trainer.storage.transfers import MismatchError

SHA256 = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> StorageLocation:
    return parse_location(f"file://{tmp_path}/run")


@pytest.fixture
def folders() -> LocalFolders:
    return LocalFolders()


def test_what_is_written_is_read(folders: LocalFolders, folder: StorageLocation) -> None:
    folders.write(folder.join("a", "b.json"), b"first")
    folders.write(folder.join("a", "b.json"), b"second")
    assert folders.read(folder.join("a", "b.json")) == b"second"
    assert folders.read_range(folder.join("a", "b.json"), 2, 100) == b"cond"
    assert folders.find(folder.join("nothing")) is None


def test_of_many_who_write_at_once_one_is_first(folders: LocalFolders, folder: StorageLocation) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: folders.write_if_absent(folder.join("claim"), b"%d" % n), range(40)))
    assert answers.count(True) == 1
    assert folders.read(folder.join("claim")) == b"%d" % answers.index(True)
    assert [item.path for item in folders.list_objects(folder)] == ["claim"]


def test_the_same_content_counts_as_written(folders: LocalFolders, folder: StorageLocation) -> None:
    assert folders.write_if_absent(folder.join("claim"), b"mine")
    assert folders.write_if_absent(folder.join("claim"), b"mine")
    assert not folders.write_if_absent(folder.join("claim"), b"yours")


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "file"])
def test_an_upload_tells_size_and_digest(
    folders: LocalFolders, folder: StorageLocation, tmp_path: Path, in_memory: bool
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    stored = folders.upload(memoryview(b"weights") if in_memory else file, folder.join("model", "weights"))
    assert (stored.size, stored.sha256) == (7, SHA256)
    assert folders.read(folder.join("model", "weights")) == b"weights"


def test_what_did_not_end_is_no_object_and_is_removed(
    folders: LocalFolders, folder: StorageLocation, tmp_path: Path
) -> None:
    folders.write(folder.join("whole"), b"x")
    for name in ("old", "new"):
        (tmp_path / "run" / f"{name}.0123abcd.part").write_bytes(b"half")
    assert [item.path for item in folders.list_objects(folder)] == ["whole"]
    assert folders.abort_uploads(folder, only=lambda path: path.startswith("old")) == 1
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["new.0123abcd.part", "whole"]


def test_a_source_is_linked_and_not_copied(folders: LocalFolders, folder: StorageLocation, tmp_path: Path) -> None:
    folders.write(folder.join("model.safetensors"), b"weights")
    folders.download(folder.join("model.safetensors"), tmp_path / "scratch" / "model.safetensors")
    assert (tmp_path / "scratch" / "model.safetensors").is_symlink()


@pytest.mark.parametrize(
    ("name", "size", "sha256", "words"),
    [
        ("weights", 7, SHA256, None),
        ("weights", 8, None, "has 7 bytes; 8 were expected"),
        ("weights", 7, "0" * 64, "does not have the expected SHA-256"),
        ("nothing", 7, SHA256, "does not exist"),
    ],
    ids=["good", "size", "digest", "absent"],
)
def test_a_download_is_checked(
    folders: LocalFolders,
    folder: StorageLocation,
    tmp_path: Path,
    name: str,
    size: int,
    sha256: str | None,
    words: str | None,
) -> None:
    folders.write(folder.join("weights"), b"weights")
    target = tmp_path / "scratch" / "weights"
    if words is None:
        folders.download(folder.join(name), target, size=size, sha256=sha256)
        assert target.read_bytes() == b"weights"
        assert not target.is_symlink()
    else:
        with pytest.raises(MismatchError, match=words):
            folders.download(folder.join(name), target, size=size, sha256=sha256)


def test_folders_go_with_their_last_file(folders: LocalFolders, folder: StorageLocation, tmp_path: Path) -> None:
    for path in ("kept", "step-1/claim-1/a", "step-1/claim-1/model/b"):
        folders.write(folder.join(path), b"x")
    folders.delete([folder.join("step-1/claim-1/a"), folder.join("nothing")])
    assert (tmp_path / "run" / "step-1" / "claim-1" / "model" / "b").exists()
    folders.delete([folder.join("step-1/claim-1/model/b")])
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["kept"]


def _into_a_file(folders: LocalFolders, folder: StorageLocation) -> None:
    folders.write(folder, b"x")
    folders.write(folder.join("below"), b"x")


@pytest.mark.parametrize(
    ("work", "reason", "words"),
    [
        (lambda f, at: f.read(at, Reason.DATASET_NOT_FOUND), Reason.DATASET_NOT_FOUND, "/run does not exist."),
        (
            lambda f, at: f.download(at, Path("/tmp/x"), Reason.MODEL_NOT_FOUND),
            Reason.MODEL_NOT_FOUND,
            "does not exist",
        ),
        (_into_a_file, Reason.STORAGE_UNREACHABLE, "/run/below"),
    ],
    ids=["read", "download", "file in place of a folder"],
)
def test_failures_have_a_reason_and_name_the_path(
    folders: LocalFolders,
    folder: StorageLocation,
    work: Callable[[LocalFolders, StorageLocation], None],
    reason: Reason,
    words: str,
) -> None:
    with pytest.raises(DiagnosedError, match=words) as raised:
        work(folders, folder)
    assert raised.value.failure.reason is reason


def test_only_a_laptop_reads_local_files(folder: StorageLocation, tmp_path: Path) -> None:
    LocalFolders().write(folder, b"secret of the node")
    assert isinstance(open_storage(StorageConfig(region="us-east-1", local_folders=True)), S3AndLocalStorage)
    in_a_pod = open_storage(StorageConfig(region="us-east-1", outage_tolerance_seconds=0))
    with pytest.raises(DiagnosedError):
        in_a_pod.read(folder)
    with pytest.raises(DiagnosedError):
        in_a_pod.download(folder, tmp_path / "copy")
