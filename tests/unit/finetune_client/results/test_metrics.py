"""Curves: what results.csv says, and what was seen of the status."""

from __future__ import annotations

import sys

import pytest

from finetune_client.errors import MissingPackageError, StorageError
from finetune_client.results.metrics import SeenProgress, parse_results
from tests.unit.kubectl_finetune.cluster_objects import SUCCEEDED, TRAINING, seen

CSV = "step,train_loss,valid_loss\n1,7.1,\n2,nan,0.5\n3,6.5,0.4\n4,half"


def test_a_step_without_a_value_has_none() -> None:
    metrics = parse_results(CSV, "s3://b/results.csv")
    assert len(metrics) == 3 and metrics.steps == [1, 2, 3]
    assert metrics["train_loss"] == [7.1, None, 6.5]
    assert metrics.curve("valid_loss") == [(2, 0.5), (3, 0.4)] and metrics.curve("nothing") == []
    with pytest.raises(StorageError, match="no column `step`"):
        parse_results("<html>", "s3://b/results.csv")


@pytest.mark.parametrize(
    "text", ["step,loss\n1," + "9" * 200_000, "", "loss\n1\n", "\x00"], ids=["long", "", "other", "NUL"]
)
def test_what_is_no_results_file_is_reported_as_such(text: str) -> None:
    """Anybody who may write to the storage may have put it there."""
    with pytest.raises(StorageError, match=r"s3://b/results\.csv"):
        parse_results(text, "s3://b/results.csv")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_are_those_of_any_system(ends: str) -> None:
    assert parse_results(CSV.replace("\n", ends), "s3://b/results.csv") == parse_results(CSV, "s3://b/results.csv")


def test_a_column_that_is_there_twice_is_one_column() -> None:
    metrics = parse_results("step,loss,loss\n1,2,3\n", "s3://b/results.csv")
    assert (metrics.steps, metrics["loss"]) == ([1], [3.0])
    assert "1 steps" in metrics._repr_html_()


def test_pandas_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = parse_results(CSV, "s3://b/results.csv")
    frame = metrics.to_pandas()
    assert list(frame.index) == [1, 2, 3] and frame.valid_loss.min() == 0.4
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match="pip install pandas"):
        metrics.to_pandas()


def test_a_notebook_shows_a_table_that_is_no_markup_of_a_file() -> None:
    shown = parse_results("step,<script>\n1,2\n", "x")._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>" not in shown


def test_an_attempt_that_resumes_goes_back_and_a_new_run_starts_over() -> None:
    curve = SeenProgress()
    for step, loss in ((100, 0.9), (200, 0.8), (150, 0.85)):
        curve.take(seen({**TRAINING, "progress": {"step": step, "loss": loss}}))
    assert curve.metrics().curve() == [(100, 0.9), (150, 0.85)]
    curve.take(seen({**SUCCEEDED, "progress": {"step": 100, "loss": 0.9}}))
    assert curve.metrics().curve() == [(100, 0.9), (150, 0.85)]  # the result's step is no step back
    curve.take(seen({**TRAINING, "runId": "2", "progress": {"step": 1, "loss": 3.0}}))
    assert curve.metrics().curve() == [(1, 3.0)]
