"""A save that breaks at any of its requests: what is resumed from is committed, the losses are the undisturbed ones.

Between the training and the real S3 stands a proxy, which kills the training at the k-th request of a save, for one of
each kind, or breaks the answer, for every k.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetunejob import Adapter, Checkpoints, LoRA
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.checkpoint.saving import CheckpointWriter, Save
from finetune_trainer.storage import commits
from finetune_trainer.storage.storage import Storage
from tests.integration import forked
from tests.integration.trainer.runs import Workplace, train_here
from tests.integration.trainer.storage.s3_proxy import (
    Answer,
    CutBody,
    DropAnswer,
    Fault,
    Kill,
    ResetConnection,
    S3Proxy,
    s3_proxy,
)

DEADLINE_SECONDS = 120.0
STEPS, EVERY, BROKEN = 8, 3, 6
"""The save of step 6 breaks: there is one before it, which it makes outdated, and one after it."""
MOST_REQUESTS = 19
"""Of that save: claim, 5 files, manifest, claim, listing, 6 removals, listing of uploads, claim, events, results."""
ONE_OF_EACH_KIND = (1, 4, 7, 8, 9, 12, 16, 17, 18, 19)
"""Of those. Killed before and after each single one of them, the save alone is in test_faults.py."""

forked.preload("finetune_trainer.train.train", "tests.integration.trainer.runs")


@pytest.fixture(scope="module")
def proxy(workplace: Workplace) -> Iterator[S3Proxy]:
    with s3_proxy(str(workplace.bucket.storage.endpoint)) as proxy:
        yield proxy


def short_run(workplace: Workplace, output: str, proxy: S3Proxy | None = None, **changes: Any) -> TrainRun:
    """Eight steps of LoRA with dropout, of which steps 3, 6 and 8 are saved, and the newest is kept."""
    settings: dict[str, Any] = {
        "adapter": Adapter(lora=LoRA(rank=4, dropout=0.1)),
        "dataset": workplace.dataset(validation=None),
        "checkpoints": Checkpoints(keep=1),
        "hyperparameters": {"epochs": STEPS / 10, "checkpoint_every_steps": EVERY},
    }
    run = workplace.train_run(output, **settings | changes)
    endpoint = run.storage.endpoint if proxy is None else proxy.endpoint
    return run.model_copy(update={"storage": run.storage.model_copy(update={"endpoint": endpoint})})


@pytest.fixture(scope="module")
def undisturbed(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    train_here(short_run(workplace, "faults/none"), tmp_path_factory.mktemp("undisturbed"))
    return losses(workplace, "faults/none")


@pytest.fixture(scope="module")
def requests_before(workplace: Workplace, proxy: S3Proxy, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many requests a run sends before those of the save of step 6; and that there are as many of these as said."""
    train_here(short_run(workplace, "faults/counted", proxy), tmp_path_factory.mktemp("counted"))
    saves = [
        number
        for number, request in enumerate(proxy.requests)
        if request.method == "PUT" and "/checkpoints/step-" in request.path and request.path.endswith("manifest.json")
    ]
    assert len(saves) == 3
    begins = [manifest - 6 for manifest in saves]
    assert all("/claims/" in proxy.requests[begin].path for begin in begins)
    assert begins[2] - begins[1] == MOST_REQUESTS
    return begins[1]


def losses(workplace: Workplace, output: str) -> list[tuple[str, str]]:
    return [(row["step"], row["train_loss"]) for row in workplace.results(output)]


def train_when_told(run: TrainRun, directory: Path, told: Event) -> None:
    assert told.wait(DEADLINE_SECONDS)
    train_here(run, directory)


@pytest.mark.parametrize(("k", "forward"), [*((k, False) for k in ONE_OF_EACH_KIND), (MOST_REQUESTS, True)])
def test_a_training_killed_at_any_kind_of_request_of_a_save_goes_on_from_a_committed_one(
    workplace: Workplace,
    storage: Storage,
    proxy: S3Proxy,
    undisturbed: list[tuple[str, str]],
    requests_before: int,
    tmp_path: Path,
    k: int,
    forward: bool,
) -> None:
    """Killed before the storage sees request k, which is after it has done request k - 1; and after the last one."""
    output = f"faults/killed-{k}-{forward}"
    run = short_run(workplace, output, proxy)
    told = forked.context.Event()
    process = forked.start_forked(train_when_told, run, tmp_path / "killed", told)
    proxy.disarm()
    proxy.arm(Kill(int(process.pid or 0), forward=forward), at=requests_before + k)
    told.set()
    process.join(DEADLINE_SECONDS)
    assert process.exitcode == -signal.SIGKILL

    left = checkpoints.list_committed(storage, parse_s3(run.output_uri))
    for committed in left:
        commits.download(storage, committed, tmp_path / "left" / committed.folder.key)
    assert left[-1].manifest.step in (EVERY, BROKEN)
    again = short_run(workplace, output).model_copy(update={"attempt": 2})
    assert train_here(again, tmp_path / "again").result.step == STEPS
    assert losses(workplace, output) == undisturbed


SAVED_AT_EVERY_STEP: dict[str, Any] = {"hyperparameters": {"epochs": MOST_REQUESTS / 10, "checkpoint_every_steps": 1}}
BREAKS: dict[str, Fault] = {
    "500": Answer(500, "InternalError"),
    "503": Answer(503, "SlowDown"),
    "403": Answer(403, "AccessDenied"),
    "short body": CutBody(0),
    "reset": ResetConnection(),
    "lost answer": DropAnswer(),
}


@pytest.fixture(scope="module")
def smooth(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """The losses when nothing breaks."""
    train_here(short_run(workplace, "faults/smooth", **SAVED_AT_EVERY_STEP), tmp_path_factory.mktemp("smooth"))
    return losses(workplace, "faults/smooth")


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
def test_a_save_whose_answers_break_at_any_request_is_committed_and_training_goes_on(
    workplace: Workplace,
    storage: Storage,
    proxy: S3Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    smooth: list[tuple[str, str]],
    fault: Fault,
) -> None:
    """Every step is saved; in the save of step k it is the k-th request that breaks."""
    name = request.node.callspec.id.replace(" ", "-")
    run = short_run(workplace, f"faults/{name}", proxy, **SAVED_AT_EVERY_STEP)
    store = CheckpointWriter.store

    def store_with_fault(writer: CheckpointWriter, save: Save) -> None:
        proxy.disarm()
        proxy.arm(fault, at=save.step)
        store(writer, save)

    monkeypatch.setattr(CheckpointWriter, "store", store_with_fault)
    proxy.forget()
    assert train_here(run, tmp_path / "broken").result.step == MOST_REQUESTS
    assert sum(seen.fault is not None for seen in proxy.requests) >= MOST_REQUESTS - 1
    (committed,) = checkpoints.list_committed(storage, parse_s3(run.output_uri))
    commits.download(storage, committed, tmp_path / "stored")

    proxy.disarm()
    assert losses(workplace, f"faults/{name}") == smooth
