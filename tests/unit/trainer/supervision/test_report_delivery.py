"""An evaluation's whole report is sent until the operator has stored it; without an operator, what fits is reported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import Score
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import ProgressTarget
from finetune_api.pod_contracts.sent_report import digest_of, read_report, write_report
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.supervision import report_delivery
from finetune_trainer.supervision.report_delivery import deliver

STORED, TAKEN = (200, {"stored": True}), (200, {"stored": False})


def report(scores: int, warnings: int = 0) -> EvaluationReport:
    return EvaluationReport(
        scores=[
            Score(candidate=f"c{at % 8}", grader=f"g{at // 8}", score=1 / 3, low=1 / 7, high=2 / 3, examples=250)
            for at in range(scores)
        ],
        warnings=["w" * 900] * warnings,
    )


SMALL, LARGE, MANY = report(4), report(32, warnings=9), report(48, warnings=9)


@dataclass
class Operator:
    """Plays the operator: gives these answers one after another, the last one again and again."""

    url: str = ""
    answers: Sequence[tuple[int, object]] = ()
    received: list[tuple[str, str | None, bytes]] = field(default_factory=list)

    def answer(self) -> tuple[int, object]:
        return self.answers[min(len(self.received), len(self.answers)) - 1]


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.setattr(report_delivery, "LONGEST_PAUSE_SECONDS", 0.5)
    played = Operator()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            played.received.append((self.path, self.headers["Authorization"], body))
            code, answer = played.answer()
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.url = f"http://127.0.0.1:{server.server_address[1]}/attempts/x"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield played
    server.shutdown()
    server.server_close()
    thread.join()


def sent(operator: Operator, whole: EvaluationReport, folder: Path, seconds: float = 60) -> EvaluationReport:
    token = folder / "token"
    token.write_text("secret\n")
    return deliver(whole, ProgressTarget(url=operator.url), token=token, ca=folder / "none", seconds=seconds)


def test_it_is_sent_until_the_operator_has_stored_it(operator: Operator, tmp_path: Path) -> None:
    """503: the token can't be reviewed now; what is no answer comes from a proxy before an operator that restarts."""
    operator.answers = [TAKEN, (503, {}), (200, "starting"), (429, {}), TAKEN, STORED]
    said = sent(operator, MANY, tmp_path)
    assert len(operator.received) == 6
    assert {(path, token) for path, token, _ in operator.received} == {("/attempts/x/report", "Bearer secret")}
    (body,) = {body for _, _, body in operator.received}
    assert read_report(body) == MANY
    assert said == MANY.model_copy(update={"sent_digest": digest_of(write_report(MANY))})


def test_what_fits_into_a_termination_message_is_not_sent(operator: Operator, tmp_path: Path) -> None:
    assert sent(operator, SMALL, tmp_path) == SMALL
    assert operator.received == []


@pytest.mark.parametrize("code", [404, 403, 413])
def test_an_operator_that_never_takes_it_is_not_asked_again(operator: Operator, tmp_path: Path, code: int) -> None:
    """One of an earlier version."""
    operator.answers = [(code, {})]
    assert sent(operator, LARGE, tmp_path) == LARGE
    assert len(operator.received) == 1


def test_without_an_operator_the_message_has_every_score_or_the_try_fails_and_may_be_repeated(
    operator: Operator, tmp_path: Path
) -> None:
    operator.answers = [TAKEN]
    assert sent(operator, LARGE, tmp_path, seconds=1) == LARGE
    assert deliver(LARGE, None) == LARGE
    for target in (ProgressTarget(url="http://127.0.0.1:9"), None):
        with pytest.raises(DiagnosedError, match="The report has 48 scores, more than fit into") as caught:
            deliver(MANY, target, token=tmp_path / "token", ca=tmp_path / "none", seconds=1)
        assert (caught.value.failure.reason, caught.value.failure.retryable) == (Reason.REPORT_UNDELIVERED, True)
