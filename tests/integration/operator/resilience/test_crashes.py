"""The operator is killed before and after every write that it makes in a job's life: nothing comes out otherwise.

Every write counts, Events too, in the order in which an undisturbed life makes them; not the leader's Lease, not
TokenReviews, and not the class's status, which are of no job. For each of them a fresh job lives, whose operator is
killed (SIGKILL) twice: when the write is on its way, which then never arrives; and, started again as the kubelet would
and at the same write again, when the API server has done it and the operator has not heard so.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.integration.operator.api_proxy import Fault, LoseAnswer, Request, Reset
from tests.integration.operator.lives import Life, Portrait, Stage, side_by_side

SLOW_STEPS = 3
"""How many writes more than others an undisturbed life makes on a busy machine, of some forty."""
ROUNDS = 3
"""How often a write is waited for: a life that makes fewer of them is lived again, in case it was only the fast one."""


class Crashes:
    """Kills the operator before its n-th write, and after the same one when it is made again."""

    def __init__(self, life: Life, number: int) -> None:
        self._life = life
        self._left = number
        self.write = ""
        self.kills = 0

    def __call__(self, request: Request) -> Fault | None:
        if not request.is_write or self.kills == 2:
            return None
        if self.kills == 0:
            self._left -= 1
            if self._left > 0:
                return None
            self.write = request.line
        elif request.line != self.write:
            return None
        self.kills += 1
        kill = self._life.operator.kill
        return Reset(kill) if self.kills == 1 else LoseAnswer(kill)


def with_crashes(stage: Stage, number: int, round: int) -> tuple[Crashes, Portrait, str]:
    """A life whose operator is killed before and after one write."""
    with stage.life(f"killed-{number}-{round}") as life:
        life.lane.intercept = crashes = Crashes(life, number)
        return crashes, life.live(), life.operator.log.read_text()


@pytest.mark.timeout(600)
def test_killed_before_and_after_every_write_the_life_ends_as_undisturbed(quiet_stage: Stage) -> None:
    """Takes a minute or more: a whole life for each of some forty writes, each with three starts of an operator."""
    with quiet_stage.life("undisturbed") as life:
        undisturbed = life.live()
        writes = [exchange.request.line for exchange in life.lane.writes]
    numbers, wrong, without = {f"write {number}": number for number in range(1, len(writes) + 1)}, [], list[str]()
    for round in range(ROUNDS):
        left = without if round else list(numbers)
        results = side_by_side({name: partial(with_crashes, quiet_stage, numbers[name], round) for name in left})
        without = []
        for name, result in results.items():
            if isinstance(result, Exception):
                wrong.append(f"{name}: {result}")
                continue
            crashes, portrait, log = result
            if not crashes.kills:
                without.append(name)
            elif crashes.kills != 2:
                wrong.append(f"{name} ({crashes.write}): killed {crashes.kills} times instead of twice")
            if difference := undisturbed.differences(portrait):
                wrong.append(f"{name} ({crashes.write}):\n{difference}")
            if '"event": "bug"' in log:
                wrong.append(f"{name} ({crashes.write}): a bug:\n{log}")
    # A slow life may write a status in two steps. Where that was the undisturbed one, others make fewer writes. Which
    # of them do does not follow from their numbers: each is slow or not by itself.
    assert set(without) <= set(list(numbers)[-SLOW_STEPS:])
    assert not wrong, f"{len(wrong)} of {len(writes)}:\n" + "\n".join(wrong)
