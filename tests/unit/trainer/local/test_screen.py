"""What a person sees of a training on a laptop."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog
from rich.console import Console

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetError, DatasetFindings
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.progress import Metric, TrainerStatus
from finetune_trainer.local.screen import Screen, to_duration

METRICS = {"current_step": "12", "total_steps": "300", "loss": "0.25", "eval_loss": "0.5"}


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def screen(*, terminal: bool, width: int = 120) -> tuple[Screen, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, soft_wrap=True, no_color=True, highlight=False)
    return Screen(console), text


def tell(log: structlog.BoundLogger) -> None:
    log.info("reading every line")
    log.info("Checkpoint of step 10 committed", type="checkpoint")
    log.warning("the storage is slow")


def test_in_a_file_every_line_of_the_log_stays() -> None:
    shown, text = screen(terminal=False)
    shown.open()
    tell(structlog.get_logger())
    shown.shut()
    assert text.getvalue().splitlines() == [
        "reading every line",
        "Checkpoint of step 10 committed",
        "the storage is slow",
    ]


def test_on_a_terminal_only_what_matters_stays() -> None:
    shown, text = screen(terminal=True)
    shown.open()
    tell(structlog.get_logger())
    shown.send(
        TrainerStatus(
            estimated_remaining_seconds=185,
            metrics=[
                Metric(name=name, value=value)
                for name, value in {
                    "current_step": "12",
                    "total_steps": "300",
                    "loss": "0.25",
                    "eval_loss": "0.5",
                }.items()
            ],
            last_updated_time=datetime.now(UTC),
        )
    )
    shown.shut()
    lines = text.getvalue()
    assert "12/300" in lines
    assert "loss 0.2500 · validation 0.5000" in lines
    assert "3:05 left" in lines
    assert "\nCheckpoint of step 10 committed\n" in lines.replace("\x1b[2K", "").replace("\r", "\n")


def last_frame(text: str) -> list[str]:
    """The lines that change, as they stand when they are drawn last."""
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\x00", text).split("\r")
    return [line.replace("\x00", "").strip("\n") for frame in drawn for line in frame.split("\n") if line.strip("\x00")]


def told(shown: Screen, **metrics: str) -> None:
    shown.send(
        TrainerStatus(
            estimated_remaining_seconds=36_000,
            metrics=[Metric(name=name, value=value) for name, value in (METRICS | metrics).items()],
            last_updated_time=datetime.now(UTC),
        )
    )


def test_80_columns_have_room_for_the_step_and_the_time() -> None:
    shown, text = screen(terminal=True, width=80)
    shown.open()
    told(shown, current_step="123456", total_steps="300000", tokens_per_second="123456.7")
    shown.shut()
    bar, measured = last_frame(text.getvalue())[-2:]
    assert "123456/300000" in bar and bar.rstrip().endswith("10:00:00 left")
    assert measured.strip() == "loss 0.2500 · validation 0.5000 · 123,457 tokens/s"
    assert all(len(line) <= 80 for line in (bar, measured))


def test_the_bar_stays_while_something_long_is_reported() -> None:
    shown, text = screen(terminal=True, width=80)
    shown.open()
    told(shown)
    structlog.get_logger().info("saving step 12 to s3://bucket/" + "a-long-name/" * 20)
    shown.shut()
    bar, measured, doing = last_frame(text.getvalue())[-3:]
    assert "12/300" in bar
    assert "loss 0.2500" in measured
    assert doing.strip().startswith("saving step 12") and len(doing) <= 80


def test_a_failure_names_the_reason_the_fix_and_the_lines() -> None:
    shown, text = screen(terminal=False)
    errors = [DatasetError(file="training", line=4, message="Expected a JSON object.")]
    shown.show_failure(
        Failure(
            reason=Reason.DATASET_INVALID,
            message="Invalid file format.",
            suggestion="Correct [the] file.",
            dataset=DatasetFindings(error_count=1, errors=errors),
        )
    )
    assert text.getvalue().splitlines() == [
        "DatasetInvalid: Invalid file format.",
        "Correct [the] file.",
        "  training, line 4: Expected a JSON object.",
    ]


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (65, "1:05"), (3723, "1:02:03")])
def test_a_duration_is_shown_in_hours_minutes_and_seconds(seconds: int, words: str) -> None:
    assert to_duration(seconds) == words
