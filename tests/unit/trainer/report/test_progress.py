"""Reports of progress to an HTTPS endpoint, which may be slow, broken or absent: training never notices."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from finetune_api.base import LONGEST_SECONDS
from finetune_api.finetunejob import CheckpointStatus
from finetune_api.pod_contracts.progress import CheckpointReport, ProgressReport, TrainerStatus, to_progress
from finetune_api.pod_contracts.run import ProgressTarget
from finetune_trainer.report import progress
from finetune_trainer.report.progress import CONNECT_TRIES, Clock, ProgressSender, to_trainer_status


@dataclass
class Operator:
    """An HTTPS server that keeps what it is told."""

    url: str = ""
    ca: Path = Path()
    answer: int = 200
    received: list[tuple[str, ProgressReport]] = field(default_factory=list)

    def steps(self) -> list[int]:
        statuses = [to_progress(report.trainer_status) for _, report in self.received]
        return [status.step for status in statuses if status is not None]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(ca=tmp_path / "ca.crt")
    key_file = self_signed(operator.ca)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            operator.received.append((self.headers["Authorization"], ProgressReport.from_wire(json.loads(body))))
            self.send_response(operator.answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(operator.ca, key_file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    operator.url = f"https://localhost:{server.server_port}/progress/7f0e"
    yield operator
    server.shutdown()
    server.server_close()


def self_signed(file: Path) -> Path:
    """A certificate for localhost that is its own authority; answers its key's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = file.with_suffix(".key")
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return key_file


def sender(operator: Operator, directory: Path, interval: float = 0.05) -> ProgressSender:
    token = directory / "token"
    token.write_text("a-token\n")
    return ProgressSender(ProgressTarget(url=operator.url), token=token, ca=operator.ca, interval=interval)


def report(step: int) -> TrainerStatus:
    return to_trainer_status({"current_step": step, "total_steps": 10, "loss": 1.5}, 30)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_first_report_arrives_at_once_with_the_token(operator: Operator, tmp_path: Path) -> None:
    sending = sender(operator, tmp_path, interval=60)
    sending.send(report(0))
    wait(lambda: operator.received)
    authorization, received = operator.received[0]
    assert authorization == "Bearer a-token"
    found = to_progress(received.trainer_status)
    assert found is not None
    assert (found.step, found.total_steps, found.percent, found.loss) == (0, 10, 0, 1.5)
    assert found.estimated_remaining_seconds == 30
    sending.close()


def test_only_the_newest_waits_and_the_last_one_is_always_sent(operator: Operator, tmp_path: Path) -> None:
    sending = sender(operator, tmp_path, interval=60)
    sending.send(report(0))
    wait(lambda: operator.received)
    for step in range(1, 11):
        sending.send(report(step))
    sending.close()
    assert operator.steps() == [0, 10]


def test_a_renewed_token_is_used(operator: Operator, tmp_path: Path) -> None:
    sending = sender(operator, tmp_path)
    sending.send(report(0))
    wait(lambda: operator.received)
    (tmp_path / "token").write_text("renewed")
    sending.send(report(1))
    sending.close()
    assert [authorization for authorization, _ in operator.received] == ["Bearer a-token", "Bearer renewed"]


def test_an_operator_that_refuses_is_reported_once(
    operator: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.answer = 503
    sending = sender(operator, tmp_path, interval=0.01)
    for step in range(3):
        sending.send(report(step))
        wait(lambda step=step: len(operator.received) > step)
    sending.close()
    assert capsys.readouterr().out.count("progress can't be reported") == 1


LEDGER = CheckpointReport(checkpoints=[CheckpointStatus(step=5, uri="s3://m/step-000005")], checkpoint_seconds=1.5)


def test_the_newest_ledger_goes_with_every_report(operator: Operator, tmp_path: Path) -> None:
    sending = sender(operator, tmp_path, interval=0.01)
    for step, ledger in enumerate([None, LEDGER, None]):
        sending.send(report(step), ledger)
        wait(lambda step=step: len(operator.received) > step)
    sending.close()
    assert [received.ledger for _, received in operator.received] == [None, LEDGER, LEDGER]


@contextlib.contextmanager
def refusing_first(port: int, refusals: int) -> Iterator[list[int]]:
    """A Service in front of two replicas: the first connections meet the one that does not listen."""
    refused: list[int] = []
    connect = urllib3.connection.HTTPSConnection._new_conn

    def new_connection(self: urllib3.connection.HTTPSConnection) -> socket.socket:
        if len(refused) < refusals:
            refused.append(port)
            raise urllib3.exceptions.NewConnectionError(self, "Connection refused")
        return connect(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib3.connection.HTTPSConnection, "_new_conn", new_connection)
        yield refused


@pytest.mark.parametrize(("refusals", "arrives"), [(1, True), (CONNECT_TRIES - 1, True), (CONNECT_TRIES, False)])
def test_a_refused_connection_is_tried_again_at_once(
    operator: Operator, tmp_path: Path, refusals: int, arrives: bool
) -> None:
    with refusing_first(443, refusals) as refused:
        sending = sender(operator, tmp_path, interval=60)
        sending.send(report(3))
        wait(lambda: operator.received or len(refused) == CONNECT_TRIES)
        sending.close()
    assert len(refused) == refusals
    assert operator.steps() == ([3] if arrives else [])


def test_the_last_report_meets_the_replica_that_listens_too(operator: Operator, tmp_path: Path) -> None:
    with refusing_first(443, CONNECT_TRIES - 1):
        sending = sender(operator, tmp_path, interval=60)
        sending.send(report(3))
        sending.close()
    assert operator.steps() == [3]


@pytest.mark.parametrize("trouble", ["no server", "no token", "unknown authority"])
def test_training_never_waits_and_never_fails(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(progress, "LAST_POST_SECONDS", 1.0)
    sending = sender(operator, tmp_path)
    if trouble == "no server":
        operator.url = "https://localhost:9/progress"
        sending = sender(operator, tmp_path)
    elif trouble == "no token":
        (tmp_path / "token").unlink()
    else:
        operator.ca = tmp_path / "absent"
        sending = sender(operator, tmp_path)
    began = time.monotonic()
    sending.send(report(1))
    assert time.monotonic() - began < 0.5
    sending.close()
    assert operator.received == []


def test_the_time_that_remains_is_that_of_this_attempts_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(step=90, tokens=9000)
    assert clock.remaining_seconds(90, 100) is None
    now[0] += 10.0
    assert clock.remaining_seconds(95, 100) == 10
    assert clock.tokens_per_second(9500) == pytest.approx(50.0)
    for seconds, told in ((LONGEST_SECONDS, LONGEST_SECONDS), (LONGEST_SECONDS + 1, None)):
        status = to_trainer_status({"current_step": 1, "total_steps": 2_000_000}, seconds)
        assert status.estimated_remaining_seconds == told, "a slow first step of very many ends no training"


def test_a_hundred_percent_is_only_at_the_end() -> None:
    percents = [
        to_trainer_status({"current_step": step, "total_steps": 1000}, None).progress_percentage
        for step in (0, 999, 1000)
    ]
    assert percents == [0, 99, 100]
