"""The report and the model card: what a person and a hub read of a run."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml

from finetune_api.finetunejob import Adapter, Checkpoints, Dataset, LoRA, Method, Parallelism, ResolvedHyperparameters
from finetune_api.pod_contracts.manifest import Manifest
from finetune_api.pod_contracts.run import JobIdentity, ModelSource, StorageConfig, TrainRun
from finetune_trainer.methods.rft.tally import MEASURES
from finetune_trainer.report.charts import MOST_POINTS, line_chart
from finetune_trainer.report.model_card import model_card
from finetune_trainer.report.report import Sample, Samples, Summary, readable, report_html
from finetune_trainer.report.summary import ResultOrigin, summarize, to_words, unchanged_loss

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


def test_what_a_person_looks_for_comes_first() -> None:
    summary = Summary(("It has learned.",), {"training time": "41 s"}, "load(it)")
    tables = {"Hyperparameters": {"epochs": 3}}
    page = report_html("router", tables, LOG, Samples((Sample("2+2?", "4", "5", "4"),), "Two."), summary)
    parts = ["It has learned.", ">Loss<", "Two.", "41 s", "load(it)", ">Learning rate<", ">Hyperparameters<"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (14880.0, "14,880"),
        (0.1234567890123456, "0.1235"),
        (2e-4, "0.0002"),
        (1500, "1,500"),
        (3.0, "3"),
        (True, True),
        ("bf16", "bf16"),
    ],
)
def test_numbers_have_the_digits_that_a_person_reads(value: object, shown: object) -> None:
    assert readable(value) == shown
    assert f">{shown}<" in report_html("router", {"Result": {"x": value}}, [], Samples())


def test_a_preference_run_shows_its_reward_accuracy() -> None:
    log = [{"step": 1, "rewards/accuracies": 0.5}, {"step": 2, "rewards/accuracies": 0.9}]
    metrics = {"reward_accuracy": "rewards/accuracies"}
    assert "Reward accuracy" in report_html("router", {}, log, Samples(), metrics=metrics)


def test_a_sample_without_a_reference_shows_none() -> None:
    samples = Samples((Sample("2+2?", "", "5", "4"),), "One.")
    assert "Reference" not in report_html("router", {}, LOG, samples)
    assert not any("word for word" in line for line in summarize(RUN, CHECKPOINT, MADE_LOG, samples, MAKING).headlines)


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
    adapter=Adapter(lora=LoRA(rank=8, dropout=0.05)),
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


MAKING = ResultOrigin(
    "s3://models/out/result/claim-000002",
    is_adapter=True,
    accelerator="NVIDIA H100",
    adapted="The adapter is on self_attn (q_proj); not on mlp.experts (down_proj).",
)
MADE_LOG = [
    {"step": 1, "loss": 2.91},
    {"step": 10, "eval_loss": 1.5},
    {"step": 30, "loss": 0.114},
    {"step": 30, "eval_loss": 0.2534},
    {"step": 40, "eval_loss": 0.9},
    {"step": 40, "train_runtime": 7265.0},
]


def test_the_verdict_is_of_the_checkpoint_that_became_the_result() -> None:
    samples = Samples((Sample("a", "4", "5", "4 "), Sample("b", "6", "7", "8")))
    headlines = summarize(RUN, CHECKPOINT, MADE_LOG, samples, MAKING).headlines
    assert headlines[:3] == (
        "Validation loss: from 1.5 at step 10 to 0.2534 at step 30.",
        "Training loss: from 2.91 at step 1 to 0.114 at step 30.",
        "Of the 2 samples below, the model answered 0 word for word like the reference before its training, and 1 "
        "after it.",
    )


def test_with_rewards_their_curve_and_that_of_validation_come_first() -> None:
    log = [
        {"step": 1, "loss": 0.01, "reward_mean": 0.48},
        {"step": 2, "loss": 0.02, "reward_mean": 0.47},
        {"step": 2, "eval_reward_mean": 0.45678},
    ]
    made = CHECKPOINT.model_copy(update={"step": 2})
    assert summarize(RUN, made, log, Samples(), MAKING, MEASURES).headlines[:2] == (
        "Validation mean reward: 0.4568 at step 2, the first that was evaluated.",
        "Train mean reward: did not rise: from 0.48 at step 1 to 0.47 at step 2.",
    )
    page = report_html("router", {}, log, Samples(note="Two."), metrics={"reward_mean": "reward_mean"})
    places = [page.index(part) for part in (">Reward mean<", "Two.", ">Loss<")]
    assert places == sorted(places) and page.count(">Reward mean<") == 1


def test_a_loss_that_did_not_fall_is_called_so() -> None:
    log = [{"step": 1, "eval_loss": 0.6931}, {"step": 30, "eval_loss": 0.6932}]
    headlines = summarize(RUN, CHECKPOINT, log, Samples(), MAKING).headlines
    assert headlines[0] == "Validation loss: did not fall: from 0.6931 at step 1 to 0.6932 at step 30."


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([0.6931, 0.6931, 0.6930], True),
        ([0.6931] * 30, True),
        ([2.9] * 9 + [0.1], False),
        ([0.70, 0.65] * 15 + [0.5, 0.5, 0.5, 0.5], False),
        ([1.0], False),
        ([], False),
    ],
)
def test_a_training_that_has_changed_nothing_is_reported(losses: list[float], warned: bool) -> None:
    told = unchanged_loss([{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)])
    assert (told is not None and "learningRate" in told) == warned


def test_the_summary_says_what_it_took_and_where_the_model_is() -> None:
    summary = summarize(RUN, CHECKPOINT, MADE_LOG, Samples(), MAKING)
    assert summary.facts == {
        "training time of attempt 2": "2 h 1 min",
        "accelerator hours of it": "2.018 (1 x NVIDIA H100)",
        "trained tokens": "1,200",
        "model": MAKING.result_uri,
        "it is": "an adapter upon hf://org/base@main",
        "trained": "The adapter is on self_attn (q_proj); not on mlp.experts (down_proj).",
    }


@pytest.mark.parametrize(
    ("model", "result", "is_adapter", "parts"),
    [
        ("hf://org/base@main", "s3://b/r", True, ["aws s3 cp --recursive s3://b/r tuned", "AutoPeftModelForCausalLM"]),
        ("s3://b/base", "s3://b/r", True, ["s3://b/base base", "PeftModel.from_pretrained", '"base"']),
        ("s3://b/base", "s3://b/r", False, ["s3://b/r tuned", 'AutoModelForCausalLM.from_pretrained("tuned")']),
        ("file:///home/me/base", "file:///home/me/r", True, ['AutoPeftModelForCausalLM.from_pretrained("/home/me/r")']),
    ],
)
def test_the_summary_says_how_to_load_the_model(model: str, result: str, is_adapter: bool, parts: list[str]) -> None:
    run = RUN.model_copy(update={"model": ModelSource(uri=model)})
    origin = ResultOrigin(result, is_adapter=is_adapter, accelerator=None)
    loading = summarize(run, CHECKPOINT, [], Samples(), origin).loading
    assert all(part in loading for part in parts)
    assert ("aws s3" in loading) == result.startswith("s3://")


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (41, "41 s"), (725, "12 min 5 s"), (11240, "3 h 7 min")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert to_words(seconds) == words


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
