"""The commit protocol against the real S3, as a state machine: processes that are killed, that hang and come back at
any request, that race for the run, and checkpoints that rot. Hypothesis chooses the order of single requests.

`acknowledged` is the model: what a process was told that it committed.
"""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.pod_contracts.manifest import CheckpointKey, Manifest
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Committed, FencedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.checkpoint.saves import KEEP, Process, content, files, loss_at, read_back, start
from tests.integration.trainer.checkpoint.stepwise import Stepwise, one_by_one
from tests.integration.trainer_evaluation.buckets import Bucket

LAST_STEP = 9
MOST_REQUESTS = 60
POINTS = {
    "claim": re.compile(r"write_if_absent .*/claims/"),
    "look for checkpoints": re.compile(r"list_objects .*/checkpoints$"),
    "resume": re.compile("download"),
    "upload": re.compile("upload .*/checkpoints/"),
    "commit": re.compile(r"write_if_absent .*/checkpoints/.*/manifest\.json"),
    "look for a later claim": re.compile("read .*/claims/"),
    "remove a manifest": re.compile(r"delete .*/manifest\.json"),
    "remove a file": re.compile("delete .*/state"),
    "commit the result": re.compile(r"write_if_absent .*/result/manifest\.json"),
}
"""Requests before which it matters to stand still."""
MOST_DAMAGED = 2
MOST_ALIVE = 3


class Training(Stepwise):
    """A process that claims the run, resumes, saves every `stride` steps, and commits the result."""

    def __init__(self, storage: Storage, run: StorageLocation, directory: Path, attempt: int, stride: int) -> None:
        self.process: Process | None = None
        self.result: Committed | None = None
        self._run_folder = run
        self._directory = directory
        self._attempt = attempt
        self._stride = stride
        super().__init__(storage, self._train)

    def _train(self, storage: Storage) -> None:
        self.process = start(storage, self._run_folder, self._directory, self._attempt)
        while self.process.step < LAST_STEP:
            self.process.save(min(self.process.step + self._stride, LAST_STEP))
        self.result = self._commit_result(storage, self.process)

    def _commit_result(self, storage: Storage, process: Process) -> Committed:
        claim = process.claim
        commits.refuse_fenced(storage, claim)
        folder = commits.result_folder(claim.run, claim.number)
        manifest = Manifest(
            step=process.step,
            claim=claim.number,
            attempt=claim.attempt,
            created=whole_seconds(datetime.now(UTC)),
            files=commits.upload_files(storage, folder, files(content(process.step, claim.number))),
        )
        return commits.commit_result(storage, claim.run, manifest)


