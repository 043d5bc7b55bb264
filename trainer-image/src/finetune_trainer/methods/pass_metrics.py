"""What is counted and measured in the passes of a step, read back from the accelerator once per step."""

from __future__ import annotations

from typing import Any

import torch


class MetricsOverPasses:
    """A mixin that goes before a Trainer class, whose passes call `add_metric`.

    TRL reads each metric back in each pass, and logs means of means, which change with the batches. These are means
    over tokens, or pairs.
    """

    accelerator: Any
    model: Any

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._sums: dict[str, dict[str, torch.Tensor]] = {"train": {}, "eval": {}}
        """By metric, (2,), float64, on the accelerator: a sum over this process's passes, and what it is divided by."""
        super().__init__(*arguments, **settings)

    def add_metric(self, name: str, values: torch.Tensor, counted: torch.Tensor) -> None:
        """`values`, any shape: of a pass. `counted`: the same shape, whether each counts."""
        sums = self._sums[self._mode()]
        found = torch.stack([values.detach().where(counted, 0).sum(dtype=torch.float64), counted.sum().double()])
        sums[name] = sums[name] + found if name in sums else found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means over all processes."""
        mode = self._mode()
        sums, self._sums[mode] = self._sums[mode], {}
        if sums:
            prefix = "eval_" if mode == "eval" else ""
            totals = self.accelerator.reduce(torch.stack(list(sums.values()))).tolist()
            for name, (total, count) in zip(sums, totals, strict=True):
                logs[f"{prefix}{name}"] = total / max(count, 1)
        super().log(logs, start_time)  # type: ignore[misc]

    def _mode(self) -> str:
        return "train" if self.model.training else "eval"


class CountTokensByStep:
    """A mixin that goes before a Trainer class.

    transformers reads the count back after each micro-batch: the accelerator then has nothing to do until the CPU has
    queued the next one.
    """

    accelerator: Any
    args: Any
    state: Any
    _unread: torch.Tensor | int = 0
    """int64 scalar on the accelerator: this process's tokens of the step's micro-batches so far, without padding."""

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count a micro-batch. A batch without a mask has no padding: its rows are packed."""
        mask = inputs.get("attention_mask")
        self._unread += inputs["input_ids"].numel() if mask is None else mask.sum()
        if self.accelerator.sync_gradients:
            tokens = torch.as_tensor(self._unread, device=self.args.device, dtype=torch.int64)
            self.state.num_input_tokens_seen += int(self.accelerator.gather(tokens).sum())
            self._unread = 0
