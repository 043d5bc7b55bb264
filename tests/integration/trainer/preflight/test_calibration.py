"""Before an accelerator is asked for, the starting model answers some prompts: a run that can't learn ends there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RFT, Dataset, Hyperparameters, Method, TrainingData, ValidationData
from finetune_api.pod_contracts.run import PreflightRun
from finetune_trainer.generate import generation
from finetune_trainer.methods.rft import calibration
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer.runs import Workplace

EXACT = {"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item.answer}}"}}
CLOSE = {
    "name": "close",
    "type": "TextSimilarity",
    "textSimilarity": {"reference": "{{item.answer}}", "metric": "FuzzyMatch"},
}


def asked(workplace: Workplace, output: str, reward: str, digits: int = 8, epochs: int = 4) -> PreflightRun:
    """Prompts to repeat a digit, of which the tiny model never makes eight in a row."""

    def put(name: str, numbers: range) -> str:
        lines = [
            {
                "messages": [{"role": "user", "content": f"Repeat {number % 10}"}],
                "answer": f"{number % 10}" * digits,
                "id": number,
            }
            for number in numbers
        ]
        return workplace.bucket.put_lines(f"data/{output}-{name}.jsonl", lines)

    settings = {"graders": [EXACT, CLOSE], "reward": reward, "completionsPerPrompt": 4, "maxCompletionTokens": 8}
    return workplace.preflight_run(
        output,
        method=Method(type="RFT", rft=RFT.from_wire(settings)),
        hyperparameters=Hyperparameters(epochs=epochs),
        dataset=Dataset(
            training=TrainingData(uri=put("prompts", range(20))),
            validation=ValidationData(uri=put("held-out", range(20, 30))),
        ),
    )


def no_model(*_: Any) -> Any:
    raise AssertionError("the model is loaded again")


def test_rewards_that_differ_are_reported_with_their_histogram(workplace: Workplace, tmp_path: Path) -> None:
    report = preflight(asked(workplace, "calibrated", "close"), tmp_path)
    found = report.calibration
    assert found is not None
    assert found.not_measured is None
    assert calibration.LEAST_PROMPTS <= found.prompts < 64  # that they differ is settled before all are answered
    assert sum(found.histogram) == 4 * found.prompts
    assert found.alike < found.prompts
    assert found.mean_reward is not None
    assert 0 < found.mean_reward < 1
    stored = json.loads(workplace.bucket.read(workplace.bucket.uri("calibrated/preflight.json")))
    assert stored["calibration"]["histogram"] == found.histogram


def test_a_model_that_is_never_right_is_refused_and_measured_once(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asked(workplace, "no-signal", "exact")
    with pytest.raises(DiagnosedError) as caught:
        preflight(run, tmp_path / "first")
    failure = caught.value.failure
    assert failure.reason is Reason.REWARD_HAS_NO_SIGNAL
    assert "For 64 of the first 64 prompts, all 4 answers of the model have the same reward (mean reward: 0.000)" in (
        failure.message
    )
    assert "train the task with method.type SFT first" in failure.message

    monkeypatch.setattr(generation, "load_generator", no_model)
    with pytest.raises(DiagnosedError, match="have the same reward"):
        preflight(run, tmp_path / "second")
    asked(workplace, "no-signal", "exact", digits=1)  # the prompts at the same place are now others
    with pytest.raises(AssertionError, match="loaded again"):
        preflight(run, tmp_path / "third")


def test_a_run_of_fewer_prompts_than_are_judged_is_not_refused(workplace: Workplace, tmp_path: Path) -> None:
    """As training would not refuse it: 20 prompts, each twice, are too few to tell."""
    report = preflight(asked(workplace, "few", "exact", epochs=2), tmp_path)
    assert report.calibration is not None
    assert (report.calibration.prompts, report.calibration.alike) == (40, 40)


def test_a_reward_that_cant_be_computed_is_refused_too(workplace: Workplace, tmp_path: Path) -> None:
    with pytest.raises(DiagnosedError) as caught:
        preflight(asked(workplace, "ungraded", "close / exact"), tmp_path)
    assert caught.value.failure.reason is Reason.GRADER_FAILED
    assert "256 of 256 completions could not be graded" in caught.value.failure.message


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("MOST_SECONDS", 1e-4, "minutes on"), ("MOST_DOWNLOADED", 1000, "and preflight fetches")],
)
def test_what_takes_too_much_is_left_to_training(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: float, told: str
) -> None:
    monkeypatch.setattr(generation, "load_generator", no_model)
    monkeypatch.setattr(calibration, setting, value)
    report = preflight(asked(workplace, f"left-{setting}", "exact"), tmp_path)
    assert report.calibration is not None
    assert told in str(report.calibration.not_measured)


def test_answers_that_take_too_long_are_given_up(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock says so after the first token."""
    monkeypatch.setattr(calibration, "OPERATIONS_PER_SECOND", float("inf"))
    monkeypatch.setattr(calibration, "MOST_SECONDS", 0.0)
    report = preflight(asked(workplace, "given-up", "exact"), tmp_path)
    assert report.calibration is not None
    assert report.calibration.not_measured == "no prompt was answered within 0 seconds"


def test_other_methods_have_no_rewards(workplace: Workplace, tmp_path: Path) -> None:
    assert preflight(workplace.preflight_run("sft"), tmp_path).calibration is None