class CheckpointMachine(RuleBasedStateMachine):
    def __init__(self, storage: Storage, run: StorageLocation, directory: Path) -> None:
        super().__init__()
        self.storage = storage
        self.run = run
        self.directory = directory
        self.trainings: list[Training] = []
        self.attempt = 0
        self.started: set[int] = set()
        self.acknowledged: list[Committed] = []
        self.required: set[CheckpointKey] = set()
        self.damaged: set[CheckpointKey] = set()
        self.verified: set[CheckpointKey] = set()
        self.result: Committed | None = None

    @precondition(lambda self: len(self._alive()) < MOST_ALIVE)
    @rule(new_attempt=st.booleans(), stride=st.integers(1, 3), point=st.sampled_from(list(POINTS)))
    def start_another(self, new_attempt: bool, stride: int, point: str) -> None:
        """The next attempt, or a second process of this one."""
        self.attempt += new_attempt or not self.attempt
        self.trainings.append(Training(self.storage, self.run, self.directory, self.attempt, stride))
        self._advance(self.trainings[-1], point)

    @precondition(lambda self: self._alive())
    @rule(point=st.sampled_from(list(POINTS)))
    def the_youngest_goes_on(self, point: str) -> None:
        """It runs up to one of the POINTS."""
        self._advance(self._alive()[-1], point)

    @precondition(lambda self: len(self._alive()) > 1)
    @rule(data=st.data(), point=st.sampled_from(list(POINTS)))
    def an_older_one_goes_on(self, data: st.DataObject, point: str) -> None:
        """One that should be dead, or that was slow to claim the run."""
        self._advance(data.draw(st.sampled_from(self._alive()[:-1])), point)

    @precondition(lambda self: len(self._alive()) == MOST_ALIVE)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self._alive())).kill()

    @precondition(lambda self: len(self.acknowledged) > 2 and len(self.damaged) < MOST_DAMAGED)
    @rule(data=st.data(), which=st.sampled_from(["model/weights", "state"]), lost=st.booleans())
    def damage(self, data: st.DataObject, which: str, lost: bool) -> None:
        """A file of a checkpoint rots, or is lost."""
        victim = data.draw(st.sampled_from(self._listed()))
        location = victim.folder.join(which)
        if lost:
            self.storage.delete([location])
        else:
            self.storage.write(location, b"rotten")
        self.damaged.add(victim.manifest.key)

    @invariant()
    def what_is_listed_is_one_line_of_complete_checkpoints_and_has_those_to_keep(self) -> None:
        listed = self._listed()
        assert self.required - self.damaged <= {committed.manifest.key for committed in listed}
        self._check_line(listed)
        steps = [committed.manifest.step for committed in listed]
        assert steps == sorted(set(steps))
        there = {item.path for item in self.storage.list_objects(self.run.join(commits.CHECKPOINTS))}
        for committed in listed:
            key = committed.manifest.key
            if key in self.damaged:
                continue
            prefix = committed.folder.uri.removeprefix(f"{self.run.uri}/{commits.CHECKPOINTS}/")
            assert {f"{prefix}/{file.path}" for file in committed.manifest.files} <= there
            if key not in self.verified:
                fetched = checkpoints.fetch(self.storage, committed, self.directory / "verified")
                assert read_back(fetched) == content(key.step, key.claim)
                self.verified.add(key)

    @invariant()
    def the_result_never_changes(self) -> None:
        found = commits.find_result(self.storage, self.run)
        if self.result is not None:
            assert found == self.result
        elif found is not None:
            commits.download(self.storage, found, self.directory / "result")
            self.result = found
        assert {training.result.digest for training in self.trainings if training.result is not None} <= {
            self.result.digest if self.result is not None else ""
        }

    def teardown(self) -> None:
        for training in self.trainings:
            training.kill()
        good = [item for item in self._listed() if item.manifest.key not in self.damaged]
        if self.damaged and not good:
            with pytest.raises(DiagnosedError) as caught:
                start(self.storage, self.run, self.directory, self.attempt + 1)
            assert caught.value.failure.reason is Reason.CHECKPOINT_CORRUPT
            return
        last = start(self.storage, self.run, self.directory, self.attempt + 1)
        assert (last.resumed.committed if last.resumed else None) == (good[-1] if good else None)
        last.save(LAST_STEP + 1)
        assert self._listed() == list(last.kept)

    def _check_line(self, listed: list[Committed]) -> None:
        """After what was acknowledged last comes only what is newer, and before it what it follows."""
        if not self.acknowledged:
            return
        last = self.acknowledged[-1].manifest
        for manifest in (committed.manifest for committed in listed):
            newer = (manifest.claim, manifest.step) > (last.claim, last.step)
            assert newer or manifest == last or manifest.key in last.follows

    def _alive(self) -> list[Training]:
        return [training for training in self.trainings if not training.ended]

    def _listed(self) -> list[Committed]:
        return checkpoints.list_committed(self.storage, self.run)

    def _advance(self, training: Training, point: str) -> None:
        for _ in range(MOST_REQUESTS):
            training.advance()
            self._note(training)
            if training.ended or POINTS[point].match(training.next_request):
                break
        if training.error is not None and not isinstance(training.error, FencedError):
            assert isinstance(training.error, DiagnosedError), training.error
            assert training.error.failure.reason is Reason.CHECKPOINT_CORRUPT
            assert self.damaged

    def _note(self, training: Training) -> None:
        """Take over into the model what the process has learned by its request."""
        process = training.process
        if process is None:
            return
        if process.claim.number not in self.started:
            self.started.add(process.claim.number)
            self._check_resumed(process)
        for committed in process.acknowledged:
            assert committed.manifest.claim == process.claim.number
            self.acknowledged.append(committed)
            best = min(process.kept, key=lambda item: loss_at(item.manifest.step))
            self.required = {item.manifest.key for item in [best, *process.kept[-KEEP:]]}
        process.acknowledged.clear()

    def _check_resumed(self, process: Process) -> None:
        """A process resumes from what was acknowledged last before its claim, or from something newer."""
        resumed = process.resumed
        if resumed is not None:
            key = resumed.committed.manifest.key
            assert read_back(resumed) == content(key.step, key.claim)
        last = self.acknowledged[-1].manifest if self.acknowledged else None
        if last is not None and last.claim < process.claim.number and last.key not in self.damaged:
            assert resumed is not None
            manifest = resumed.committed.manifest
            assert (manifest.claim, manifest.step) >= (last.claim, last.step)


@pytest.mark.timeout(600)
def test_checkpoints_survive_any_order_of_requests(
    bucket: Bucket, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes two and a half minutes beside another worker: some thousands of requests, one at a time."""
    monkeypatch.setattr(commits, "in_parallel", one_by_one)
    numbers = itertools.count()

    def machine() -> CheckpointMachine:
        number = next(numbers)
        return CheckpointMachine(storage, parse_s3(bucket.uri(f"model/{number}")), tmp_path / str(number))

    run_state_machine_as_test(
        cast("Any", machine),  # its types want a class; it calls what it gets
        settings=settings(
            max_examples=16,
            stateful_step_count=30,
            phases=[Phase.generate],  # to shrink a failure takes minutes
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
