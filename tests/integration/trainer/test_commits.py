"""A folder in the storage is complete or absent, and committed once, whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import Parallelism
from finetune_api.manifest import MANIFEST_NAME, Manifest
from finetune_api.sources import S3Location, parse_s3
from finetune_trainer import checkpoints, commits
from finetune_trainer.commits import Committed, CorruptError
from finetune_trainer.gang import Gang
from finetune_trainer.place import place_alone_on_node
from finetune_trainer.storage import Storage
from tests.integration.trainer_evaluation.buckets import Bucket

ALONE = Gang(place_alone_on_node(Parallelism(), {}))


@pytest.fixture
def output(bucket: Bucket, request: pytest.FixtureRequest) -> S3Location:
    return parse_s3(bucket.uri(f"commits/{request.node.name}"))


def save(storage: Storage, output: S3Location, directory: Path, step: int, attempt: int = 1) -> Committed:
    """Commit a checkpoint whose files tell which attempt wrote them."""
    local = directory / f"{attempt}-{step}"
    local.mkdir(parents=True)
    (local / "weights").write_text(f"of attempt {attempt} at step {step}")
    (local / "state").write_bytes(bytes(step))
    manifest = Manifest(step=step, attempt=attempt, created=whole_seconds(datetime.now(UTC)), files=[])
    return checkpoints.commit(ALONE, storage, output, local, manifest)


def steps(storage: Storage, output: S3Location) -> list[int]:
    return [committed.manifest.step for committed in checkpoints.list_committed(storage, output)]


def test_a_committed_checkpoint_comes_back_as_it_was(storage: Storage, output: S3Location, tmp_path: Path) -> None:
    saved = save(storage, output, tmp_path, step=7)
    found = checkpoints.fetch_newest(storage, output, tmp_path / "fetched")
    assert found is not None
    assert found.committed == saved
    assert (found.path / "weights").read_text() == "of attempt 1 at step 7"
    assert sorted(path.name for path in found.path.iterdir()) == ["state", "weights"]


def test_what_was_uploaded_but_not_committed_does_not_exist(
    storage: Storage, output: S3Location, tmp_path: Path
) -> None:
    save(storage, output, tmp_path, step=5)
    (tmp_path / "weights").write_text("torn")
    commits.upload_files(storage, checkpoints.step_folder(output, 9).join("attempt-0001"), tmp_path, ["weights"])
    assert steps(storage, output) == [5]


def test_of_two_that_race_for_a_step_the_loser_adopts_the_winner(
    storage: Storage, output: S3Location, tmp_path: Path
) -> None:
    answers: dict[int, Committed] = {}
    start = threading.Barrier(4)

    def race(attempt: int) -> None:
        start.wait(10)
        answers[attempt] = save(storage, output, tmp_path, step=3, attempt=attempt)

    racers = [threading.Thread(target=race, args=(attempt,)) for attempt in (1, 2, 3, 4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    (digest,) = {committed.digest for committed in answers.values()}
    found = checkpoints.fetch_newest(storage, output, tmp_path / "fetched")
    assert found is not None
    assert found.committed.digest == digest
    winner = found.committed.manifest.attempt
    assert (found.path / "weights").read_text() == f"of attempt {winner} at step 3"


def overwrite(storage: Storage, committed: Committed) -> None:
    storage.write(committed.folder.join(committed.manifest.files[0].path), b"something else")


def shorten(storage: Storage, committed: Committed) -> None:
    storage.write(committed.folder.join(committed.manifest.files[0].path), b"")


def flip_a_bit(storage: Storage, committed: Committed) -> None:
    location = committed.folder.join(committed.manifest.files[1].path)
    content = bytearray(storage.read(location))
    content[0] ^= 1
    storage.write(location, bytes(content))


def lose_a_file(storage: Storage, committed: Committed) -> None:
    storage.delete([committed.folder.join(committed.manifest.files[0].path)])


def spoil_the_manifest(storage: Storage, committed: Committed) -> None:
    storage.write(committed.folder.join(MANIFEST_NAME), b'{"step": 8')


@pytest.mark.parametrize("damage", [overwrite, shorten, flip_a_bit, lose_a_file, spoil_the_manifest])
def test_a_corrupt_checkpoint_is_skipped_for_the_one_before(
    storage: Storage,
    output: S3Location,
    tmp_path: Path,
    damage: Callable[[Storage, Committed], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(storage, output, tmp_path, step=4)
    damaged = save(storage, output, tmp_path, step=8)
    damage(storage, damaged)
    found = checkpoints.fetch_newest(storage, output, tmp_path / "fetched")
    assert found is not None
    assert found.committed.manifest.step == 4
    assert "skipping" in capsys.readouterr().out


def test_the_step_of_a_corrupt_checkpoint_can_be_committed_again(
    storage: Storage, output: S3Location, tmp_path: Path
) -> None:
    lose_a_file(storage, save(storage, output, tmp_path, step=8))
    assert checkpoints.fetch_newest(storage, output, tmp_path / "first") is None
    save(storage, output, tmp_path, step=8, attempt=2)
    found = checkpoints.fetch_newest(storage, output, tmp_path / "second")
    assert found is not None
    assert found.committed.manifest.attempt == 2


def test_a_removed_checkpoint_leaves_nothing(storage: Storage, output: S3Location, tmp_path: Path) -> None:
    checkpoints.remove(storage, save(storage, output, tmp_path, step=1))
    assert storage.list_objects(output) == []


def test_a_damaged_file_of_a_committed_folder_is_named(storage: Storage, output: S3Location, tmp_path: Path) -> None:
    committed = save(storage, output, tmp_path, step=2)
    overwrite(storage, committed)
    with pytest.raises(CorruptError, match=r"step-000002/attempt-0001/state has 14 bytes; its manifest says 2"):
        commits.download(storage, committed, tmp_path / "fetched")
