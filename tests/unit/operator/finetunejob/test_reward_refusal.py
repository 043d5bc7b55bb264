"""Rewards that can't work are refused before a run begins, and not looked at again at each event of one that has."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.finetunejob.observe import refusal_before_start
from tests.unit.operator.finetunesweep.sweeps import TEMPLATE

BEGUN = {"phase": "Training", "runId": "1", "preflight": {"jobName": "router-preflight-1"}}


def spec(**changes: Any) -> FineTuneJobSpec:
    """Its reward reads a grader that there is not."""
    rft = {"graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {}}], "reward": "exact + close"}
    return FineTuneJobSpec.from_wire({**TEMPLATE, "method": {"type": "RFT", "rft": rft}, **changes})


@pytest.mark.parametrize(
    ("status", "refused"),
    [({}, True), (BEGUN, False), ({**BEGUN, "runId": "0"}, True), ({**BEGUN, "preflight": None}, True)],
    ids=["new", "training", "another run", "waits to begin"],
)
async def test_a_reward_is_checked_until_its_run_has_begun(status: dict[str, Any], refused: bool) -> None:
    found = await refusal_before_start(spec(), FineTuneJobStatus.read(status))
    assert (found is not None) == refused
