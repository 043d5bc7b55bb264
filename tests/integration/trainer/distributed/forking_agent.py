"""torchrun's agent whose workers are forked: the fresh interpreters of its own spend ten seconds on importing torch."""

from __future__ import annotations

from functools import partial

from torch.distributed.launcher import api


def fork_workers() -> None:
    """From now on, in this process. (test_gang.py has a training under the agent as it is.)"""
    api.LaunchConfig = partial(api.LaunchConfig, start_method="fork")
