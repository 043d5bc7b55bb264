"""The tests' own threads: conftest.py at the top of the repository says how many, before anything imports torch."""

from __future__ import annotations

import torch


def test_the_tests_compute_in_one_thread() -> None:
    """With one for each core they would take several times the CPU time, most of it spent on waiting for each other."""
    assert torch.get_num_threads() == 1
