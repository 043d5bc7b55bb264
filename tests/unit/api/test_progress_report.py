"""Progress reports in KubeflowCallback's wire form, from senders that may send anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.base import LONGEST_SECONDS
from finetune_api.finetunejob import FineTuneJobStatus, Progress
from finetune_api.pod_contracts.progress import (
    Metric,
    ProgressReport,
    TrainerStatus,
    carried,
    human_duration,
    to_progress,
)

NOW = "2026-11-22T12:00:00.654321+00:00"
"""As the callback writes it: datetime.now(UTC).isoformat()."""


def status(progress_percentage: int | None = None, **metrics: str) -> TrainerStatus:
    return TrainerStatus.from_wire(
        {
            "lastUpdatedTime": NOW,
            "progressPercentage": progress_percentage,
            "metrics": [{"name": name, "value": value} for name, value in metrics.items()],
        }
    )


def shown(**fields: Any) -> Progress:
    return Progress(**{"last_updated_time": datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC), **fields})


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (status(), None),
        (status(current_step="5"), None),
        (status(current_step="5", total_steps="0"), None),
        (status(current_step="5", total_steps="-1"), None),
        (status(current_step="5", total_steps="1e300"), None),
        (status(current_step="5", total_steps="nan"), None),
        (status(total_steps="10"), shown(step=0, total_steps=10, percent=0)),
        (status(current_step="5", total_steps="10"), shown(step=5, total_steps=10, percent=50)),
        (status(40, current_step="5", total_steps="10"), shown(step=5, total_steps=10, percent=40)),
        (status(current_step="15", total_steps="10"), shown(step=10, total_steps=10, percent=100)),
        (status(current_step="-3", total_steps="10"), shown(step=0, total_steps=10, percent=0)),
        (
            status(
                current_step="5",
                total_steps="10",
                current_epoch="0.5",
                loss="1.25",
                eval_loss="nan",
                learning_rate="2e-05",
                tokens_per_second="812.5",
                grad_norm="3.5",
            ),
            shown(
                step=5,
                total_steps=10,
                percent=50,
                epoch=0.5,
                loss=1.25,
                learning_rate=2e-5,
                not_finite=["evalLoss"],
                tokens_per_second=812.5,
            ),
        ),
    ],
    ids=[
        "nothing",
        "no total",
        "no steps at all",
        "a negative total",
        "an absurd total",
        "a total that is no number",
        "the start",
        "the middle",
        "the sender's own percentage",
        "beyond the end",
        "before the start",
        "every metric",
    ],
)
def test_a_report_becomes_the_progress_of_the_status_if_its_steps_make_sense(
    report: TrainerStatus, expected: Progress | None
) -> None:
    assert to_progress(report) == expected


EARLIEST, LATEST = datetime.fromisoformat("2000-01-02"), datetime.fromisoformat("2999-12-30")
metric_names = st.sampled_from(["current_step", "total_steps", "loss", "eval_loss", "eval_step", "learning_rate", "x"])
values = st.text(max_size=20) | st.floats().map(str) | st.integers().map(str)


@given(
    st.lists(st.builds(lambda name, value: Metric(name=name, value=value[:128]), metric_names, values), max_size=8),
    st.none() | st.integers(0, 100),
    st.datetimes(EARLIEST, LATEST, timezones=st.timezones()),
)
def test_any_report_that_parses_gives_a_progress_that_a_status_can_hold(
    metrics: list[Metric], percent: int | None, moment: datetime
) -> None:
    report = TrainerStatus(progress_percentage=percent, metrics=metrics, last_updated_time=moment)
    progress = to_progress(report)
    if progress is not None:
        assert 0 <= progress.step <= progress.total_steps < 2**31
        assert 0 <= progress.percent <= 100
        wire = FineTuneJobStatus(progress=progress).to_wire()
        assert FineTuneJobStatus.from_wire(wire).progress == progress


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_what_is_no_report_is_a_validation_error_and_nothing_else(body: Any) -> None:
    for report in (body, {"trainerStatus": body}, {"trainerStatus": {"lastUpdatedTime": body}}):
        try:
            to_progress(ProgressReport.model_validate(report).trainer_status)
        except ValidationError as error:
            assert error.error_count() > 0


@pytest.mark.parametrize(
    ("now", "before", "remaining"),
    [
        (shown(step=50, total_steps=100, percent=50), None, None),
        (
            shown(step=50, total_steps=100, percent=50),
            shown(step=60, total_steps=100, percent=60, estimated_remaining_seconds=80),
            100,
        ),
        # Carried once more.
        (
            shown(step=50, total_steps=100, percent=50),
            shown(step=50, total_steps=100, percent=50, estimated_remaining_seconds=100),
            100,
        ),
        # The attempt's own speed counts.
        (
            shown(step=51, total_steps=100, percent=51, estimated_remaining_seconds=7),
            shown(step=50, total_steps=100, percent=50, estimated_remaining_seconds=100),
            7,
        ),
        (shown(step=50, total_steps=100, percent=50), shown(step=60, total_steps=100, percent=60), None),
        (
            shown(step=90, total_steps=100, percent=90),
            shown(step=100, total_steps=100, percent=100, estimated_remaining_seconds=0),
            None,
        ),
    ],
)
def test_right_after_a_resume_the_remaining_time_is_at_the_speed_before(
    now: Progress, before: Progress | None, remaining: int | None
) -> None:
    found = carried(now, before)
    assert found.estimated_remaining_seconds == remaining
    assert found.estimated_remaining == (None if remaining is None else f"{remaining}s")


def test_right_after_a_resume_the_losses_are_those_before_until_a_step_is_logged() -> None:
    before = shown(step=60, total_steps=100, percent=60, loss=1.5, eval_loss=1.7, learning_rate=2e-4)
    resumed = carried(shown(step=50, total_steps=100, percent=50), before)
    assert (resumed.step, resumed.loss, resumed.eval_loss, resumed.learning_rate) == (50, 1.5, 1.7, 2e-4)
    logged = carried(shown(step=55, total_steps=100, percent=55, loss=1.6, learning_rate=1e-4), resumed)
    assert (logged.loss, logged.eval_loss, logged.learning_rate) == (1.6, 1.7, 1e-4)
    assert carried(shown(step=1, total_steps=100, percent=1), None).loss is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (425, "7m5s"),
        (600, "10m"),
        (2579, "42m"),
        (10799, "179m"),
        (10800, "3h"),
        (12000, "3h20m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (691200, "8d"),
        (LONGEST_SECONDS, "3660d"),
    ],
)
def test_a_duration_is_written_as_kubectl_writes_ages(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def test_a_speed_of_zero_is_none_yet() -> None:
    found = to_progress(status(current_step="5", total_steps="10", tokens_per_second="0"))
    assert found is not None and found.tokens_per_second is None


@pytest.mark.parametrize("number", ["1e999", "Infinity", "NaN"])
def test_a_ledger_says_how_long_saves_took_in_a_number_or_not_at_all(number: str) -> None:
    body = f'{{"trainerStatus":{{"lastUpdatedTime":"{NOW}"}},"ledger":{{"checkpointSeconds":{number}}}}}'
    ledger = ProgressReport.model_validate_json(body).ledger
    assert ledger is not None
    assert ledger.checkpoint_seconds is None


def test_a_ledger_with_a_number_that_no_status_can_hold_is_refused() -> None:
    checkpoint = {"step": 10**30, "uri": "s3://models/a"}
    with pytest.raises(ValidationError, match="64 bits"):
        ProgressReport.from_wire({"trainerStatus": {"lastUpdatedTime": NOW}, "ledger": {"checkpoints": [checkpoint]}})


def test_a_report_that_names_a_candidate_twice_is_refused() -> None:
    """A status holds one item of each name: the API server would refuse all of it."""
    counts = [{"candidate": "tuned", "outputs": number, "total": 20} for number in (1, 2)]
    body = {"trainerStatus": {"lastUpdatedTime": NOW}, "candidates": counts}
    with pytest.raises(ValidationError, match="different names"):
        ProgressReport.from_wire(body)


def test_a_validation_loss_comes_with_the_step_at_which_it_was_measured() -> None:
    found = reported(eval_loss="1.7", eval_step="4")
    assert (found.step, found.eval_loss, found.eval_step) == (5, 1.7, 4)
    later = carried(reported(loss="1.5"), found)
    assert (later.eval_loss, later.eval_step) == (1.7, 4), "both of them, or neither"
    older = carried(reported(eval_loss="1.6"), found)
    assert (older.eval_loss, older.eval_step) == (1.6, None), "its sender does not say"


def test_signs_of_hacking_are_kept_until_the_next_evaluation() -> None:
    found = reported(valid_reward="0.3", reward_gap="0.25", completion_growth="3.5", eval_step="4")
    assert (found.reward_gap, found.completion_growth) == (0.25, 3.5)
    later = carried(reported(reward="0.6"), found)
    assert (later.reward_gap, later.completion_growth, later.eval_step) == (0.25, 3.5, 4)


@pytest.mark.parametrize("step", ["-1", "11", "nan", "inf", "x", ""])
def test_a_step_that_makes_no_sense_is_unknown(step: str) -> None:
    assert reported(eval_loss="1.7", eval_step=step).eval_step is None


def test_a_metric_that_became_nan_does_not_keep_its_last_number() -> None:
    before = carried(reported(loss="1.5", learning_rate="1e-4"), None)
    broken = carried(reported(loss="nan", learning_rate="inf"), before)
    assert (broken.loss, broken.learning_rate, broken.not_finite) == (None, None, ["loss", "learningRate"])
    silent = carried(reported(), broken)
    assert (silent.loss, silent.not_finite) == (None, ["loss", "learningRate"]), "it says nothing new"
    mended = carried(reported(loss="2.5"), silent)
    assert (mended.loss, mended.not_finite) == (2.5, ["learningRate"])


def reported(**metrics: str) -> Progress:
    found = to_progress(status(current_step="5", total_steps="10", **metrics))
    assert found is not None
    return found
