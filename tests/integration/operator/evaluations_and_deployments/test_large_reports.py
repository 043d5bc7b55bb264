"""8 graders x 4 candidates x slices: the Pod sends its report over real TLS by the trainer's own code.

Nothing of it is lost, whenever the operator is killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from finetune_api.evaluation import GatedSliceStatus, Score, SliceScore
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_trainer.supervision.report_delivery import deliver
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object
from tests.integration.operator.finetunejobs.test_progress import token
from tests.integration.operator.jobs import EVALUATION
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.serving import is_trained

BY, LANGUAGES = "{{item.language}}", [f"language-{at}" for at in range(16)]
GRADERS = [f"grader-{at}" for at in range(8)]
CANDIDATES = ["tuned", "second", "third", "fourth"]
SPEC: Object = {
    **EVALUATION,
    "candidates": [
        EVALUATION["candidates"][0],
        *({"name": name, "model": {"uri": f"s3://models/{name}"}} for name in CANDIDATES[1:]),
    ],
    "dataset": {"uri": "s3://data/test.jsonl", "slices": [BY]},
    "graders": [{"name": name, "type": "StringCheck", "stringCheck": {}} for name in GRADERS],
    "gates": [
        {"grader": "grader-7", "minimum": 0.3, "slice": {"by": BY, "value": language}} for language in LANGUAGES[-2:]
    ],
}
NUMBERS = {"low": 0.4, "high": 0.6, "examples": 250}
WHOLE = EvaluationReport(
    scores=[
        Score(candidate=name, grader=grader, score=0.5, **NUMBERS)
        for name in ("baseline", *CANDIDATES)
        for grader in GRADERS
    ],
    slices=[
        SliceScore(by=BY, value=language, candidate=name, grader=grader, score=0.5, **NUMBERS)
        for language in LANGUAGES
        for name in CANDIDATES
        for grader in GRADERS
    ],
    gated_slices=[GatedSliceStatus(by=BY, value=one, grader="grader-7", examples=250) for one in LANGUAGES[-2:]],
    warnings=["w" * 1000] * 9,
)


class Evaluator:
    """The Pod: it runs the trainer's code of the end, in a thread."""

    def __init__(self, api: Api, folder: Path, name: str = "router", spec: Object = SPEC) -> None:
        self.api = api
        evaluation = api.create("Evaluation", name, spec)
        (self.pod,) = api.wait_children(evaluation, "evaluate", "Pod")
        files = played.run_files(api, self.pod)
        self.run = EvaluateRun.model_validate_json(files["run.json"])
        self._ca, self._token = folder / f"{name}.crt", folder / f"{name}.token"
        self._ca.write_text(files["progress-ca.crt"])
        self._token.write_text(token(api, self.pod))
        self._threads = ThreadPoolExecutor(1)

    def delivers(self, report: EvaluationReport = WHOLE) -> Future[EvaluationReport]:
        return self._threads.submit(deliver, report, self.run.progress, token=self._token, ca=self._ca, seconds=120)

    def ends(self, said: EvaluationReport) -> None:
        played.ends(self.api, self.pod, to_termination_message(said))


@pytest.fixture
def evaluator(api: Api, operator: OperatorProcess, tmp_path: Path) -> Iterator[Evaluator]:
    is_trained(api)
    yield Evaluator(api, tmp_path)


def expect_everything(api: Api) -> None:
    status = api.wait_reason("Evaluation", "router", "Evaluated")["status"]
    assert status["results"] == [score.to_wire() for score in WHOLE.scores]
    assert status["slices"] == [score.to_wire() for score in WHOLE.slices]
    assert status["warnings"] == WHOLE.warnings
    assert [gate["verdict"] for gate in status["gates"]] == ["Passed"] * 8
    assert "sentReport" not in status


def test_more_than_a_termination_message_holds_arrives_whole(api: Api, evaluator: Evaluator) -> None:
    said = evaluator.delivers().result(120)
    message = to_termination_message(said)
    assert len(message) <= 4096 < len(json.dumps([score.to_wire() for score in WHOLE.scores]))
    during = api.get("Evaluation", "router")["status"]
    assert (during["phase"], during["sentReport"]["digest"]) == ("Evaluating", said.sent_digest)
    assert "results" not in during
    evaluator.ends(said)
    expect_everything(api)


def test_an_operator_that_is_killed_before_during_and_after_it_loses_nothing(
    api: Api, evaluator: Evaluator, operator: OperatorProcess
) -> None:
    operator.kill()
    sending = evaluator.delivers()
    operator.start()
    said = sending.result(120)
    operator.kill()
    evaluator.ends(said)
    operator.start()
    expect_everything(api)


def test_a_pod_reports_for_its_own_try_alone(
    api: Api, evaluator: Evaluator, operator: OperatorProcess, tmp_path: Path
) -> None:
    other = Evaluator(api, tmp_path, "other")
    evaluator.run = other.run
    assert evaluator.delivers().exception(120) is not None, "403: it is not sent again"
    assert "sentReport" not in api.get("Evaluation", "other")["status"]


def test_what_the_pod_did_not_end_with_never_counts(api: Api, evaluator: Evaluator) -> None:
    evaluator.delivers().result(120)
    forged: dict[str, Any] = {"scores": [], "sent_digest": "sha256:" + "0" * 64}
    evaluator.ends(EvaluationReport(**forged))
    retrying = api.wait_reason("Evaluation", "router", "ReportUndelivered")["status"]
    assert (retrying["phase"], retrying["retries"]) == ("Retrying", 1)
    assert "results" not in retrying
