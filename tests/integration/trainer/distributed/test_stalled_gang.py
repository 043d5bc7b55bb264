"""Real processes of torch that hang or are killed: what each tells, and what the operator makes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.cluster.machine.ports import free_ports
from finetune_api.conditions import Reason
from finetune_api.finetunejob import Parallelism
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED, EXIT_FAILED
from finetune_api.pod_contracts.run import TrainRun
from finetune_operator.pods.job_outcome import failure, is_disruption
from finetune_operator.pods.observed import PodView, pod_view
from tests.integration.trainer.runs import Workplace
from tests.integration.trainer.supervision.supervisors import Supervised, is_gone, supervised, wait_for


@dataclass(frozen=True)
class TwoNodes:
    """The supervisors of both nodes."""

    nodes: tuple[Supervised, Supervised]

    def end(self) -> list[int]:
        """The exit codes, by rank."""
        return [node.end()[0] for node in self.nodes]

    def pods(self) -> list[PodView]:
        """What the operator sees of them when both have ended."""
        return [
            pod_view(
                {
                    "metadata": {
                        "name": f"gang-{rank}",
                        "annotations": {"batch.kubernetes.io/job-completion-index": str(rank)},
                    },
                    "status": {
                        "phase": "Failed",
                        "containerStatuses": [
                            {"state": {"terminated": {"exitCode": node.process.returncode, "message": node.message}}}
                        ],
                    },
                }
            )
            for rank, node in enumerate(self.nodes)
        ]

    def diagnosis(self) -> FailureStatus:
        return failure(self.pods(), "")


@pytest.fixture
def gang(tmp_path: Path) -> Iterator[TwoNodes]:
    """Two nodes in their sixtieth step."""
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "RENDEZVOUS_HOST": "localhost",
        "RENDEZVOUS_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(
                supervised("gang", tmp_path / str(rank), {**environment, "JOB_COMPLETION_INDEX": str(rank)})
            )
            for rank in (0, 1)
        )
        for node in (first, second):
            node.beats(step=60)
        yield TwoNodes((first, second))


def trainer(node: Supervised) -> int:
    """The process ID of what the supervisor watches."""
    (beat,) = node.beats()
    return beat.pid


def test_the_rank_that_is_stopped_is_at_fault(gang: TwoNodes) -> None:
    os.kill(trainer(gang.nodes[1]), signal.SIGSTOP)
    assert gang.end() == [EXIT_FAILED, EXIT_FAILED]
    assert gang.nodes[0].told().lost_peer
    found = gang.diagnosis()
    assert (found.reason, found.rank, found.pod) == (Reason.TRAINING_STALLED, 1, "gang-1")
    assert "Its process is stopped" in found.message
    assert not is_disruption(gang.pods(), expected=2)


def test_a_node_that_says_nothing_any_more_is_noticed_by_the_other(gang: TwoNodes) -> None:
    """As when its kernel hangs: its supervisor is stopped too, and ends only with the Pod."""
    os.kill(gang.nodes[1].process.pid, signal.SIGSTOP)
    os.kill(trainer(gang.nodes[1]), signal.SIGSTOP)
    assert gang.nodes[0].end()[0] == EXIT_FAILED
    told = gang.nodes[0].told()
    assert (told.reason, told.rank, told.stopped) == (Reason.TRAINING_STALLED, 0, False)
    assert "waits for another process of the gang" in told.message


def test_a_rank_that_is_killed_from_outside_is_a_disruption(gang: TwoNodes) -> None:
    os.kill(trainer(gang.nodes[1]), signal.SIGKILL)
    assert gang.end() == [EXIT_FAILED, EXIT_DISRUPTED]
    assert gang.nodes[0].told().lost_peer
    assert is_disruption(gang.pods(), expected=2)


def test_a_real_training_beats_and_goes_on_where_it_was_stopped(workplace: Workplace, tmp_path: Path) -> None:
    run = workplace.train_run("stopped", hyperparameters={"epochs": 40.0, "total_steps": 400})
    with trains(run, tmp_path / "first") as node:
        os.kill(node.beats(step=15)[0].pid, signal.SIGSTOP)
        code, output = node.end()
        assert code == EXIT_FAILED, output
        told = node.told()
        assert (told.reason, told.rank, told.stopped) == (Reason.TRAINING_STALLED, 0, True)
        assert told.step is not None
        assert told.step >= 15

    with trains(run.model_copy(update={"attempt": 2}), tmp_path / "second") as node:
        node.beats(step=25)
        node.process.send_signal(signal.SIGTERM)
        code, output = node.end()
        assert code == EXIT_DISRUPTED, output
        assert "Resumed from the checkpoint of step" in output


def test_under_torchruns_agent_too_a_stop_is_a_stall_and_a_kill_a_disruption(
    workplace: Workplace, tmp_path: Path
) -> None:
    run = workplace.train_run(
        "two-processes",
        hyperparameters={"epochs": 40.0, "total_steps": 400},
        parallelism=Parallelism(processes_per_node=2),
    )
    with trains(run, tmp_path / "stopped") as node:
        beats = node.beats(number=2, step=5)
        os.kill(beats[1].pid, signal.SIGSTOP)
        code, output = node.end()
        assert code == EXIT_FAILED, output
        told = node.told()
        assert (told.reason, told.rank, told.stopped) == (Reason.TRAINING_STALLED, 1, True)
        wait_for(lambda: all(is_gone(beat.pid) for beat in beats))

    with trains(run.model_copy(update={"attempt": 2}), tmp_path / "killed") as node:
        os.kill(node.beats(number=2, step=5)[1].pid, signal.SIGKILL)
        code, output = node.end()
        assert code == EXIT_DISRUPTED, output
        assert "killed from outside" in output


def trains(run: TrainRun, folder: Path) -> AbstractContextManager[Supervised]:
    """The real trainer on one node, under a supervisor with short limits."""
    scratch = folder / "tmp"
    scratch.mkdir(parents=True)
    (folder / "run.json").write_text(run.model_dump_json(by_alias=True))
    return supervised("train_node", folder, {**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"})
