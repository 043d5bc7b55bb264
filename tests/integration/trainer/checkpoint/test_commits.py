"""A checkpoint is complete or absent, and the run has one line of them, whatever happens in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Checkpoints
from finetune_api.pod_contracts.manifest import MANIFEST_NAME
from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.checkpoint import checkpoints, results
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Committed, CorruptError, FencedError
from finetune_trainer.storage.storage import Storage
from finetune_trainer.supervision.termination_messages import conclude
from tests.integration.trainer.checkpoint.saves import content, files, read_back, start
from tests.integration.trainer.runs import Workplace
from tests.integration.trainer_evaluation.buckets import Bucket


@pytest.fixture
def run(bucket: Bucket, request: pytest.FixtureRequest) -> StorageLocation:
    return parse_s3(bucket.uri(f"commits/{request.node.name}"))


def listed(storage: Storage, run: StorageLocation) -> list[tuple[int, int]]:
    """The checkpoints that count: (step, claim)."""
    return [(item.manifest.step, item.manifest.claim) for item in checkpoints.list_committed(storage, run)]


def paths(storage: Storage, run: StorageLocation) -> list[str]:
    return [item.path for item in storage.list_objects(run)]


def test_a_committed_checkpoint_comes_back_as_it_was(storage: Storage, run: StorageLocation, tmp_path: Path) -> None:
    saved = start(storage, run, tmp_path).commit(7)
    successor = start(storage, run, tmp_path, attempt=2)
    assert successor.resumed is not None
    assert successor.resumed.committed == saved
    assert read_back(successor.resumed) == content(7, claim=1)
    assert saved.folder.uri == f"{run.uri}/checkpoints/step-000007/claim-000001"


def test_only_the_files_that_are_wanted_are_fetched(storage: Storage, run: StorageLocation, tmp_path: Path) -> None:
    saved = start(storage, run, tmp_path).commit(7)
    fetched = checkpoints.fetch(storage, saved, tmp_path, only=lambda path: path.startswith("model/"))
    assert list(read_back(fetched)) == ["model/weights"]


def test_what_was_uploaded_but_not_committed_does_not_exist(
    storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    start(storage, run, tmp_path).commit(5)
    commits.upload_files(storage, run.join("checkpoints/step-000009/claim-000001"), files(content(9, claim=1)))
    assert listed(storage, run) == [(5, 1)]


def test_a_step_is_committed_once(storage: Storage, run: StorageLocation, tmp_path: Path) -> None:
    process = start(storage, run, tmp_path)
    first = process.commit(3, {"weights": b"first"})
    assert process.commit(3, {"weights": b"second"}) == first
    successor = start(storage, run, tmp_path, attempt=2)
    assert successor.commit(3, {"weights": b"third"}) == first
    assert [item.digest for item in checkpoints.list_committed(storage, run)] == [first.digest]


def test_of_many_that_claim_a_run_at_once_the_last_one_holds_it(
    storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    claims: list[commits.Claim] = []
    ready = threading.Barrier(8)

    def race() -> None:
        ready.wait(10)
        claims.append(commits.claim(storage, run, 1))

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert sorted(claim.number for claim in claims) == list(range(1, 9))
    for claim in claims:
        if claim.number == 8:
            commits.refuse_fenced(storage, claim)
        else:
            with pytest.raises(FencedError, match=rf"\(claim {claim.number}\) stops"):
                commits.refuse_fenced(storage, claim)


def test_a_late_process_of_an_earlier_attempt_gets_nothing(
    storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    start(storage, run, tmp_path, attempt=2)
    with pytest.raises(FencedError, match=r"attempt 2 holds the run .* attempt 1 comes too late"):
        start(storage, run, tmp_path, attempt=1)


def test_a_zombie_stops_before_it_uploads_anything(storage: Storage, run: StorageLocation, tmp_path: Path) -> None:
    zombie = start(storage, run, tmp_path)
    zombie.commit(10)
    start(storage, run, tmp_path, attempt=2)
    with pytest.raises(FencedError, match="attempt 2 holds the run now"):
        zombie.commit(20)
    assert listed(storage, run) == [(10, 1)]
    assert not [path for path in paths(storage, run) if "step-000020" in path]


def test_being_fenced_is_an_end_by_disruption(storage: Storage, run: StorageLocation, tmp_path: Path) -> None:
    zombie = start(storage, run, tmp_path)
    start(storage, run, tmp_path, attempt=2)

    def save() -> None:
        zombie.commit(20)

    assert conclude(save) == EXIT_DISRUPTED


def test_what_a_zombie_commits_in_spite_of_all_is_superseded_and_removed(
    storage: Storage, run: StorageLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zombie = start(storage, run, tmp_path)
    zombie.commit(10)
    successor = start(storage, run, tmp_path, attempt=2)
    with monkeypatch.context() as patch:  # it looked for a successor before there was one
        patch.setattr(commits, "refuse_fenced", lambda *_: None)
        zombie.commit(20)
    assert listed(storage, run) == [(10, 1), (20, 1)]
    successor.save(15)
    assert listed(storage, run) == [(10, 1), (15, 2)]
    assert not [path for path in paths(storage, run) if "step-000020" in path]
    with monkeypatch.context() as patch:
        patch.setattr(commits, "refuse_fenced", lambda *_: None)
        zombie.commit(30)
    assert listed(storage, run) == [(10, 1), (15, 2)]


def overwrite(storage: Storage, committed: Committed) -> None:
    storage.write(committed.folder.join(committed.manifest.files[0].path), b"something else")


def shorten(storage: Storage, committed: Committed) -> None:
    storage.write(committed.folder.join(committed.manifest.files[0].path), b"")


def flip_a_bit(storage: Storage, committed: Committed) -> None:
    location = committed.folder.join(committed.manifest.files[1].path)
    damaged = bytearray(storage.read(location))
    damaged[0] ^= 1
    storage.write(location, bytes(damaged))


def lose_a_file(storage: Storage, committed: Committed) -> None:
    storage.delete([committed.folder.join(committed.manifest.files[0].path)])


def spoil_the_manifest(storage: Storage, committed: Committed) -> None:
    storage.write(committed.folder.join(MANIFEST_NAME), b'{"step": 8')


def swap_the_manifest(storage: Storage, committed: Committed) -> None:
    other = committed.manifest.model_copy(update={"step": 9})
    storage.write(committed.folder.join(MANIFEST_NAME), other.to_bytes())


@pytest.mark.parametrize(
    "shard",
    [b"\0" * 64, b"", (2**62).to_bytes(8, "little") + b"{" * 64],
    ids=["zeros", "empty", "a header without end"],
)
def test_a_shard_that_can_not_be_read_is_passed_over_though_its_digest_is_right(
    storage: Storage, run: StorageLocation, tmp_path: Path, shard: bytes
) -> None:
    """A fault of what wrote it: each retry would fail on it otherwise."""
    first = start(storage, run, tmp_path)
    first.commit(4)
    first.commit(8, {"model/shard-00001-of-00001.safetensors": shard})
    second = start(storage, run, tmp_path, attempt=2)
    assert second.step == 4
    assert [item.step for item in second.corrupt] == [8]
    assert "shard-00001-of-00001.safetensors can't be read" in second.corrupt[0].message


@pytest.mark.parametrize("damage", [overwrite, shorten, flip_a_bit, lose_a_file, spoil_the_manifest, swap_the_manifest])
def test_a_corrupt_checkpoint_is_passed_over_and_stays_until_a_newer_one_is_committed(
    storage: Storage,
    run: StorageLocation,
    tmp_path: Path,
    damage: Callable[[Storage, Committed], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = start(storage, run, tmp_path)
    first.commit(4)
    damaged = first.commit(8)
    damage(storage, damaged)
    before = paths(storage, run)

    second = start(storage, run, tmp_path, attempt=2)
    assert second.resumed is not None
    assert second.resumed.committed.manifest.step == 4
    assert [item.step for item in second.corrupt] == [8]
    assert damaged.folder.uri in second.corrupt[0].message
    assert "passing over the checkpoint of step 8" in capsys.readouterr().out
    assert paths(storage, run) == [*before, "claims/000002.json"]

    second.save(8)
    assert listed(storage, run) == [(4, 1), (8, 2)]
    assert not [path for path in paths(storage, run) if path.startswith("checkpoints/step-000008/claim-000001")]


def test_with_no_good_checkpoint_left_the_run_fails_unless_it_may_start_over(
    storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    first = start(storage, run, tmp_path)
    overwrite(storage, first.commit(4))
    lose_a_file(storage, first.commit(8))
    with pytest.raises(DiagnosedError, match=r"Step 4: .*/step-000004/claim-000001/model/weights") as caught:
        start(storage, run, tmp_path, attempt=2)
    assert caught.value.failure.reason is Reason.CHECKPOINT_CORRUPT
    assert not caught.value.failure.retryable

    over = start(storage, run, tmp_path, attempt=3, start_over_if_corrupt=True)
    assert over.resumed is None
    assert [item.step for item in over.corrupt] == [8, 4]
    over.save(2)
    assert listed(storage, run) == [(2, over.claim.number)]


def test_a_run_without_any_checkpoint_starts_at_the_beginning(
    storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    process = start(storage, run, tmp_path)
    assert process.resumed is None
    assert process.corrupt == ()


def test_the_last_ones_and_the_best_are_kept_and_nothing_else(
    storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    process = start(storage, run, tmp_path)
    process.save(2, 4, 6, 8)  # losses 1, 2, 3, 4; keep=2
    assert listed(storage, run) == [(2, 1), (6, 1), (8, 1)]
    kept = {f"checkpoints/step-{step:06d}/claim-000001/{name}" for step in (2, 6, 8) for name in content(step, 1)}
    manifests = {f"checkpoints/step-{step:06d}/claim-000001/{MANIFEST_NAME}" for step in (2, 6, 8)}
    assert set(paths(storage, run)) == {"claims/000001.json"} | kept | manifests


def test_leftovers_of_dead_processes_are_swept_but_not_what_a_newer_one_uploads(
    bucket: Bucket, storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    def leave(step: int, claim: int) -> str:
        """Files without a manifest, and an upload in parts that was never completed."""
        folder = run.join(f"checkpoints/step-{step:06d}/claim-{claim:06d}")
        commits.upload_files(storage, folder, files(content(step, claim)))
        key = folder.join("large").key
        bucket.client.create_multipart_upload(Bucket=run.bucket, Key=key)
        return key

    start(storage, run, tmp_path)
    process = start(storage, run, tmp_path, attempt=2)
    for claim, step in ((1, 6), (1, 90), (2, 3)):
        leave(step, claim)
    alive = {leave(12, 2), leave(4, 3)}
    process.save(9)
    left = {path.split("/")[1] for path in paths(storage, run) if path.startswith("checkpoints/")}
    assert left == {"step-000009", "step-000012", "step-000004"}
    uploads = bucket.client.list_multipart_uploads(Bucket=run.bucket, Prefix=run.join("checkpoints/").key)
    assert {upload["Key"] for upload in uploads.get("Uploads", [])} == alive


def test_a_refused_removal_fails_nothing_and_is_made_up_for_later(
    storage: Storage,
    run: StorageLocation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(locations: object) -> None:
        raise DiagnosedError(Reason.STORAGE_DENIED, "s3:DeleteObject is not allowed")

    process = start(storage, run, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", refuse)
        process.save(2, 4, 6, 8)
    assert "old checkpoints could not be removed: s3:DeleteObject is not allowed" in capsys.readouterr().out
    process.save(10)
    assert listed(storage, run) == [(2, 1), (8, 1), (10, 1)]
    assert not [path for path in paths(storage, run) if "step-000004" in path]


def test_a_damaged_file_of_a_committed_folder_is_named(storage: Storage, run: StorageLocation, tmp_path: Path) -> None:
    committed = start(storage, run, tmp_path).commit(2)
    overwrite(storage, committed)
    with pytest.raises(CorruptError, match=r"step-000002/claim-000001/model/weights has 14 bytes"):
        commits.download(storage, committed, tmp_path / "fetched")


def model_folder(directory: Path, weights: bytes) -> Path:
    """What a training leaves of a LoRA adapter."""
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/local", "r": 4}))
    (directory / "adapter_model.safetensors").write_bytes(weights)
    (directory / "optimizer.safetensors").write_bytes(b"no part of the model")
    return directory


def test_the_first_result_is_the_result(
    workplace: Workplace, storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    config = workplace.train_run("unused", output_uri=run.uri, checkpoints=Checkpoints())
    zombie = start(storage, run, tmp_path)
    checkpoint = zombie.commit(20)
    successor = start(storage, run, tmp_path, attempt=2)
    assert results.find_result(config, storage) is None
    made = results.make_result(config, storage, successor.claim, checkpoint, model_folder(tmp_path / "2", b"second"))
    assert made.uri == f"{run.uri}/result/claim-000002"
    with pytest.raises(FencedError):
        results.make_result(config, storage, zombie.claim, checkpoint, model_folder(tmp_path / "1", b"first"))

    latest = start(storage, run, tmp_path, attempt=3)
    adopted = results.make_result(config, storage, latest.claim, checkpoint, model_folder(tmp_path / "3", b"third"))
    assert adopted == made == results.find_result(config, storage)
    folder = parse_s3(made.uri)
    assert paths(storage, folder) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    assert storage.read(folder.join("adapter_model.safetensors")) == b"second"
    assert json.loads(storage.read(folder.join("adapter_config.json")))["base_model_name_or_path"] == config.model.uri
    assert commits.read_committed(storage, folder).digest == made.digest
    assert paths(storage, run.join("result")) == [
        *(f"claim-000002/{path}" for path in paths(storage, folder)),
        MANIFEST_NAME,
    ]


def test_where_the_best_checkpoint_is_corrupt_the_next_best_becomes_the_result(
    workplace: Workplace, storage: Storage, run: StorageLocation, tmp_path: Path
) -> None:
    config = workplace.train_run("unused", output_uri=run.uri, checkpoints=Checkpoints.model_validate({"best": {}}))
    process = start(storage, run, tmp_path)
    overwrite(storage, process.commit(2))  # loss 1
    process.commit(4)  # 2
    process.commit(6)  # 3
    chosen = results.fetch_chosen(config, storage, process.kept, tmp_path)
    assert chosen.checkpoint.committed.manifest.step == 4
    assert [item.step for item in chosen.corrupt] == [2]
