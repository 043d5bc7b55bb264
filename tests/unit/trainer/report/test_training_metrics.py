"""What Prometheus reads of a training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prometheus_client import generate_latest
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.report import training_metrics
from finetune_trainer.report.measures import LOSSES
from finetune_trainer.report.training_metrics import ExposeMetrics, flops_per_token, peak_flops
from finetune_trainer.train.callbacks import RecordMetrics


@pytest.fixture
def arguments(tmp_path: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)


def test_a_step_shows_in_the_metrics(arguments: TrainingArguments) -> None:
    metrics, state, control = ExposeMetrics(port=None), TrainerState(), TrainerControl()
    metrics.on_train_begin(arguments, state, control, model=torch.nn.Linear(2, 2))
    metrics.on_step_begin(arguments, state, control)
    state.global_step, state.num_input_tokens_seen = 1, 1000
    metrics.on_step_end(arguments, state, control)
    metrics.on_step_begin(arguments, state, control)
    metrics.on_log(arguments, state, control, logs={"loss": 1.5, "learning_rate": 1e-4, "grad_norm": 2.0, "epoch": 1.0})
    metrics.add_checkpoint_stall(0.25)
    value = metrics.registry.get_sample_value
    assert value("finetune_trainer_step") == 1
    assert value("finetune_trainer_loss") == 1.5
    assert value("finetune_trainer_gradient_norm") == 2.0
    assert value("finetune_trainer_checkpoint_stall_seconds_total") == 0.25
    assert value("finetune_trainer_step_seconds_count") == 1
    assert (value("finetune_trainer_tokens_per_second") or 0) > 1000
    assert (value("finetune_trainer_data_wait_seconds_total") or 0) > 0
    assert b"epoch" not in generate_latest(metrics.registry)


def test_what_is_not_known_of_an_accelerator_is_not_exposed(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU has no peak, and a gauge without a value says 0."""
    for name, exposed in ((None, False), ("Some GPU 9000", False), ("NVIDIA H100 80GB HBM3", True)):
        monkeypatch.setattr(training_metrics, "accelerator_name", lambda name=name: name)
        metrics, state, control = ExposeMetrics(port=None), TrainerState(), TrainerControl()
        metrics.on_train_begin(arguments, state, control, model=torch.nn.Linear(2, 2))
        assert (b"model_flops_utilization" in generate_latest(metrics.registry)) is exposed, name


def test_what_comes_between_steps_is_no_wait_for_data(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1.0
    monkeypatch.setattr(training_metrics, "time", SimpleNamespace(monotonic=lambda: now))
    metrics, state, control = ExposeMetrics(port=None), TrainerState(), TrainerControl()
    metrics.on_step_begin(arguments, state, control)
    for between in (metrics.on_evaluate, metrics.on_save):
        metrics.on_step_end(arguments, state, control)
        now += 60
        between(arguments, state, control)
        now += 0.25
        metrics.on_step_begin(arguments, state, control)
    assert metrics.registry.get_sample_value("finetune_trainer_data_wait_seconds_total") == 0.5


class Notes:
    """Keeps what an EventLog is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.told: list[str] = []

    def add(self, message: str, **data: object) -> None:
        self.told.append(message)
        self.note(message)

    def note(self, message: str, **data: object) -> None:
        self.messages.append(message)


@pytest.mark.parametrize(
    ("steps", "every", "told"),
    [(20, 1, 20), (1000, 10, 101), (100_000, 1000, 101)],
    ids=["each step", "each tenth", "each thousandth"],
)
def test_losses_are_noted_at_a_bounded_rate(arguments: TrainingArguments, steps: int, every: int, told: int) -> None:
    notes, state, control = Notes(), TrainerState(max_steps=steps), TrainerControl()
    callback = RecordMetrics(notes, LOSSES)  # type: ignore[arg-type]
    for step in range(1, steps + 1):
        state.global_step = step
        callback.on_log(arguments, state, control, logs={"loss": 0.224})
    callback.on_log(arguments, state, control, logs={"train_runtime": 9.0})
    assert len(notes.messages) == told
    assert notes.told == []  # the log has its own pace
    assert notes.messages[0] == f"Step 1/{steps}: training loss=0.22"
    assert f"Step {2 * every}/{steps}: training loss=0.22" in notes.messages


def test_a_validation_is_noted_once_with_the_training_loss(arguments: TrainingArguments) -> None:
    notes, state, control = Notes(), TrainerState(max_steps=300, global_step=7), TrainerControl(should_evaluate=True)
    callback = RecordMetrics(notes, LOSSES)  # type: ignore[arg-type]
    callback.on_log(arguments, state, control, logs={"loss": 0.25})
    callback.on_log(arguments, state, control, logs={"eval_loss": 0.5})
    assert notes.messages == notes.told == ["Step 7/300: training loss=0.25, validation loss=0.50"]


def test_only_trained_weights_have_gradients_of_their_own() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 1, bias=False))
    model[0].weight.requires_grad = False
    assert flops_per_token(model) == 4 * 100 + 6 * 10


def test_weights_in_4_bits_count_by_their_true_shape() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 1, bias=False))
    model[0].weight = torch.nn.Parameter(torch.zeros(50, 1, dtype=torch.uint8), requires_grad=False)  # two in a byte
    model[0].weight.quant_state = SimpleNamespace(shape=(10, 10))  # type: ignore[attr-defined]
    assert flops_per_token(model) == 4 * 100 + 6 * 10


def test_of_a_mixture_a_token_is_computed_by_a_few_experts() -> None:
    """Qwen3-30B-A3B: 30.5 billion parameters, of which 3.3 compute a token."""
    config = Qwen3MoeConfig(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert flops_per_token(model) / 6 == pytest.approx(3.3e9, rel=0.02)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("GeForce GTX 1080", None),
        (None, None),
    ],
)
def test_the_peak_is_known_by_name(name: str | None, peak: float | None) -> None:
    assert peak_flops(name) == peak
