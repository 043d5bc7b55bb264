"""A step is saved before it is evaluated: what ends the process in an evaluation costs nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetunejob import Adapter, Best, Checkpoints, EarlyStopping, LoRA, ValidationData
from finetune_api.pod_contracts.progress import CheckpointReport, TrainerStatus
from finetune_api.pod_contracts.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train.callbacks import StopOnSigterm
from tests.integration.trainer.runs import Workplace, question, train_here

DEADLINE_SECONDS = 120.0

SETTINGS: dict[str, Any] = {"checkpoint_every_steps": 4, "epochs": 1.0, "learning_rate": 1e-3}
LORA = Adapter(lora=LoRA(rank=4, dropout=0.1))


class PowerCutError(BaseException):
    """Nothing of the process goes on after it, as after a SIGKILL."""


class Reports:
    """The newest checkpoint of each progress report; -1 before the first one."""

    def __init__(self) -> None:
        self.saved: list[int] = []

    def send(self, status: TrainerStatus, checkpoint_report: CheckpointReport | None = None) -> None:
        committed = [] if checkpoint_report is None else checkpoint_report.checkpoints
        self.saved.append(max((one.step for one in committed), default=-1))

    def close(self) -> None:
        pass


@pytest.fixture
def in_evaluation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """Do something at the first batch of the evaluation of a step."""
    before = StopOnSigterm.on_prediction_step
    planned: dict[int, Callable[[], None]] = {}

    def on_prediction_step(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        planned.pop(state.global_step, lambda: None)()
        before(self, args, state, control, **kwargs)

    monkeypatch.setattr(StopOnSigterm, "on_prediction_step", on_prediction_step)
    yield planned.__setitem__


def measured(workplace: Workplace, output: str) -> list[tuple[str, str, str]]:
    return [(row["step"], row["train_loss"], row["valid_loss"]) for row in workplace.results(output)]


def told_to_stop(storage: Storage, run: TrainRun, step: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def power_cut(storage: Storage, run: TrainRun, step: int) -> None:
    """In a long evaluation: the step's save has been stored meanwhile."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while newest(storage, run) < step and time.monotonic() < deadline:
        time.sleep(0.05)
    raise PowerCutError


def newest(storage: Storage, run: TrainRun) -> int:
    return max(
        (item.manifest.step for item in checkpoints.list_committed(storage, parse_s3(run.output_uri))), default=0
    )


@pytest.fixture(scope="module")
def smooth(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """What a run measures that nobody disturbs."""
    train_here(workplace.train_run("evaluated/smooth", SETTINGS, adapter=LORA), tmp_path_factory.mktemp("smooth"))
    return measured(workplace, "evaluated/smooth")


@pytest.mark.parametrize(("end", "error"), [(told_to_stop, DisruptedError), (power_cut, PowerCutError)])
@pytest.mark.parametrize("step", [4, 10], ids=["in between", "at the end"])
def test_a_process_that_ends_in_an_evaluation_loses_no_step_and_it_is_made_up_for(
    workplace: Workplace,
    storage: Storage,
    smooth: list[tuple[str, str, str]],
    tmp_path: Path,
    in_evaluation: Callable[[int, Callable[[], None]], None],
    end: Callable[[Storage, TrainRun, int], None],
    error: type[BaseException],
    step: int,
) -> None:
    name = f"evaluated/{error.__name__}-{step}"
    run = workplace.train_run(name, SETTINGS, adapter=LORA, checkpoints=Checkpoints(best=Best()))
    in_evaluation(step, lambda: end(storage, run, step))
    reports = Reports()
    with pytest.raises(error):
        train_here(run, tmp_path / "first", reports)
    assert newest(storage, run) == step
    if error is DisruptedError:
        assert reports.saved[-1] == step, "the last report tells of the last save"

    report = train_here(run.model_copy(update={"attempt": 2}), tmp_path / "second")
    assert measured(workplace, name) == smooth
    losses = {int(at): float(valid) for at, _, valid in smooth if valid}
    assert set(losses) == {4, 8, 10}
    assert report.result.step == min(losses, key=lambda at: losses[at])
    assert report.result.eval_loss == losses[report.result.step]
    assert {item.step: item.metric for item in report.checkpoints} == losses


@pytest.mark.parametrize("step", [4, 8])
def test_a_step_that_was_evaluated_is_not_evaluated_again(
    workplace: Workplace,
    storage: Storage,
    smooth: list[tuple[str, str, str]],
    tmp_path: Path,
    in_evaluation: Callable[[int, Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """The attempt ends after the evaluation of a step, before the next checkpoint."""
    name = f"evaluated/once-{step}"
    run = workplace.train_run(name, SETTINGS, adapter=LORA, checkpoints=Checkpoints(best=Best()))
    at_step_end = StopOnSigterm.on_step_end

    def cut(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step + 1:
            power_cut(storage, run, step)
        at_step_end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(StopOnSigterm, "on_step_end", cut)
        with pytest.raises(PowerCutError):
            train_here(run, tmp_path / "first")
    assert newest(storage, run) == step

    again: list[int] = []
    in_evaluation(step, lambda: again.append(step))
    report = train_here(run.model_copy(update={"attempt": 2}), tmp_path / "second")
    assert again == []
    assert measured(workplace, name) == smooth
    losses = {int(at): float(valid) for at, _, valid in smooth if valid}
    assert {item.step: item.metric for item in report.checkpoints} == losses


def test_a_run_that_ends_by_the_evaluation_that_was_cut_off_takes_no_more_steps(
    workplace: Workplace, tmp_path: Path, in_evaluation: Callable[[int, Callable[[], None]], None]
) -> None:
    dataset = workplace.dataset(
        validation=ValidationData(
            uri=workplace.bucket.put_lines("data/short.jsonl", [question(number) for number in range(60, 63)])
        )
    )
    settings = {
        **SETTINGS,
        "epochs": 6.0,
        "learning_rate": 0.05,
        "schedule": "Constant",
        "early_stopping": EarlyStopping(patience=1),
    }
    smooth = workplace.train_run("over/smooth", settings, dataset=dataset)
    train_here(smooth, tmp_path / "smooth")
    last = max(int(step) for step, _, valid in measured(workplace, "over/smooth") if valid)
    assert last < 60

    run = workplace.train_run("over/cut", settings, dataset=dataset)
    in_evaluation(last, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(DisruptedError):
        train_here(run, tmp_path / "first")
    report = train_here(run.model_copy(update={"attempt": 2}), tmp_path / "second")
    assert measured(workplace, "over/cut") == measured(workplace, "over/smooth")
    assert report.checkpoints[-1].step == last
