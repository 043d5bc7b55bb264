"""The report and the model card: what a person and a hub read of a run."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml

from finetune_api.finetunejob import Adapter, Checkpoints, Dataset, Method, Parallelism, ResolvedHyperparameters
from finetune_api.manifest import Manifest
from finetune_api.run import JobIdentity, ModelSource, StorageConfig, TrainRun
from finetune_trainer.artifacts.charts import MOST_POINTS, line_chart
from finetune_trainer.artifacts.model_card import model_card
from finetune_trainer.artifacts.report import Sample, Samples, report_html

LOG = [
    {"step": 1, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 1.0},
    {"step": 2, "loss": 1.0, "learning_rate": 1e-4, "grad_norm": math.nan},
    {"step": 2, "eval_loss": 1.5},
]


class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_shows_facts_curves_and_samples() -> None:
    page = Reader(
        report_html("router", {"Result": {"step": 2}}, LOG, Samples((Sample("2+2?", "4", "5", "4"),), "Two."))
    )
    assert page.tags.count("svg") == 3  # loss, learning rate, gradient norm
    assert page.tags.count("polyline") == 4
    for text in ("router", "Result", "Two.", "training (last: 1)", "validation (last: 1.5)", "2+2?", "5"):
        assert text in page.text


def test_what_a_dataset_holds_is_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    page = Reader(report_html(evil, {evil: {evil: evil}}, [], Samples((Sample(evil, evil, evil, evil),), evil)))
    assert "script" not in page.tags
    assert page.text.count(evil) >= 8


def test_the_report_needs_nothing_from_outside() -> None:
    page = report_html("router", {}, LOG, Samples())
    assert "http" not in page
    assert "src=" not in page


@pytest.mark.parametrize(
    ("points", "drawn"),
    [([], 0), ([(1.0, 2.0)], 1), ([(float(x), 1.0) for x in range(10 * MOST_POINTS)], MOST_POINTS + 1)],
    ids=["none", "one", "many"],
)
def test_a_chart_has_a_bounded_number_of_points(points: list[tuple[float, float]], drawn: int) -> None:
    chart = line_chart("Loss", {"training": points})
    assert (len(chart.lines[0].points.split()) if chart else 0) == drawn


def test_axes_have_round_numbers() -> None:
    chart = line_chart("Loss", {"training": [(0.0, 0.13), (188.0, 2.91)]})
    assert chart is not None
    assert [tick.label for tick in chart.x_ticks] == ["0", "50", "100", "150"]
    assert [tick.label for tick in chart.y_ticks] == ["1", "2"]


RUN = TrainRun(
    job=JobIdentity(namespace="team-a", name="router", uid="u-1", run_id="7"),
    attempt=2,
    storage=StorageConfig(region="us-east-1"),
    output_uri="s3://models/out",
    model=ModelSource(uri="hf://org/base@main"),
    method=Method(),
    adapter=Adapter(rank=8, dropout=0.05),
    dataset=Dataset.from_wire({"training": {"uri": "s3://data/train.jsonl"}}),
    hyperparameters=ResolvedHyperparameters(
        epochs=3,
        batch_size=16,
        learning_rate=2e-4,
        schedule="Cosine",
        warmup_percent=3,
        weight_decay=0,
        max_length=512,
        packing=False,
        seed=17,
        total_steps=30,
        checkpoint_every_steps=10,
    ),
    parallelism=Parallelism(),
    checkpoints=Checkpoints(),
)
CHECKPOINT = Manifest(
    step=30,
    claim=1,
    attempt=2,
    created=datetime(2026, 11, 22, tzinfo=UTC),
    files=[],
    metrics={"trainLoss": 0.5, "trainedTokens": 1200.0},
)


def test_the_model_card_says_what_the_model_was_made_of() -> None:
    card = model_card(RUN, CHECKPOINT, {"s3://data/train.jsonl": "sha256:bb"}, is_adapter=True)
    _, metadata, text = card.split("---\n", 2)
    assert yaml.safe_load(metadata)["base_model"] == "org/base"
    assert yaml.safe_load(metadata)["library_name"] == "peft"
    for line in (
        "Made by FineTuneJob `team-a/router`, run `7`, attempt 2, with seed 17.",
        "| s3://data/train.jsonl | sha256:bb |",
        "| learningRate | 0.0002 |",
        "| adapter | LoRA, rank 8, alpha 32, dropout 0.05 |",
        "| step | 30 |",
        "| train loss | 0.5 |",
        "| trained tokens | 1200 |",
    ):
        assert line in text.splitlines()
    assert "| torch |" in text
