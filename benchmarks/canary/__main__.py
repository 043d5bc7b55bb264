"""Simulated canaries, through the operator's own state machine: how many of them end how.

    python -m benchmarks.canary [--canaries 400] [--json FILE]

Of each kind there are 400 canaries with fixed seeds. Each has one step of 10 %, four checks, and requests until it is
decided, at most as many as stated; the looks are as in the operator. Answers fail by chance, and their times and tokens
are log-normal with a standard deviation of 0.7, as those of language models are. What is identical may be rolled back
in at most 1 % of canaries, and at least 80 % of what is worse have to be rolled back.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from finetune_api.modeldeployment import Canary, CanaryCheck, CanaryStatus, CanaryStep, TrafficReport
from finetune_api.pod_contracts.run import ModelSource
from finetune_gateway.canary.split import Split
from finetune_gateway.canary.traffic import Answered, Traffic
from finetune_operator.modeldeployment.canary.observation import CanaryObservation
from finetune_operator.modeldeployment.canary.steps import advance, is_proved, new_canary

START = datetime(2026, 1, 1, tzinfo=UTC)
SIGMA = 0.7
SPEC = Canary(
    steps=[CanaryStep(percent=10, minimum_requests=300)],
    checks=[
        CanaryCheck(metric="ErrorRate", maximum_increase_percent=2),
        CanaryCheck(metric="TimeToFirstTokenP95", maximum_ratio=1.3),
        CanaryCheck(metric="TimePerOutputTokenP95", maximum_ratio=1.3),
        CanaryCheck(metric="OutputTokensMean", maximum_ratio=1.5),
    ],
)
MOST_FALSE, LEAST_CAUGHT = 0.01, 0.8


@dataclass(frozen=True)
class Model:
    """How a model answers: share of errors, and the factors of its times and tokens."""

    errors: float
    first: float = 1.0
    per_token: float = 1.0
    tokens: float = 1.0


@dataclass(frozen=True)
class Kind:
    """What serves against a canary; `is_worse`: beyond the margin. `requests`: the most to the canary."""

    name: str
    stable: Model
    canary: Model
    is_worse: bool
    requests: int


_PLAIN = Model(0.01)
KINDS = (
    *(
        Kind(f"identical, {errors:.1%} errors", Model(errors), Model(errors), False, 1000)
        for errors in (0.0, 0.005, 0.01, 0.03)
    ),
    Kind("errors 1 % -> 6 %", _PLAIN, replace(_PLAIN, errors=0.06), True, 1200),
    Kind("errors 3 % -> 8 %", Model(0.03), Model(0.08), True, 2000),
    Kind("errors 1 % -> 20 %", _PLAIN, replace(_PLAIN, errors=0.2), True, 100),
    Kind("first token x 2", _PLAIN, replace(_PLAIN, first=2.0), True, 500),
    Kind("first token x 3", _PLAIN, replace(_PLAIN, first=3.0), True, 200),
    Kind("time per token x 2", _PLAIN, replace(_PLAIN, per_token=2.0), True, 500),
    Kind("tokens x 2", _PLAIN, replace(_PLAIN, tokens=2.0), True, 500),
)


def answered(model: Model, chance: random.Random) -> Answered:
    """One answer."""
    if chance.random() < model.errors:
        return Answered("errors")
    first, per_token, tokens = (chance.lognormvariate(0.0, SIGMA) for _ in range(3))
    return Answered(
        "answered", 0.3 * model.first * first, 0.02 * model.per_token * per_token, round(200 * model.tokens * tokens)
    )


def simulated(kind: Kind, seed: int) -> tuple[str, int]:
    """How one canary ended, and after how many of its requests."""
    chance, now = random.Random(f"{kind.name} {seed}"), START
    canary: CanaryStatus = new_canary(ModelSource(uri="s3://models/next", digest="sha256:next"), SPEC, now)
    traffic = Traffic()
    total = 0
    while total < kind.requests:
        reports = []
        report = traffic.report()
        if report["batch"] is not None:
            reports.append(TrafficReport.model_validate(report))
        found = advance(canary, SPEC, 1, CanaryObservation(ready=1, splits=True, reports=reports), now)
        assert found.canary is not None
        canary = found.canary
        if canary.phase == "Ending" or is_proved(canary, SPEC):
            return ("rolledBack" if found.rolled_back else "promoted"), canary.canary.requests
        for source in canary.sources:
            traffic.acknowledged(canary.split, source.sequence)
        traffic.follow(Split(canary.split, canary.revision, canary.percent))
        for _ in range(50):
            is_canary = chance.random() * 100 < canary.percent
            total += is_canary
            model, group = (kind.canary, "canary") if is_canary else (kind.stable, "stable")
            traffic.count(traffic.split, group, answered(model, chance))  # type: ignore[arg-type]
        now += timedelta(seconds=2)
    return "undecided", canary.canary.requests


def figures(kind: Kind, canaries: int) -> dict[str, Any]:
    """How the canaries of a kind ended."""
    found = [simulated(kind, seed) for seed in range(canaries)]
    ends = Counter(end for end, _ in found)
    back = sorted(requests for end, requests in found if end == "rolledBack")
    share = ends["rolledBack"] / canaries
    return {
        "kind": kind.name,
        "mostRequestsToCanary": kind.requests,
        **{end: ends[end] for end in ("rolledBack", "promoted", "undecided")},
        **({"medianRequestsUntilRollback": back[len(back) // 2]} if back else {}),
        "asWanted": share >= LEAST_CAUGHT if kind.is_worse else share <= MOST_FALSE,
    }


def main() -> int:
    """Print the figures; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=400, help="of each kind")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    found = [figures(kind, arguments.canaries) for kind in KINDS]
    text = json.dumps(found, indent=2)
    sys.stdout.write(f"{text}\n")
    if arguments.json is not None:
        arguments.json.write_text(f"{text}\n")
    return 0 if all(one["asWanted"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
