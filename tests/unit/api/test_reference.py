"""The reference pages say what the API server takes."""

from __future__ import annotations

import pytest

from finetune_api.reference import pages


@pytest.mark.parametrize(
    ("page", "row"),
    [
        ("finetunesweep", "| `budget.trials` | integer, 1 to 200 | `20` |"),
        ("finetunesweep", "| `learningCurve.worthwhileGain` | number, more than 0, at most 1,000 | `0.01` |"),
        ("finetunesweep", "| `learningCurve.percents` | list of number, more than 0, at most 100, 4 to 10 items |"),
        ("finetunejob", "| `adapter.lora.dropout` | number, at least 0, less than 1 |"),
        ("finetunejob", "| `runId` | string |"),
    ],
)
def test_bounds_stand_beside_the_type(page: str, row: str) -> None:
    assert row in pages()[f"{page}.md"]
