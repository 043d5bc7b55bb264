"""Prometheus metrics of a training: `/metrics` of the first process of each node.

Names follow https://prometheus.io/docs/practices/naming/. The device is the only label; the target's labels name the
Pod.
"""

from __future__ import annotations

import math
import re
import time
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

STEP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# Dense bfloat16 FLOP/s of one accelerator, from the makers' data sheets.
PEAK_FLOPS = {
    "A100": 312e12,
    "A10": 125e12,
    "A10G": 70e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "MI300X": 1307e12,
}
# Forward 2 N, and as much again for the gradients of the activations; only trained weights have gradients of their own.
FLOPS_PER_FROZEN_PARAMETER = 4
FLOPS_PER_TRAINED_PARAMETER = 6

EXPERTS = ".experts."
"""In the names of the weights of experts among which each token has a few."""
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""The names that configs have for it."""

_log = structlog.get_logger()


class ExposeMetrics(TrainerCallback):
    """Updates the metrics, and serves them on `port` (None: not at all) while training runs."""

    def __init__(self, port: int | None) -> None:
        self.registry = CollectorRegistry()
        self._port = port
        self._server: Any = None
        self._flops_per_token = 0.0
        self._peak_flops: float | None = None
        self._step_began = self._step_ended = 0.0
        self._tokens = 0.0

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"finetune_trainer_{name}", text, registry=self.registry)

        self._gauges = {
            "loss": gauge("loss", "Training loss of the newest logged step."),
            "eval_loss": gauge("eval_loss", "Validation loss of the newest evaluation."),
            "learning_rate": gauge("learning_rate", "Learning rate of the newest logged step."),
            "grad_norm": gauge("gradient_norm", "Norm of the gradient before clipping."),
        }
        self._lazily = {
            "reward_mean": lambda: gauge("reward", "Mean reward of the newest logged step."),
            "eval_reward_mean": lambda: gauge("valid_reward", "Mean reward of the newest evaluation."),
        }
        """Gauges of methods with rewards: in other trainings they would say 0."""
        self._step = gauge("step", "Optimizer steps done.")
        self._speed = gauge("tokens_per_second", "Tokens of this process's last step, by its time.")
        self._utilization: Gauge | None = None
        self._memory = Gauge(
            "finetune_trainer_accelerator_memory_bytes",
            "Memory that torch holds on an accelerator: now, and the most so far.",
            ["device", "kind"],
            registry=self.registry,
        )
        self._step_seconds = Histogram(
            "finetune_trainer_step_seconds", "Time of a step.", buckets=STEP_BUCKETS, registry=self.registry
        )
        self._data_seconds = Counter(
            "finetune_trainer_data_wait_seconds", "Time that steps waited for data.", registry=self.registry
        )
        self._stall_seconds = Counter(
            "finetune_trainer_checkpoint_stall_seconds",
            "Time that checkpoint saves blocked the training.",
            registry=self.registry,
        )

    def add_checkpoint_stall(self, seconds: float) -> None:
        """Add the seconds for which a save stalled training."""
        self._stall_seconds.inc(seconds)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._flops_per_token = flops_per_token(model) if model is not None else 0.0
        self._peak_flops = peak_flops(accelerator_name())
        if self._peak_flops is not None and self._utilization is None:  # a gauge without a value would show 0
            self._utilization = Gauge(
                "finetune_trainer_model_flops_utilization_ratio",
                "Share of the accelerator's peak (MFU), where that is known.",
                registry=self.registry,
            )
        self._tokens = float(state.num_input_tokens_seen)
        self._step.set(state.global_step)
        if self._port is not None:
            self._serve(self._port)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_began = time.monotonic()
        if self._step_ended:
            self._data_seconds.inc(self._step_began - self._step_ended)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        seconds = time.monotonic() - self._step_began
        self._step.set(state.global_step)
        self._step_seconds.observe(seconds)
        tokens = float(state.num_input_tokens_seen) - self._tokens
        self._tokens += tokens
        speed = tokens / max(seconds, 1e-9) / args.world_size
        self._speed.set(speed)
        if self._peak_flops is not None and self._utilization is not None:
            self._utilization.set(speed * self._flops_per_token / self._peak_flops)
        self._read_memory()
        self._step_ended = time.monotonic()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._step_ended = time.monotonic()  # the time since the last step was not spent waiting for data

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._step_ended = time.monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in (logs or {}).items():
            if name in self._lazily and name not in self._gauges:
                self._gauges[name] = self._lazily[name]()
            if name in self._gauges:
                self._gauges[name].set(value)

    def _serve(self, port: int) -> None:
        """Serve in a thread. A port that is taken is only logged: training does not need the metrics."""
        try:
            self._server, _ = start_http_server(port, registry=self.registry)
        except OSError as error:
            _log.warning(f"metrics are not served: port {port}: {error.strerror}")

    def _read_memory(self) -> None:
        import torch

        if not torch.cuda.is_available():
            return
        device = torch.cuda.current_device()
        self._memory.labels(device=device, kind="allocated").set(torch.cuda.memory_allocated(device))
        self._memory.labels(device=device, kind="peak").set(torch.cuda.max_memory_allocated(device))


def flops_per_token(model: Any) -> float:
    """FLOPs per token of forward and backward pass, without attention: Kaplan et al. (2020), section 2.1.

    Of a layer's experts a token is computed by a few.
    """
    chosen = _share_of_experts(getattr(model, "config", None))
    total = 0.0
    for name, weight in model.named_parameters():
        flops = FLOPS_PER_TRAINED_PARAMETER if weight.requires_grad else FLOPS_PER_FROZEN_PARAMETER
        total += flops * _numbers(weight) * (chosen if EXPERTS in name else 1)
    return total


def _share_of_experts(config: Any) -> float:
    """The share of a layer's experts that compute a token."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    experts = next((count for name in EXPERT_COUNTS if (count := getattr(text, name, None))), None)
    chosen = getattr(text, "num_experts_per_tok", None)
    return chosen / experts if chosen and experts else 1.0


def _numbers(weight: Any) -> int:
    """The number of elements of a weight. One in 4 bits is packed; its shape is in bitsandbytes' quant_state."""
    quantized = getattr(weight, "quant_state", None)
    return int(weight.numel() if quantized is None else math.prod(quantized.shape))


def peak_flops(name: str | None) -> float | None:
    """The peak FLOP/s of an accelerator by whole words of its name; of several that match, the longest counts."""
    matching = [known for known in PEAK_FLOPS if re.search(rf"\b{known}\b", name or "")]
    return PEAK_FLOPS[max(matching, key=len)] if matching else None


def accelerator_name() -> str | None:
    """The name of this process's accelerator; None without one."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
