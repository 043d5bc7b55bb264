"""How many tokens a training has seen, with one synchronization with the accelerator for each step."""

from __future__ import annotations

from typing import Any

import torch


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
