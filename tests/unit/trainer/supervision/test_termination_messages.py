"""How a command's end becomes an exit code and a termination message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetFindings, ModelStatus
from finetune_api.pod_contracts.outcome import (
    EXIT_DISRUPTED,
    EXIT_FAILED,
    EXIT_SUCCEEDED,
    Failure,
    PreflightReport,
    parse_termination_message,
)
from finetune_api.pod_contracts.run import FetchRun
from finetune_api.pod_contracts.termination_message import TERMINATION_MESSAGE_BYTES, to_termination_message
from finetune_operator.pods.builders import pinned
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.supervision import termination_messages
from finetune_trainer.supervision.termination_messages import conclude, conclude_for, last_lines, read_run, run_command

REPORT = PreflightReport(dataset=DatasetFindings(), model=ModelStatus(architecture="Llama", context_length=8))


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kubelet would read it."""
    file = tmp_path / "termination-log"
    file.touch()
    monkeypatch.setattr(termination_messages, "TERMINATION_MESSAGE_PATH", str(file))
    return file


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def told(message: Path) -> Failure:
    outcome = parse_termination_message(message.read_text())
    assert isinstance(outcome, Failure)
    return outcome


def test_success_is_reported(message: Path) -> None:
    assert conclude(lambda: REPORT) == EXIT_SUCCEEDED
    assert parse_termination_message(message.read_text()) == REPORT


def test_a_known_failure_is_reported_to_the_operator_and_to_the_person(
    message: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = DiagnosedError(Reason.DATASET_NOT_FOUND, "Nothing is at s3://data/x.")
    assert conclude(failing(error), rank=3) == EXIT_FAILED
    assert told(message) == Failure(
        reason=Reason.DATASET_NOT_FOUND, message="Nothing is at s3://data/x.", rank=3, retryable=False
    )
    assert capsys.readouterr().err == "DatasetNotFound: Nothing is at s3://data/x.\n"


def test_an_unknown_failure_is_reported_with_the_end_of_its_log_and_may_be_retried(message: Path) -> None:
    assert conclude(failing(ZeroDivisionError("division by zero"))) == EXIT_FAILED
    failure = told(message)
    assert (failure.reason, failure.retryable) == (Reason.FAILED, True)
    assert failure.message.endswith("ZeroDivisionError: division by zero")
    assert "raise error" in failure.message


def test_a_disruption_has_its_exit_code_and_no_message(message: Path) -> None:
    assert conclude(failing(DisruptedError("told to stop"))) == EXIT_DISRUPTED
    assert message.read_text() == ""


def test_a_lost_peer_does_not_hide_what_a_process_of_this_pod_said_before(message: Path) -> None:
    conclude(failing(DiagnosedError(Reason.LOSS_NOT_FINITE, "loss became nan")), rank=1)
    conclude(failing(RuntimeError("Connection closed by peer")), rank=0)
    assert told(message).reason is Reason.LOSS_NOT_FINITE


SAID = Failure(reason=Reason.LOSS_NOT_FINITE, message="loss became nan", rank=1)
BEREFT = Failure(reason=Reason.FAILED, message="a peer ended", lost_peer=True)
UNKNOWN = Failure(reason=Reason.FAILED, message="DataLoader worker is killed", rank=1)
STALLED = Failure(reason=Reason.TRAINING_STALLED, message="no progress", rank=0)
KILLED = Failure(reason=Reason.OUT_OF_MEMORY, message="killed for its memory")


@pytest.mark.parametrize(
    ("said", "seen", "expected"),
    [
        (None, STALLED, STALLED),
        (SAID, STALLED, SAID),
        (BEREFT, STALLED, STALLED),
        (UNKNOWN, STALLED, UNKNOWN),
        (UNKNOWN, KILLED, KILLED),
        (SAID, KILLED, SAID),
    ],
    ids=["nothing", "a diagnosis", "a peer's end", "an error", "an error by an OOM kill", "a diagnosis and a kill"],
)
def test_what_a_process_said_itself_tells_more_than_what_is_seen_of_it(
    message: Path, said: Failure | None, seen: Failure, expected: Failure
) -> None:
    message.write_text(to_termination_message(said) if said else "")
    assert conclude_for(seen, "step 1\n\x1b[32mstep 2\x1b[0m\n") == EXIT_FAILED
    assert told(message) == expected.model_copy(update={"log": "step 1\nstep 2"})


def test_of_a_long_log_the_end_is_kept(message: Path) -> None:
    log = "".join(f"step {number} of a very long training, with its loss and its speed\n" for number in range(9999))
    conclude_for(STALLED, log)
    kept = told(message).log
    assert kept is not None
    assert kept.splitlines()[-1] == "step 9998 of a very long training, with its loss and its speed"
    assert len(kept.splitlines()) >= 20
    assert len(message.read_bytes()) <= TERMINATION_MESSAGE_BYTES
    assert last_lines("") is None


def test_where_there_is_no_file_for_a_message_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination_messages, "TERMINATION_MESSAGE_PATH", str(tmp_path / "none"))
    assert conclude(lambda: REPORT) == EXIT_SUCCEEDED
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"storage": {"region": "x"}, "model": {}, "name": "m"}', "model.uri: Field required"),
        ('{"storage": {"region": "x"}, "model": {"uri": "u"}, "name": "m", "extra": 1}', "extra: Extra inputs"),
        ("{", "Invalid JSON"),
    ],
)
def test_a_wrong_run_configuration_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(DiagnosedError, match=problem) as refused:
        read_run(FetchRun, file)
    assert refused.value.failure.reason is Reason.INVALID_SPEC


def test_a_run_configuration_that_somebody_replaced_is_not_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Pod names its ConfigMap, and whoever may write ConfigMaps may put another one in its place."""
    written = '{"storage": {"region": "x"}, "model": {"uri": "s3://models/tuned"}, "name": "m"}'
    file = tmp_path / "run.json"
    file.write_text(written)
    for name, value in pinned(written).items():
        monkeypatch.setenv(name, value)
    assert read_run(FetchRun, file).model.uri == "s3://models/tuned"
    file.write_text(written.replace("tuned", "other"))
    with pytest.raises(DiagnosedError, match="is not what the operator wrote") as refused:
        read_run(FetchRun, file)
    assert (refused.value.failure.reason, refused.value.failure.retryable) == (Reason.INVALID_SPEC, True)


def test_a_command_gets_a_directory_that_is_gone_afterwards(tmp_path: Path, message: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text('{"storage": {"region": "x"}, "model": {"uri": "u"}, "name": "m"}')
    seen: list[Path] = []

    def command(run: FetchRun, directory: Path) -> None:
        assert run.name == "m"
        assert directory.is_dir()
        seen.append(directory)

    assert run_command(FetchRun, file, command) == EXIT_SUCCEEDED
    assert not seen[0].exists()
